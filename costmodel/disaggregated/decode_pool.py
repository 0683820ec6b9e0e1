"""What a pool of replicas does that only decodes: disaggregated serving.

`n` sequences per replica step together and no prompt comes between, so that TPOT is the round of a decode step and, by
Little's law, X = n / ((L - 1) TPOT) requests per second end. A sequence takes a slot as soon as its cache is on its
way: X (transfer + hand-over) more are held, which take no part in steps.

Where a front sends some prompts straight to the decode pool (conditional disaggregation), some decode steps carry one.
What pools say per request is the mean over all requests.

What measured pools say about these formulas stands in `costmodel.disaggregated.pool_calibration`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.disaggregated.decode_steps import (
    LEAST_ROUNDS,
    DecodeSteps,
    LocalPrompts,
    steps_of_decoding,
    steps_with_prompts,
)
from costmodel.disaggregated.kv_transfer import TransferLink, start_s, wire_s
from costmodel.disaggregated.pool import Pool, prompt_bytes
from costmodel.disaggregated.pool_calibration import PoolCalibration, PoolFactors
from costmodel.disaggregated.pool_point import PoolColumns, PoolPoint
from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats
from costmodel.serving.load import Load
from costmodel.step.memory import Memory
from costmodel.step.pipeline_pass import Pass, step_pass
from costmodel.step.step_work import decode_work

LEAST_DECODING = 1e-3
"""Least number of sequences that decode in a pool that is considered: one, a thousandth of the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePool(Pool):
    """Replicas that take over prefilled prompts and generate."""

    start_s: Floats
    local: LocalPrompts | None
    """Prompts that are prefilled here, of the requests whose cache does not travel; None: all caches travel."""

    def slots(self, in_flight: Floats) -> Floats:
        """Sequences that all replicas run at once, at most, with so many requests in flight."""
        layout = self.batch.layout
        memory = self._memory(np.maximum(in_flight / layout.replicas, 1.0) / layout.attn_dp, outputs=self.load.osl)
        return self._held(memory) * layout.replicas

    def _held(self, memory: Memory) -> Floats:
        """Sequences that a replica's limit and its KV room admit, at least one per rank."""
        return (
            np.maximum(np.minimum(memory.sequences_per_rank, self.load.max_num_seqs), 1.0) * self.batch.layout.attn_dp
        )

    def _steps(self, alone: Pass, slots: Floats, running: Floats, factor: Floats, *, idle: Floats) -> DecodeSteps:
        """Steps; `idle`: seconds of a replica for each in which it decodes."""
        if self.local is None:
            return steps_of_decoding(self.load, alone, slots)
        # where a replica decodes now and then, the prompts of others seldom meet what it decodes
        rounds, prefill = self.load.decode_rounds * idle, self.factors.prefill
        return steps_with_prompts(self.batch, self.load, running, rounds, self.local, prefill=prefill, decode=factor)

    def handover_s(self, tpot_s: Floats) -> Floats:
        """From the end of a transfer to the first token: as many decode steps as measured pools take."""
        return self.factors.handover_steps * tpot_s * self.load.accepted_tokens

    def at(self, decoding: Floats) -> PoolPoint:
        """The pool with so many sequences decoding over all replicas, shape `(num_plans,)`, at most what memory holds.

        Those whose cache or first token is on its way are held beside them (`PoolColumns.sequences_per_rank`).
        """
        batch, load, layout = self.batch, self.load, self.batch.layout
        decoding = np.maximum(decoding, LEAST_DECODING)
        wanted = np.maximum(decoding, 1.0) / np.minimum(layout.replicas, np.maximum(decoding, 1.0))
        memory = self._memory(wanted / layout.attn_dp, outputs=load.osl)
        running = np.minimum(wanted, self._held(memory))
        slots = np.minimum(layout.pp, running)
        batch_size = np.maximum(running / (slots * layout.attn_dp), 1.0 / layout.attn_dp)
        work = decode_work(batch_size, load.isl + load.osl / 2.0, load.step_tokens)
        step = step_pass(batch.machine, batch.stages, batch.columns.engine, work)
        factor = self.factors.decode(batch, running / layout.attn_dp)
        outputs = np.maximum(load.osl - 1.0, 1.0)
        own = self._steps(step, slots, running, factor, idle=layout.replicas * wanted / decoding)
        tpot = own.round_s * factor / load.accepted_tokens
        handover = self.handover_s(tpot)
        handed = self.link.handed_frac
        wire, start = handed * self.wire_s, handed * self.start_s
        # whoever brings a prompt waits for half of the step that runs, and then for the one that it joins
        local, waits = ((1.0 - handed) * seconds * factor for seconds in (own.local_s, own.running_step_s))
        longest = self.start_s if self.link.longest_handed else (own.running_step_s + own.longest_s) * factor
        entry, decode_s = start + handover + local + waits, outputs * tpot
        residence = wire + entry + decode_s
        held = residence / decode_s
        # what has no KV room waits outside, and takes no cache
        rate = np.minimum(decoding * running / wanted / decode_s, self.links_per_s)
        rounds = load.decode_rounds if self.local is None else np.maximum(load.decode_rounds, LEAST_ROUNDS)
        steps = rounds / np.maximum(batch_size * layout.attn_dp, 1e-9)
        gpus = layout.replicas * layout.pp * layout.width
        kv = memory.kv_bytes(np.minimum(held * wanted, self._held(memory)) / layout.attn_dp)
        columns = PoolColumns.spread(
            requests_per_s=rate,
            able_per_s=rate,
            residence_s=residence,
            latency_s=tpot,
            longest_extra_s=longest - start - local - waits,
            entry_s=entry,
            slot_wait_s=np.zeros(1),
            wire_s=wire,
            log_sd=self.factors.tpot_log_sd,
            rate_log_sd=self.factors.throughput_log_sd,
            gpus=gpus,
            stage_gpus=layout.replicas * layout.width,
            busy_s=steps * own.kernel_s * factor * layout.width * layout.pp,
            math_s=steps * own.math_s * layout.width,
            hbm_s=steps * own.hbm_bytes * layout.width / batch.columns.cluster.hbm_bytes_per_s,
            memory_util_frac=(memory.fixed_bytes + kv) / memory.hbm_bytes,
            kv_fits_longest=memory.kv_fits_longest,
            kv_capacity_sequences=memory.sequences_per_rank * layout.attn_dp,
            sequences_per_rank=held * wanted / layout.attn_dp,
            ranks=layout.attn_dp,
        )
        return PoolPoint(
            columns=columns,
            parts_s={"own_prefill": local, "running_step": waits},
            passes=step,
            group_s=own.group_s,
            passes_per_request=steps * (1.0 + load.draft_frac),
            chunks=np.ones(1),
            memory=memory,
            kv_bytes=kv,
            prompt_bytes=self.prompt_bytes,
        )


def decode_pool(  # noqa: PLR0913  # what a pool is asked
    batch: PlanBatch,
    load: Load,
    link: TransferLink,
    *,
    longest_prompt: Floats,
    memory_fraction: Floats,
    local: LocalPrompts | None = None,
    calibration: PoolCalibration | None = None,
) -> DecodePool:
    """Plans as decode pools, which prefill the prompts of `local`. Other arguments as `prefill_pool`'s."""
    return DecodePool(
        batch=batch,
        load=load,
        link=link,
        prompt_bytes=(held := prompt_bytes(batch, load, link)),
        wire_s=wire_s(batch.columns.links, link, held),
        longest_prompt=longest_prompt,
        memory_fraction=memory_fraction,
        factors=PoolFactors.of(batch, calibration),
        length_cv2=0.0,
        start_s=start_s(batch.columns.links, link),
        local=local,
    )
