"""The two pools of a disaggregated plan as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from costmodel.plan.layout import Layout

ROLES = ("prefill", "decode")


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
    """What the pool can do within the limits; the plan's rate is the slower pool's."""
    gpu_util_frac: float
    """Share of time in which the pool's busiest stage runs kernels, at the plan's rate."""
    memory_util_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """A disaggregated plan's two sides."""

    prefill: PoolPlan
    decode: PoolPlan
    slower: str
    """The pool that sets the plan's rate: one of `ROLES`."""
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


def pools_from(document: Mapping[str, Any]) -> Pools:
    """The pools that a stored trial holds."""
    rest = {name: value for name, value in document.items() if name not in ROLES}
    return Pools(prefill=_pool_from(document["prefill"]), decode=_pool_from(document["decode"]), **rest)


def _pool_from(document: Mapping[str, Any]) -> PoolPlan:
    given = dict(document)
    layout = dict(given.pop("layout"))
    return PoolPlan(layout=Layout(**{**layout, "stage_layers": tuple(layout["stage_layers"])}), **given)
