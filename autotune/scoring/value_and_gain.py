"""What a plan is worth per second, and what a change of plan brings over a horizon: the only source of both."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from autotune.metrics import GOODPUT
from autotune.scoring.limits import hard_limit
from autotune.scoring.objective import plan_figure
from autotune.scoring.plan_result import PlanResult
from autotune.study import Study, opens_clusters
from costmodel.plan.columns import Floats

NEVER_S = 10 * 365 * 86400.0
"""What pays for itself no sooner does not: no plan is run for ten years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What a change brings, in the unit of the values times seconds."""

    per_s: float
    """By how much more the candidate does per second, once it runs."""
    net: float
    """Over the horizon, the cost of the change taken off."""
    reference: float
    """What the current plan does in the horizon."""
    payback_s: float | None
    """From the start of the change until the gain has paid for it; None: not within `NEVER_S`."""

    @property
    def net_frac(self) -> float | None:
        """`net` over `reference`; None where the current plan does nothing."""
        return self.net / self.reference if self.reference > 0.0 else None


def gain_over(
    *, current_per_s: float, candidate_per_s: float, horizon_s: float, duration_s: float, loss: float
) -> Gain:
    """Net gain of a change that takes `duration_s` and loses `loss` (values times seconds) on the way.

    The better rate counts from the end of the change: `net = (v1 - v0) (H - D) - loss`, paid back after
    `D + loss / (v1 - v0)`.
    """
    rate = candidate_per_s - current_per_s
    payback_s = duration_s + max(loss, 0.0) / rate if rate > 0.0 else inf
    return Gain(
        per_s=rate,
        net=rate * max(horizon_s - duration_s, 0.0) - loss,
        reference=current_per_s * horizon_s,
        payback_s=payback_s if payback_s < NEVER_S else None,
    )


def hard_limits_kept(plan: PlanResult) -> bool:
    """Whether the plan keeps the limits that are no matter of probability: memory, room for a request, utilisation."""
    return not any(hard_limit(v.code) for v in plan.violations)


def ratio_of(value: float, reference: float) -> float:
    """Value over reference; 1 where both are equal, also at zero (no TPOT where requests have one output token)."""
    return 1.0 if value == reference else value / reference


def gpus_ratio(study: Study, plan: PlanResult, reference: PlanResult) -> float:
    """What a request that a plan serves counts against one of the reference's: the more, the fewer GPUs serve it.

    1 where the study's metric is not per GPU, or the GPUs are there whichever plan runs.
    """
    counts = study.objective.metric.endswith("_per_gpu") and opens_clusters(study)
    return reference.metrics["gpus"] / plan.metrics["gpus"] if counts else 1.0


def value_per_s(study: Study, plan: PlanResult | None, reference: PlanResult | None) -> float:
    """Requests per second that a plan serves within the limits, weighted by the objective.

    Goodput is that itself. Of the others it is what the reference plan serves, times the plan's P(meets), times how
    much better its ranked metric is than the reference's (a latency of half is worth twice). A plan that breaks a hard
    limit is worth nothing, one that cannot take the load loses what it does not take. `reference` is the current plan;
    where that cannot be launched, the plan itself. Where an open load is to be served and no latency minimised,
    `served_within_limits` says it better.
    """
    if plan is None or not hard_limits_kept(plan):
        return 0.0
    against = plan if reference is None else reference
    metric = study.objective.metric
    if metric == GOODPUT:
        return plan_figure(plan, GOODPUT) * plan.metrics["gpus"] * plan.p_meets * gpus_ratio(study, plan, against)
    own, other = plan.metrics[metric], against.metrics[metric]
    ratio = ratio_of(other, own) if study.objective.direction == "minimize" else ratio_of(own, other)
    served = against.metrics["requests_per_s"]
    rate = study.workload.request_rate_per_s
    if rate is None:
        return served * plan.p_meets * ratio
    # what comes is served by either, as far as it can be taken; a minimised metric says nothing of the share
    ratio = ratio if study.objective.direction == "minimize" else gpus_ratio(study, plan, against)
    return min(plan.metrics["requests_per_s"], rate) * plan.p_meets * ratio


def served_within_limits(study: Study, capacities: Floats) -> Floats | None:
    """What plans serve of an open load within the limits, the rest turned away: requests per second, drawn.

    `min(load, capacity)` in each draw of their capacities, shape `(num_plans, draws)`: near its capacity a plan may
    turn out to take less, but what it does take is served. Under recorded traffic it is the mean over the window's
    time: the fullest minute does not last. None without an open load, or where latency is minimised.
    """
    work = study.workload
    if work.request_rate_per_s is None or study.objective.direction == "minimize":
        return None
    loads = work.rate_levels_per_s or (work.request_rate_per_s,)
    return np.asarray(sum(np.minimum(capacities, load) for load in loads) / len(loads))
