"""The order of plans: those that keep every limit by the objective, the others by how far they are off."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isnan

from autotune.scoring.objective import ranking_value
from autotune.scoring.plan_result import PlanResult, relative_excess
from autotune.study import Study


def rank(study: Study, plans: Sequence[PlanResult]) -> tuple[tuple[PlanResult, ...], tuple[PlanResult, ...]]:
    """Feasible plans by the objective, the others by how far they are off; ties by time, then the plan string."""
    feasible = [p for p in plans if p.feasible]
    others = [p for p in plans if not p.feasible]
    feasible.sort(key=lambda p: (order(study, p), p.plan))
    others.sort(key=lambda p: (_distance(p), _took_s(p), p.plan))
    return tuple(feasible), tuple(others)


def order(study: Study, plan: PlanResult) -> float:
    """What sorts plans: lower is better."""
    value = ranking_value(study, plan)
    return value if study.objective.direction == "minimize" else -value


def _took_s(plan: PlanResult) -> float:
    took = plan.metrics["e2e_s"]
    return inf if isnan(took) else took


def _distance(plan: PlanResult) -> float:
    return relative_excess(plan.violations[0]) if plan.violations else inf
