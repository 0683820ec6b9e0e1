"""Which of two plans is better, with the errors of both drawn together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autotune.comparison.value_and_gain import hard_limits_kept
from autotune.scoring.joint_uncertainty import Draws, joint_draws
from autotune.scoring.objective import COST, FEWEST_GPUS, plan_expected
from autotune.scoring.plan_result import DERIVED, relative_excess
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.plan.columns import Floats

THROUGHPUTS = (
    "total_tokens_per_s_per_gpu",
    "output_tokens_per_s_per_gpu",
    "total_tokens_per_s",
    "output_tokens_per_s",
    "requests_per_s",
    "stage_tokens_per_s_per_gpu",
)
LATENCIES = ("ttft_s", "ttft_longest_s", "tpot_s")


def drawn_metric(name: str, plans: Sequence[PlanResult], draws: Draws) -> Floats | None:
    """Draws of one metric, shape `(len(plans), draws)`; None where the model has no error for it."""
    if name in LATENCIES:
        return np.asarray(getattr(draws, name))
    if name in THROUGHPUTS:
        return np.array([p.metrics[name] for p in plans])[:, None] * draws.throughput_factor
    if name == COST:
        return np.array([p.metrics[name] for p in plans])[:, None] / draws.throughput_factor
    if name == FEWEST_GPUS:
        return np.array([p.metrics[name] for p in plans])[:, None] * np.ones_like(draws.throughput_factor)
    return None


def p_greater(first: Floats, second: Floats) -> float:
    """P(first > second) over draws; a tie counts half."""
    return float((first > second).mean() + 0.5 * (first == second).mean())


def metric_p_better(name: str, current: PlanResult, candidate: PlanResult, draws: Draws) -> float | None:
    """Probability that the candidate's metric is better; `draws` of (current, candidate)."""
    drawn = drawn_metric(name, (current, candidate), draws)
    if drawn is None:
        return None
    if _identical(current, candidate):
        return 0.5
    return p_greater(drawn[0], drawn[1]) if name in (*LATENCIES, COST, FEWEST_GPUS) else p_greater(drawn[1], drawn[0])


def p_better(
    study: Study,
    current: PlanResult,
    candidate: PlanResult,
    draws: Draws | None = None,
    *,
    served: Floats | None = None,
) -> float:
    """Probability that the candidate is better: keeping the limits first, the ranked metric second.

    In each draw of the errors a plan that breaks a limit is worth less than any that keeps them all. Where the number
    in flight is free and both plans keep the limits at their own, the metric alone decides, as in rankings: a plan that
    turns out slower than estimated is run with fewer in flight. Under an open load the one that serves more of it
    within the limits is better, the rest turned away, and of two that serve as much the one whose requests take less
    time. Elsewhere two that break limits count half.

    Args:
        study: whose limits, load and objective count.
        current: the plan that runs.
        candidate: the other.
        draws: of both, in this order; None: drawn here.
        served: of both, for an open load (`worth.served_within_limits`), from the same draws.
    """
    if _identical(current, candidate):
        return 0.5
    plans = (current, candidate)
    drawn = joint_draws(study, plans) if draws is None else draws
    work = study.workload
    if work.concurrency is None and work.request_rate_per_s is None and current.feasible and candidate.feasible:
        values = _ranked(study, plans, drawn)
        return p_greater(values[1], values[0])
    worth = _ranked(study, plans, drawn)
    if served is None:
        worth = np.where(_kept(study, plans, drawn), worth, -np.inf)
    else:
        worth = np.where(served[0] == served[1], worth, served)
    return p_greater(worth[1], worth[0])


def _ranked(study: Study, plans: Sequence[PlanResult], drawn: Draws) -> Floats:
    metric = study.objective.metric
    values = drawn_metric(metric, plans, drawn)
    if values is None:
        raise ValueError(f"every objective has an error to draw, got {metric=}")
    if study.objective.direction == "minimize":
        return -values
    if study.workload.request_rate_per_s is not None:
        return -(drawn.ttft_s + max(study.workload.osl.mean - 1.0, 0.0) * drawn.tpot_s)
    return values


def _kept(study: Study, plans: Sequence[PlanResult], drawn: Draws) -> NDArray[np.bool_]:
    """Whether every limit is kept, shape `(len(plans), draws)`."""
    c = study.constraints
    kept = np.repeat(np.array([[hard_limits_kept(p)] for p in plans]), drawn.tpot_s.shape[1], axis=1)
    if c.ttft_s is not None:
        kept &= drawn.ttft_longest_s <= c.ttft_s
    if c.tpot_s is not None:
        kept &= drawn.tpot_s <= c.tpot_s
    for name, least in (
        ("total_tokens_per_s_per_gpu", c.min_total_tokens_per_s_per_gpu),
        ("output_tokens_per_s_per_gpu", c.min_output_tokens_per_s_per_gpu),
        ("stage_tokens_per_s_per_gpu", c.min_stage_tokens_per_s_per_gpu),
    ):
        if least is not None:
            kept &= np.array([p.metrics[name] for p in plans])[:, None] * drawn.throughput_factor >= least
    for i, plan in enumerate(plans):
        if any(v.code == "request_rate_per_s" for v in plan.violations):
            kept[i] = False
    return kept


def wins(study: Study, current: PlanResult, candidate: PlanResult) -> bool:
    """Whether the candidate ranks before the current plan: limits first, then what can be expected of the metric."""
    if candidate.feasible != current.feasible:
        return candidate.feasible
    if not candidate.feasible:
        return _worst(candidate) < _worst(current)
    sign = 1.0 if study.objective.direction == "minimize" else -1.0
    return sign * plan_expected(study, candidate) < sign * plan_expected(study, current)


def _worst(plan: PlanResult) -> float:
    return max((relative_excess(v) for v in plan.violations if v.code != DERIVED), default=0.0)


def _identical(first: PlanResult, second: PlanResult) -> bool:
    return first.plan == second.plan and first.knobs == second.knobs
