"""Limits on percentiles, kept by the search exactly: plans are simulated in the order of what they can at best reach.

A simulation can only lower what a plan stands for: it may break a limit on percentiles, and the probability to keep
them multiplies what can be expected of it. So the place of a plan by means is a bound, and once so many plans as are
wanted stand above the bound of the next one, no plan that is left can be among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autotune.scoring.limits import JOINT_PROBABILITY
from autotune.scoring.objective import ranking_value
from autotune.scoring.plan_result import PlanResult, Violation, relative_excess
from autotune.simulation import PercentileLimit, Traffic, percentile_limits, simulate_plan, study_traffic
from autotune.study import Study

WANTED = 10
"""Plans that are ranked under limits on percentiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRanking:
    """A ranking under limits on percentiles."""

    ranked: tuple[PlanResult, ...]
    """Those that keep every limit, best first: the best of all plans, as many as were wanted."""
    broken: tuple[PlanResult, ...]
    """Those that were simulated and break one."""
    simulated: int
    left: int
    """Plans that were not simulated, as what they reach at best is less than what the last of `ranked` does."""


def simulate_ranking(
    study: Study,
    ranked: Sequence[PlanResult],
    *,
    wanted: int = WANTED,
    progress: Callable[[int, int], None] | None = None,
) -> SimulatedRanking:
    """The best `wanted` of plans that keep the limits on means, best first, under the limits on percentiles too."""
    limits, traffic = percentile_limits(study), study_traffic(study)
    kept: list[PlanResult] = []
    broken: list[PlanResult] = []
    for number, plan in enumerate(ranked):
        if len(kept) >= wanted and _order(study, kept[wanted - 1]) <= _order(study, plan):
            break
        if progress is not None:
            progress(number, len(ranked))
        checked = with_percentiles(study, plan, limits, traffic)
        (kept if checked.feasible else broken).append(checked)
        kept.sort(key=lambda p: (_order(study, p), p.plan))
    done = len(kept) + len(broken)
    return SimulatedRanking(ranked=tuple(kept[:wanted]), broken=tuple(broken), simulated=done, left=len(ranked) - done)


def with_percentiles(study: Study, plan: PlanResult, limits: Sequence[PercentileLimit], traffic: Traffic) -> PlanResult:
    """The plan held against limits on percentiles too: its figures, what it breaks, and how probably it keeps all."""
    simulation = simulate_plan(study, plan, traffic)
    figures = {limit.code: limit.figure(simulation.forecast) for limit in limits}
    p_kept, violations = plan.p_meets, list(plan.violations)
    for limit in limits:
        p_kept *= limit.p_kept(figures[limit.code])
        found = limit.violation(figures[limit.code])
        violations += [] if found is None else [found]
    least = study.search.min_p_meets
    if not violations and p_kept < least:
        excess = least - p_kept
        violations.append(
            Violation(code=JOINT_PROBABILITY, value=p_kept, limit=least, excess=excess, unit="probability")
        )
    margins = {
        limit.code: (figures[limit.code].value - limit.bound) * limit.factor * (1.0 if limit.latency else -1.0)
        for limit in limits
    }
    shown = {
        limit.code: {
            "value": figures[limit.code].value * limit.factor,
            "likely_low": figures[limit.code].low * limit.factor,
            "likely_high": figures[limit.code].high * limit.factor,
        }
        for limit in limits
    }
    return replace(
        plan,
        feasible=not violations,
        violations=tuple(sorted(violations, key=lambda v: (v.code == JOINT_PROBABILITY, -relative_excess(v), v.code))),
        margins={**plan.margins, **margins},
        p_meets=p_kept,
        breakdown={**plan.breakdown, "simulated": shown},
    )


def _order(study: Study, plan: PlanResult) -> float:
    value = ranking_value(study, plan)
    return value if study.objective.direction == "minimize" else -value
