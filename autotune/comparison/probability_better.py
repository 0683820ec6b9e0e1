"""Which of two plans is better, with the errors of both drawn together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autotune.comparison.value_and_gain import hard_limits_kept
from autotune.metrics import METRICS
from autotune.scoring.joint_uncertainty import Draws, estimates, joint_draws
from autotune.scoring.limits import JOINT_PROBABILITY, LOAD_SERVED, study_limits
from autotune.scoring.objective import plan_expected
from autotune.scoring.plan_result import relative_excess
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.plan.columns import Floats


def p_greater(first: Floats, second: Floats) -> float:
    """P(first > second) over draws; a tie counts half."""
    return float((first > second).mean() + 0.5 * (first == second).mean())


def metric_p_better(name: str, current: PlanResult, candidate: PlanResult, draws: Draws) -> float | None:
    """Probability that the candidate's metric is better; `draws` of (current, candidate)."""
    if not METRICS[name].better:
        return None
    if _identical(current, candidate):
        return 0.5
    sign, drawn = METRICS[name].sign, draws.metric(name, estimates((current, candidate))(name))
    return p_greater(sign * drawn[1], sign * drawn[0])


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
    metric = METRICS[study.objective.metric]
    if metric.sign > 0.0 and study.workload.request_rate_per_s is not None:
        return -drawn.latencies.e2e_s
    return metric.sign * drawn.metric(metric.name, estimates(plans)(metric.name))


def _kept(study: Study, plans: Sequence[PlanResult], drawn: Draws) -> NDArray[np.bool_]:
    """Whether every limit is kept, shape `(len(plans), draws)`."""
    able = np.array([[_may_keep(plan)] for plan in plans])
    return able & drawn.within(study_limits(study), estimates(plans))


def _may_keep(plan: PlanResult) -> bool:
    """Whether some errors let a plan keep every limit: it keeps those that have none, and takes the load."""
    return hard_limits_kept(plan) and all(v.code != LOAD_SERVED for v in plan.violations)


def wins(study: Study, current: PlanResult, candidate: PlanResult) -> bool:
    """Whether the candidate ranks before the current plan: limits first, then what can be expected of the metric."""
    if candidate.feasible != current.feasible:
        return candidate.feasible
    if not candidate.feasible:
        return _worst(candidate) < _worst(current)
    sign = 1.0 if study.objective.direction == "minimize" else -1.0
    return sign * plan_expected(study, candidate) < sign * plan_expected(study, current)


def _worst(plan: PlanResult) -> float:
    return max((relative_excess(v) for v in plan.violations if v.code != JOINT_PROBABILITY), default=0.0)


def _identical(first: PlanResult, second: PlanResult) -> bool:
    return first.plan == second.plan and first.knobs == second.knobs
