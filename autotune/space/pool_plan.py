"""The two pools of a disaggregated plan as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from costmodel.plan.layout import Layout

ROLES = ("prefill", "decode")
ALIKE_FRAC = 1e-3
"""By which share the rates of two pools may differ that count as alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """One pool: its GPUs, its layout, its knobs and what it does at the limit of what it admits."""

    gpu: str
    """GPU type."""
    gpus: int
    layout: Layout
    max_num_batched_tokens: int
    """Token budget of a step, per attention-DP rank."""
    max_num_seqs: int
    """Sequences that its servers are started for, per attention-DP rank: of a decode pool its slots."""
    in_flight: float
    """Requests in the pool at the plan's rate."""
    requests_per_s: float
    """What the pool does at its load in the plan; the lesser of both is the plan's rate."""
    in_time_per_s: float
    """Requests per second that it can do within the limits on its own latency, whatever comes."""
    gpu_util_frac: float
    """Share of time in which the pool's busiest stage runs kernels, at the plan's rate."""
    memory_util_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """A disaggregated plan's two sides."""

    prefill: PoolPlan
    decode: PoolPlan
    slower: str
    """From `slower_pool`, of what both can do within the limits."""
    kv_bytes_per_request: float
    """Cache of a prompt of mean length on one receiving rank, whole prompt."""
    transfer_s: float
    """What TTFT includes of the transfer."""
    overlap_frac: float
    """Share of the transfer that was taken as hidden behind the prompt's prefill."""
    max_local_prefill_tokens: int = 0
    """Prompts with at most so many tokens to compute are prefilled by the decode pool."""
    local_frac: float = 0.0
    """Share of the requests whose prompts are."""

    @property
    def servers(self) -> int:
        """Replicas of both pools, which are driven together: a request takes one of each."""
        return self.prefill.layout.replicas + self.decode.layout.replicas


def slower_pool(prefill_per_s: float, decode_per_s: float) -> str:
    """The role of the pool that can do less, of two that are alike the prefill pool's."""
    return ROLES[0] if prefill_per_s <= decode_per_s * (1.0 + ALIKE_FRAC) else ROLES[1]


def pools_from(document: Mapping[str, Any]) -> Pools:
    """The pools that a stored trial holds."""
    rest = {name: value for name, value in document.items() if name not in ROLES}
    return Pools(prefill=_pool_from(document["prefill"]), decode=_pool_from(document["decode"]), **rest)


def _pool_from(document: Mapping[str, Any]) -> PoolPlan:
    given = dict(document)
    layout = dict(given.pop("layout"))
    return PoolPlan(layout=Layout(**{**layout, "stage_layers": tuple(layout["stage_layers"])}), **given)
