"""What a pool of replicas does that only prefills: disaggregated serving.

A worker's passes follow each other, and a pass takes all prompts that came during the one before. Its attention-DP
ranks are in lock-step: a pass is as long as its fullest rank makes it. With `a` the pass of a lone prompt, `f` that of
a full budget and `u` the share of the pool's rate that is asked for, passes settle at a / (1 - u (1 - a/f)). A prompt
waits for the half of a running pass with probability `u`, then for its own; and close to saturation, where passes are
full, for prompts before it, as in a queue of service time `S` per prompt: u^4 S (1 + cv^2) / (2 (1 - u)) (Pollaczek and
Khinchine, with `cv` the coefficient of variation of prompt lengths; u^3 stands for how often passes are full). Engines
are handed tokens: their own front end is no part of it, and what that before the pools takes is part of the measured
hand-over.

Where a front sends some prompts straight to the decode pool (conditional disaggregation), the prefill pool serves the
others alone. What pools say per request is the mean over all requests.

What measured pools say about these formulas stands in `costmodel.disaggregated.pool_calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.disaggregated.kv_transfer import TransferLink, wire_s
from costmodel.disaggregated.pool import Pool, prompt_bytes
from costmodel.disaggregated.pool_calibration import PoolCalibration, PoolFactors
from costmodel.disaggregated.pool_point import PoolColumns, PoolPoint
from costmodel.disaggregated.prefill_pass import PassParts
from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats
from costmodel.serving.load import Load
from costmodel.serving.steady_state import longest_extra_s
from costmodel.step.pipeline_pass import Pass, step_pass
from costmodel.step.step_work import prompt_work

MOST_UTILISED = 0.999
"""Highest utilisation of a prefill pool that is asked of it: its queue grows without bound towards all of it."""
FULL_PASSES = 3.0
"""Power of the utilisation that stands for how often a pass leaves prompts behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPool(Pool):
    """Replicas that prefill prompts and hand them on."""

    lone: Pass
    full: Pass
    """A pass whose token budget is full of prompts."""
    lone_parts: PassParts
    full_parts: PassParts
    chunks: Floats
    packed: Floats
    """Prompts of a full pass, per attention rank."""
    longest_extra_s: Floats

    @property
    def full_stage_s(self) -> Floats:
        """A full pass on the slowest stage, until it can take the next one, as measured pools take for it."""
        return self.full_parts.stage_s(self.factors)

    @property
    def marginal_s(self) -> Floats:
        """What one more prompt takes of a replica whose passes are full."""
        # unlike where prompts interrupt decoding, every attention-DP rank has prompts of its own in a full pass
        return self.chunks * self.full_stage_s / self.packed / self.batch.layout.attn_dp

    @property
    def most_per_s(self) -> Floats:
        """Requests per second of all replicas with every pass full, those that the pool never sees included."""
        return self.batch.layout.replicas / self.marginal_s / self.link.handed_frac

    @property
    def able_per_s(self) -> Floats:
        """The most requests per second, however long they wait: by the passes of the pool, and by its links."""
        return np.minimum(self.most_per_s, self.links_per_s)

    def latency_s(self, utilisation: Floats) -> Floats:
        """From the arrival of a prompt to the end of its prefill."""
        own, queue = self.waits_s(utilisation)
        return own + queue

    def waits_s(self, utilisation: Floats) -> tuple[Floats, Floats]:
        """Own pass and queue of a prompt."""
        marginal, layout = self.marginal_s, self.batch.layout
        full = self.full_parts.pipelined_s(self.factors, self.chunks)
        lone = np.minimum(self.lone_parts.pipelined_s(self.factors, self.chunks), full)
        own = lone / (1.0 - utilisation * (1.0 - lone / full))
        behind = utilisation ** (FULL_PASSES + 1.0) * marginal * layout.attn_dp * (1.0 + self.length_cv2)
        queue = utilisation * own / 2.0 + behind / (2.0 * (1.0 - utilisation))
        return own, queue

    def at(self, utilisation: Floats) -> PoolPoint:
        """The pool at a share, shape `(num_plans,)` and below 1, of the rate that it could just sustain."""
        batch, layout, marginal = self.batch, self.batch.layout, self.marginal_s
        own, queue = self.waits_s(utilisation)
        handed = self.link.handed_frac
        latency, wire = handed * (own + queue), handed * self.wire_s
        rate = np.minimum(utilisation * self.most_per_s, self.links_per_s)
        holding = rate * (handed * own + wire) / layout.replicas / layout.attn_dp
        memory = self._memory(np.maximum(holding, 1.0), outputs=np.ones(1))
        gpus = layout.replicas * layout.pp * layout.width
        busy = handed * marginal * self.full.kernel_s / self.full.stage_s * layout.width * layout.pp
        per_rank = layout.width / layout.attn_dp
        step = self.full.step
        kv = memory.kv_bytes(np.maximum(holding, 1.0))
        columns = PoolColumns.spread(
            requests_per_s=rate,
            able_per_s=self.able_per_s,
            residence_s=latency,
            latency_s=latency,
            longest_extra_s=(self.longest_extra_s + own + queue if self.link.longest_handed else 0.0) - latency,
            entry_s=np.zeros(1),
            slot_wait_s=np.zeros(1),
            wire_s=wire,
            log_sd=self.factors.ttft_log_sd,
            rate_log_sd=self.factors.throughput_log_sd,
            gpus=gpus,
            stage_gpus=layout.replicas * layout.width,
            busy_s=busy,
            math_s=handed * self.chunks * step.math_s / self.packed * per_rank,
            hbm_s=handed
            * self.chunks
            * step.hbm_bytes
            / self.packed
            * per_rank
            / batch.columns.cluster.hbm_bytes_per_s,
            memory_util_frac=(memory.fixed_bytes + kv) / memory.hbm_bytes,
            kv_fits_longest=memory.kv_fits_longest,
            kv_capacity_sequences=memory.sequences_per_rank * layout.attn_dp,
            sequences_per_rank=np.maximum(holding, 1.0),
            ranks=layout.attn_dp,
        )
        return PoolPoint(
            columns=columns,
            parts_s={"own_prefill": handed * own, "queue": handed * queue},
            passes=self.lone,
            group_s=self.lone.step.group_s,
            passes_per_request=handed * marginal / np.maximum(self.lone.stage_s, 1e-12),
            chunks=self.chunks,
            memory=memory,
            kv_bytes=kv,
            prompt_bytes=self.prompt_bytes,
        )


