"""What a pool does at an operating point, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from costmodel.plan.columns import Columns, Floats
from costmodel.step.memory import Memory
from costmodel.step.pipeline_pass import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolColumns(Columns):
    """One pool at one operating point, per plan. Arrays have shape `(num_plans,)`."""

    requests_per_s: Floats
    """Of all replicas of the pool, at most what its links can carry."""
    able_per_s: Floats
    """The most of them, however long they take; of a decode pool to which no rate comes those at its point."""
    residence_s: Floats
    """Prefill: arrival to the end of the prompt's prefill. Decode: from the transfer on, as long as it holds a slot."""
    latency_s: Floats
    """Prefill: as `residence_s`. Decode: time per output token."""
    longest_extra_s: Floats
    """What a request with the longest prompt takes beyond the mean one until its first token."""
    entry_s: Floats
    """Decode: start of the transfer, hand-over and the prompts that are prefilled here, which TTFT includes; 0 in a
    prefill pool."""
    slot_wait_s: Floats
    """Decode at a rate: what requests wait for a slot on average, which TTFT includes; else 0."""
    wire_s: Floats
    """Sending or receiving a prompt's cache."""
    log_sd: Floats
    """Standard deviation of log(measured / estimate) of the latency."""
    rate_log_sd: Floats
    """The same of the rate."""
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

    @classmethod
    def joined(cls, parts: Sequence[PoolColumns]) -> PoolColumns:
        """Pools one after the other."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def times(self, copies: Floats) -> PoolColumns:
        """The same pools with so many times the replicas, shape `(num_plans,)`: each works as it did alone."""
        return replace(
            self,
            requests_per_s=self.requests_per_s * copies,
            able_per_s=self.able_per_s * copies,
            gpus=self.gpus * copies,
            stage_gpus=self.stage_gpus * copies,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPoint:
    """One pool at one operating point, with what it is made of."""

    columns: PoolColumns
    parts_s: dict[str, Floats]
    """Parts of TTFT that the pool adds, by name of `costmodel.estimate.result.TTFT_PARTS`."""
    passes: Pass
    """Prefill: a lone prompt's. Decode: a step without prompts."""
    group_s: Mapping[str, Floats]
    """Seconds of a pass by operator group: of a decode pool's mean step."""
    passes_per_request: Floats
    """Times `passes` that one request keeps a stage's GPUs busy."""
    chunks: Floats
    memory: Memory
    kv_bytes: Floats
    """KV cache in use on the fullest GPU."""
    prompt_bytes: Floats
    """Cache of one prompt of mean length on the rank that holds most of it."""
