"""What a pool of replicas does that only prefills, or only decodes: disaggregated serving.

Prefill pool: requests arrive at random, each attention-DP rank is a queue of its own with service time `S` per
prompt, so that at utilisation `u` a request waits `u S (1 + cv^2) / (2 (1 - u))` before its own prefill (Pollaczek
and Khinchine; `cv` is the coefficient of variation of prompt lengths). Decode pool: `c` sequences per replica step
together and no prompt comes between, so that TPOT is the round of a decode step and, by Little's law,
requests/s = c / (transfer + wait + (L - 1) TPOT).

Both keep the calibration's residuals of the engine on the service's own lengths: that of TPOT scales the decode
pool's time, that of TTFT the prefill pool's, and lowers its rate where it is above 1. No disaggregated run was
measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.disaggregated.kv_transfer import TransferLink, sequence_bytes_per_rank, start_s, wire_s
from costmodel.estimate.batch import PlanBatch
from costmodel.estimate.error_model import Correction, Situation
from costmodel.plan.columns import Columns, Floats
from costmodel.serving.closed_loop import Load, longest_extra_s
from costmodel.step.memory import Memory, plan_memory
from costmodel.step.pipeline_pass import Pass, decode_pass, front_end_s, prefill_pass
from costmodel.step.step_work import decode_work, prompt_work

MOST_UTILISED = 0.95
"""Highest utilisation of a prefill pool that is considered: beyond it the queue grows without bound."""

JOIN_STEPS = 1.0
"""Decode steps from the arrival of a prompt's cache until its sequence takes part: assumed, half a step until the
scheduler looks again and half a step until the next one begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolColumns(Columns):
    """One pool at one operating point, per plan. Arrays have shape `(num_plans,)`."""

    requests_per_s: Floats
    """Of all replicas of the pool, at most what its links can carry."""
    residence_s: Floats
    """Prefill: arrival to the end of the prompt's prefill. Decode: from the transfer on, as long as it holds cache."""
    latency_s: Floats
    """Prefill: as `residence_s`. Decode: time per output token."""
    longest_extra_s: Floats
    """What a request with the longest prompt takes beyond that; 0 in a decode pool."""
    entry_s: Floats
    """Decode: start of the transfer and wait for the running step, which TTFT includes; 0 in a prefill pool."""
    wire_s: Floats
    """Sending or receiving one prompt's cache."""
    log_sd: Floats
    """Standard deviation of log(measured / estimate) of the latency."""
    gpus: Floats
    stage_gpus: Floats
    """GPUs of one stage, all replicas."""
    busy_s: Floats
    """Seconds per request in which GPUs run kernels, summed over the pool's GPUs, by its busiest stage."""
    math_s: Floats
    """Seconds per request of dense-peak computation, summed over the pool's GPUs."""
    hbm_s: Floats
    """The same of HBM traffic at its peak bandwidth."""
    memory_util_frac: Floats
    kv_fits_longest: Floats
    kv_capacity_sequences: Floats
    sequences_per_rank: Floats
    """That want to hold cache, per attention-DP rank."""
    ranks: Floats
    """Attention-DP ranks of a replica."""

    @classmethod
    def spread(cls, **columns: Floats) -> PoolColumns:
        """Pools whose columns have shape `(num_plans,)`, or `(1,)` where all share a value."""
        shape = np.broadcast_shapes(*(column.shape for column in columns.values()))
        return cls(**{name: np.broadcast_to(column, shape) for name, column in columns.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPoint:
    """One pool at one operating point, with what it is made of."""

    columns: PoolColumns
    parts_s: dict[str, Floats]
    """Parts of TTFT that the pool adds, by name of `costmodel.estimate.result.TTFT_PARTS`."""
    passes: Pass
    passes_per_request: Floats
    """Times `passes` that one request keeps a stage's GPUs busy."""
    chunks: Floats
    memory: Memory
    kv_bytes: Floats
    """KV cache in use on the fullest GPU."""
    prompt_bytes: Floats
    """Cache of one prompt of mean length on the rank that holds most of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Plans of one role, prepared for any operating point. From `prefill_pool` and `decode_pool`."""

    batch: PlanBatch
    load: Load
    link: TransferLink
    prompt_bytes: Floats
    wire_s: Floats
    longest_prompt: Floats
    memory_fraction: Floats
    length_cv2: float
    """Squared coefficient of variation of prompt lengths."""

    def _memory(self, sequences_per_rank: Floats, *, outputs: Floats) -> Memory:
        batch, load = self.batch, self.load
        return plan_memory(
            arch=batch.arch,
            layout=batch.layout,
            precision=batch.precision,
            cluster=batch.columns.cluster,
            stages=batch.stages,
            batched_tokens=load.batched_tokens,
            sequences_per_rank=np.minimum(sequences_per_rank, load.max_num_seqs),
            mean_tokens=load.isl + outputs * np.where(batch.reserves_whole_output > 0, 1.0, 0.5),
            longest_tokens=self.longest_prompt + outputs,
            memory_fraction=self.memory_fraction,
            fraction_is_of_free=batch.fraction_is_of_free,
        )

    def _correction(self, per_replica: Floats) -> Correction:
        batch, load = self.batch, self.load
        return Correction.of(batch.residual, Situation.of(batch.layout, per_replica, load.isl, load.osl))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPool(Pool):
    """Replicas that prefill prompts and hand them on."""

    lone: Pass
    full: Pass
    """A pass whose token budget is full of prompts."""
    chunks: Floats
    packed: Floats
    """Prompts of a full pass, per attention rank."""
    longest_extra_s: Floats

    @property
    def marginal_s(self) -> Floats:
        """What one more prompt takes of a replica whose passes are full."""
        # unlike where prompts interrupt decoding, every attention-DP rank has prompts of its own in a full pass
        return self.chunks * self.full.stage_s / self.packed / self.batch.layout.attn_dp

    def at(self, utilisation: Floats) -> PoolPoint:
        """The pool at a share, shape `(num_plans,)` and below 1, of the rate that it could just sustain."""
        batch, load, layout = self.batch, self.load, self.batch.layout
        engine, marginal = batch.columns.engine, self.marginal_s
        lone, full = self.lone.pipelined_s(self.chunks), self.full.pipelined_s(self.chunks)
        front = front_end_s(engine, batch.arch, load.isl)
        own = lone + utilisation * (full - lone)  # the busier, the fuller the pass that a prompt rides in
        queue = utilisation * marginal * layout.attn_dp * (1.0 + self.length_cv2) / (2.0 * (1.0 - utilisation))
        took = front + own + queue
        correction = self._correction(np.maximum(utilisation * took / marginal, 1.0))
        factor = correction.ttft_factor
        # TTFT's residual is of waits on one node that a busy pool does not repeat for every prompt (front end, polling,
        # launches): it moves the latency. The published pools bear that out (`autotune validate --published`)
        offered = layout.replicas * utilisation / marginal
        rate = np.minimum(offered, layout.replicas * layout.attn_dp / np.maximum(self.wire_s, 1e-12))
        latency = took * factor
        holding = rate * (own * factor + self.wire_s) / layout.replicas / layout.attn_dp
        memory = self._memory(np.maximum(holding, 1.0), outputs=np.ones(1))
        gpus = layout.replicas * layout.pp * layout.width
        busy = marginal * self.full.kernel_s / self.full.stage_s * layout.width * layout.pp
        per_rank = layout.width / layout.attn_dp
        step = self.full.step
        kv = memory.kv_bytes(np.maximum(holding, 1.0))
        columns = PoolColumns.spread(
            requests_per_s=rate,
            residence_s=latency,
            latency_s=latency,
            longest_extra_s=self.longest_extra_s * factor,
            entry_s=np.zeros(1),
            wire_s=self.wire_s,
            log_sd=correction.ttft_log_sd,
            gpus=gpus,
            stage_gpus=layout.replicas * layout.width,
            busy_s=busy,
            math_s=self.chunks * step.math_s / self.packed * per_rank,
            hbm_s=self.chunks * step.hbm_bytes / self.packed * per_rank / batch.columns.cluster.hbm_bytes_per_s,
            memory_util_frac=(memory.fixed_bytes + kv) / memory.hbm_bytes,
            kv_fits_longest=memory.kv_fits_longest,
            kv_capacity_sequences=memory.sequences_per_rank * layout.attn_dp,
            sequences_per_rank=np.maximum(holding, 1.0),
            ranks=layout.attn_dp,
        )
        return PoolPoint(
            columns=columns,
            parts_s={"front_end": front * factor, "own_prefill": own * factor, "queue": queue * factor},
            passes=self.lone,
            passes_per_request=marginal / np.maximum(self.lone.stage_s, 1e-12) * engine.prefill_factor,
            chunks=self.chunks,
            memory=memory,
            kv_bytes=kv,
            prompt_bytes=self.prompt_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePool(Pool):
    """Replicas that take over prefilled prompts and generate."""

    start_s: Floats

    def at(self, in_flight: Floats) -> PoolPoint:
        """The pool with so many sequences over all replicas, shape `(num_plans,)`, at most what its memory holds."""
        batch, load, layout = self.batch, self.load, self.batch.layout
        engine = batch.columns.engine
        active = np.minimum(layout.replicas, np.maximum(in_flight, 1.0))
        wanted = np.maximum(in_flight, 1.0) / active
        memory = self._memory(wanted / layout.attn_dp, outputs=load.osl)
        held = np.maximum(np.minimum(memory.sequences_per_rank, load.max_num_seqs), 1.0) * layout.attn_dp
        running = np.minimum(wanted, held)
        slots = np.minimum(layout.pp, running)
        batch_size = np.maximum(running / (slots * layout.attn_dp), 1.0 / layout.attn_dp)
        work = decode_work(batch_size, load.isl + load.osl / 2.0, load.step_tokens)
        drafting = engine.decode_factor * (1.0 + load.draft_frac)
        step = decode_pass(batch.machine(), batch.stages, engine, work, drafting)
        round_s = np.maximum(step.through_s, slots * step.stage_s)
        correction = self._correction(running)
        factor = correction.tpot_factor
        outputs = np.maximum(load.osl - 1.0, 0.0)
        tpot = round_s * factor / load.accepted_tokens
        wait = JOIN_STEPS * round_s * factor
        residence = self.wire_s + wait + np.maximum(outputs, 1.0) * tpot
        # what has no KV room waits outside, and takes no cache
        rate = active * running / residence
        rate = np.minimum(rate, layout.replicas * layout.attn_dp / np.maximum(self.wire_s, 1e-12))
        steps = load.decode_rounds / np.maximum(batch_size * layout.attn_dp, 1e-9)
        gpus = layout.replicas * layout.pp * layout.width
        kv = memory.kv_bytes(running / layout.attn_dp)
        columns = PoolColumns.spread(
            requests_per_s=rate,
            residence_s=residence,
            latency_s=tpot,
            longest_extra_s=np.zeros(1),
            entry_s=self.start_s + wait,
            wire_s=self.wire_s,
            log_sd=correction.tpot_log_sd,
            gpus=gpus,
            stage_gpus=layout.replicas * layout.width,
            busy_s=steps * step.kernel_s * factor * layout.width * layout.pp,
            math_s=steps * step.step.math_s * layout.width,
            hbm_s=steps * step.step.hbm_bytes * layout.width / batch.columns.cluster.hbm_bytes_per_s,
            memory_util_frac=(memory.fixed_bytes + kv) / memory.hbm_bytes,
            kv_fits_longest=memory.kv_fits_longest,
            kv_capacity_sequences=memory.sequences_per_rank * layout.attn_dp,
            sequences_per_rank=wanted / layout.attn_dp,
            ranks=layout.attn_dp,
        )
        return PoolPoint(
            columns=columns,
            parts_s={"running_step": wait},
            passes=step,
            passes_per_request=steps * drafting,
            chunks=np.ones(1),
            memory=memory,
            kv_bytes=kv,
            prompt_bytes=self.prompt_bytes,
        )


def prefill_pool(
    batch: PlanBatch,
    load: Load,
    link: TransferLink,
    *,
    longest_prompt: Floats,
    memory_fraction: Floats,
    length_cv2: float = 0.0,
) -> PrefillPool:
    """Plans as prefill pools. Of `load`, concurrency is not read. Arguments as `PlanBatch.evaluate`'s."""
    machine, engine = batch.machine(), batch.columns.engine
    new = np.maximum(load.isl * (1.0 - load.prefix_hit_frac), 1.0)
    cached, chunks = load.isl - new, np.ceil(new / load.batched_tokens)
    packed = np.maximum(np.floor(load.batched_tokens * chunks / new), 1.0)

    def passed(prompts: Floats, ranks: Floats) -> Pass:
        work = prompt_work(
            prompts=prompts,
            tokens=new,
            cached=cached,
            chunks=chunks,
            ranks=ranks,
        )
        return prefill_pass(machine, batch.stages, engine, work)

    lone = passed(np.ones(1), np.ones(1))
    own = lone.pipelined_s(chunks)
    return PrefillPool(
        batch=batch,
        load=load,
        link=link,
        prompt_bytes=(held := _prompt_bytes(batch, load)),
        wire_s=wire_s(batch.columns.links, link, held),
        longest_prompt=longest_prompt,
        memory_fraction=memory_fraction,
        length_cv2=length_cv2,
        lone=lone,
        full=passed(packed, batch.layout.attn_dp),
        chunks=chunks,
        packed=packed,
        longest_extra_s=longest_extra_s(machine, batch.stages, engine, load, longest_prompt, own),
    )


def decode_pool(
    batch: PlanBatch, load: Load, link: TransferLink, *, longest_prompt: Floats, memory_fraction: Floats
) -> DecodePool:
    """Plans as decode pools. Of `load`, concurrency is not read. Arguments as `PlanBatch.evaluate`'s."""
    return DecodePool(
        batch=batch,
        load=load,
        link=link,
        prompt_bytes=(held := _prompt_bytes(batch, load)),
        wire_s=wire_s(batch.columns.links, link, held),
        longest_prompt=longest_prompt,
        memory_fraction=memory_fraction,
        length_cv2=0.0,
        start_s=start_s(batch.columns.links, link),
    )


def _prompt_bytes(batch: PlanBatch, load: Load) -> Floats:
    return sequence_bytes_per_rank(batch.arch, batch.layout, batch.precision, batch.stages, load.isl)