def prefill_pool(  # noqa: PLR0913  # what a pool is asked
    batch: PlanBatch,
    load: Load,
    link: TransferLink,
    *,
    longest_prompt: Floats,
    memory_fraction: Floats,
    length_cv2: float = 0.0,
    calibration: PoolCalibration | None = None,
) -> PrefillPool:
    """Plans as prefill pools. Of `load`, concurrency is not read. Arguments as `PlanBatch.evaluate`'s.

    `calibration` stands in for the shipped one.
    """
    machine, engine = batch.machine, batch.columns.engine
    new = np.maximum(load.isl * (1.0 - load.prefix_hit_frac), 1.0)
    cached, chunks = load.isl - new, np.ceil(new / load.batched_tokens)
    packed = np.maximum(np.minimum(np.floor(load.batched_tokens * chunks / new), load.max_num_seqs), 1.0)

    def passed(prompts: Floats, ranks: Floats) -> Pass:
        work = prompt_work(
            prompts=prompts,
            tokens=new,
            cached=cached,
            chunks=chunks,
            ranks=ranks,
        )
        return step_pass(machine, batch.stages, engine, work)

    lone = passed(np.ones(1), np.ones(1))
    full = passed(packed, batch.layout.attn_dp)
    own = lone.pipelined_s(chunks)
    return PrefillPool(
        batch=batch,
        load=load,
        link=link,
        prompt_bytes=(held := prompt_bytes(batch, load, link)),
        wire_s=wire_s(batch.columns.links, link, held),
        longest_prompt=longest_prompt,
        memory_fraction=memory_fraction,
        factors=PoolFactors.of(batch, calibration),
        length_cv2=length_cv2,
        lone=lone,
        full=full,
        lone_parts=PassParts.of(batch, lone),
        full_parts=PassParts.of(batch, full),
        chunks=chunks,
        packed=packed,
        longest_extra_s=longest_extra_s(machine, batch.stages, engine, load, longest_prompt, own),
    )
