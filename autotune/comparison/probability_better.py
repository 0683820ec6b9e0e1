"""Which of two plans is better, with the errors of both drawn together."""

from __future__ import annotations

import numpy as np

from autotune.metrics import METRICS
from autotune.scoring.joint_uncertainty import Draws, Worth, estimates, joint_draws, p_greater
from autotune.scoring.limits import JOINT_PROBABILITY
from autotune.scoring.objective import plan_expected
from autotune.scoring.plan_result import relative_excess
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.plan.columns import Floats


def metric_p_better(name: str, current: PlanResult, candidate: PlanResult, draws: Draws) -> float | None:
    """Probability that the candidate's metric is better; `draws` of (current, candidate)."""
    if not METRICS[name].better:
        return None
    if current.runs_as(candidate):
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

    As rankings have it (`scoring.joint_uncertainty.Worth`). Under an open load the one that serves more of it within
    the limits is better, the rest turned away, and of two that serve as much the one whose requests take less time.

    Args:
        study: whose limits, load and objective count.
        current: the plan that runs.
        candidate: the other.
        draws: of both, in this order; None: drawn here.
        served: of both, for an open load (`worth.served_within_limits`), from the same draws.
    """
    if current.runs_as(candidate):
        return 0.5
    plans = (current, candidate)
    worth = Worth.of(study, plans, joint_draws(study, plans) if draws is None else draws)
    if served is None:
        return worth.p_better(1, 0)
    first, second = np.where(served[0] == served[1], worth.ranked, served)
    return p_greater(second, first)


def wins(study: Study, current: PlanResult, candidate: PlanResult) -> bool:
    """Whether the candidate ranks before the current plan: limits first, then what can be expected of the metric."""
    if candidate.feasible != current.feasible:
        return candidate.feasible
    if not candidate.feasible:
        return _worst(candidate) < _worst(current)
    sign = 1.0 if study.objective.direction == "minimize" else -1.0
    return sign * plan_expected(study, candidate) < sign * plan_expected(study, current)


def _worst(plan: PlanResult) -> float:
    return next((relative_excess(v) for v in plan.violations if v.code != JOINT_PROBABILITY), 0.0)
