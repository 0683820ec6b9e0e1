"""One scored plan as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotune.scoring.knob_grid import Variant
from autotune.scoring.limits import Limit
from autotune.scoring.objective import usd_per_million
from autotune.space import Candidate, format_plan
from autotune.space.pool_plan import Pools
from costmodel.estimate.result import MEMORY_KINDS, RESOURCES, TTFT_PARTS, Estimate
from costmodel.plan.columns import Floats
from costmodel.plan.layout import Layout
from costmodel.step.operators import GROUPS

METRICS = (
    "ttft_s",
    "tpot_s",
    "total_tokens_per_s",
    "output_tokens_per_s",
    "total_tokens_per_s_per_gpu",
    "output_tokens_per_s_per_gpu",
    "requests_per_s",
    "memory_util_frac",
    "gpu_util_frac",
    "ttft_longest_s",
    "stage_tokens_per_s_per_gpu",
    "compute_util_frac",
    "bandwidth_util_frac",
    "kv_capacity_sequences",
    "ttft_log_sd",
    "tpot_log_sd",
    "throughput_log_sd",
    "gpus",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What is set at launch besides the layout."""

    concurrency: int
    """Requests in flight over all replicas."""
    max_num_batched_tokens: int
    """Token budget of a step, per attention-DP rank."""
    max_num_seqs: int
    """Sequences that run at once, per attention-DP rank, at this concurrency."""
    weight_dtype: str | None
    kv_dtype: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A constraint that a plan breaks."""

    code: str
    value: float
    limit: float
    excess: float
    unit: str


VARIANT = "|"
"""What begins the part of a key that tells results of one plan apart; no plan string has it."""
DERIVED = "min_p_meets"
"""The limit that follows from the others: it binds only where each of them is kept."""


def relative_excess(violation: Violation) -> float:
    """Excess over the limit's size."""
    return violation.excess / max(abs(violation.limit), 1e-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """A plan, its knobs and what it costs."""

    plan: str
    engine: str
    layout: Layout
    knobs: Knobs
    feasible: bool
    violations: tuple[Violation, ...]
    """Worst first, relative to the limit."""
    margins: Mapping[str, float]
    """Constraint -> excess in its unit; negative is room left."""
    metrics: Mapping[str, float]
    p_meets: float
    """Probability of keeping every limit on latency and throughput, given how sure the estimate is."""
    breakdown: Mapping[str, Any]
    gpu: str | None = None
    """GPU type, where it is not the cluster's own."""
    variant: str = ""
    """What tells results of one plan with several knobs apart (`autotune.tuning.pareto_front`)."""
    pools: Pools | None = None
    """The two sides of a disaggregated plan, whose `layout` and `knobs.max_num_seqs` are the decode pool's and whose
    `knobs.max_num_batched_tokens` is the prefill pool's. None: one kind of replica does both."""

    @property
    def key(self) -> str:
        """Identity within a study: engine and full plan string, and the knobs where several are kept."""
        return self.plan + self.variant


def plan_key(candidate: Candidate) -> str:
    """Full plan string, engine included."""
    return format_plan(candidate.layout, candidate.engine, candidate.gpu)


def broken_limits(limits: tuple[Limit, ...], excess: Floats, values: Floats) -> tuple[Violation, ...]:
    """What one plan breaks, worst first. `excess` and `values`: shape `(len(limits),)`.

    Weights beyond the memory leave no room, said as 0; the excess keeps how far beyond, for the order of plans.
    """
    broken = [
        Violation(code=x.code, value=max(float(values[i]), 0.0), limit=x.limit, excess=float(excess[i]), unit=x.unit)
        for i, x in enumerate(limits)
        if excess[i] > 0.0
    ]
    return tuple(sorted(broken, key=lambda v: (v.code == DERIVED, -relative_excess(v), v.code)))


def plan_result(
    variant: Variant,
    row: int,
    *,
    concurrency: float,
    batched_tokens: float,
    estimate: Estimate,
    limits: tuple[Limit, ...],
    excess: Floats,
    values: Floats,
    p_meets: Floats,
    price_per_hour: float | None,
) -> PlanResult:
    """The plan of one row. `excess` and `values`: shape `(len(limits), num_rows)`; the price is of all its GPUs."""
    layout = variant.candidate.layout
    broken = broken_limits(limits, excess[:, row], values[:, row])
    per_rank = concurrency / min(layout.replicas, concurrency) / layout.attn_dp
    return PlanResult(
        plan=plan_key(variant.candidate),
        engine=variant.candidate.engine,
        layout=layout,
        knobs=Knobs(
            concurrency=round(concurrency),
            max_num_batched_tokens=round(batched_tokens),
            max_num_seqs=int(np.ceil(per_rank)),
            weight_dtype=variant.weight_dtype,
            kv_dtype=variant.kv_dtype,
        ),
        feasible=not broken,
        violations=broken,
        margins={limit.code: float(excess[i, row]) for i, limit in enumerate(limits)},
        metrics=plan_metrics(estimate, row, price_per_hour),
        p_meets=float(p_meets[row]),
        breakdown=plan_breakdown(estimate, row),
        gpu=variant.candidate.gpu,
    )


def plan_metrics(estimate: Estimate, row: int, price_per_hour: float | None) -> dict[str, float]:
    """Every figure of one row; those in US dollars where the price of all its GPUs is known."""
    out = {name: float(getattr(estimate, name)[row]) for name in METRICS}
    if price_per_hour is not None:
        out["usd_per_million_tokens"] = usd_per_million(price_per_hour, out["total_tokens_per_s"])
        out["usd_per_million_output_tokens"] = usd_per_million(price_per_hour, out["output_tokens_per_s"])
    return out


def plan_breakdown(estimate: Estimate, row: int) -> dict[str, Any]:
    """Where the time and the memory of one row go."""

    def named(names: tuple[str, ...], table: Floats) -> dict[str, float]:
        return {n: float(x) for n, x in zip(names, table[:, row], strict=True) if x}

    return {
        "bottleneck": GROUPS[int(estimate.bottleneck[row])],
        "binding_resource": RESOURCES[int(estimate.binding[row])],
        "prefill_s": named(GROUPS, estimate.prefill_s),
        "decode_s": named(GROUPS, estimate.decode_s),
        "prefill_passes_per_request": float(estimate.prefill_passes_per_request[row]),
        "decode_passes_per_request": float(estimate.decode_passes_per_request[row]),
        "prefill_chunks": float(estimate.prefill_chunks[row]),
        "ttft_parts_s": named(TTFT_PARTS, estimate.ttft_parts_s),
        "memory_bytes": named(MEMORY_KINDS, estimate.memory_bytes),
    }
