"""Limits on percentiles, and goodput, kept by the search exactly: plans are simulated in the order of what they can at
best reach.

A simulation can only lower what a plan stands for: it may break a limit on percentiles, the probability to keep them
multiplies what can be expected of it, and of the requests that come not all may keep their limits. So the place of a
plan by means is a bound, and once so many plans as are wanted stand above the bound of the next one, no plan that is
left can be among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

from autotune.scoring.plan_order import order
from autotune.scoring.plan_result import PERCENTILES, PlanResult
from autotune.simulation.percentile_limits import percentile_limits
from autotune.study import Study
from autotune.tuning.knob_choices import WANTED, Choices, search_traffic
from autotune.tuning.simulated_limits import simulated_once


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRanking:
    """A ranking under limits on percentiles."""

    ranked: tuple[PlanResult, ...]
    """Those that keep every limit, best first: the best of all plans, at least as many as were wanted."""
    behind: tuple[PlanResult, ...]
    """Those that keep every limit behind the last of `ranked`, best first: plans of `left` may come before them."""
    broken: tuple[PlanResult, ...]
    """Those that were simulated and break one."""
    simulated: int
    left: tuple[PlanResult, ...]
    """Plans that were not simulated, as what they reach at best is less than what the last of `ranked` does."""
    sampled: str = ""
    """What of a long log was simulated; empty: all of it."""


def simulate_ranking(
    study: Study,
    plans: Sequence[PlanResult],
    *,
    wanted: int = WANTED,
    keep: Callable[[PlanResult], object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SimulatedRanking:
    """The best of plans that `may_keep` every limit, at least `wanted`, best first, under what is simulated too.

    A plan that was simulated before is taken as it is; `keep` is called with every other as soon as it is simulated.
    Of several choices for one plan the best stands for it.
    """
    limits, traffic = percentile_limits(study), search_traffic(study, plans)
    choices = Choices.of(study, plans, traffic)
    kept: list[PlanResult] = []
    broken: list[PlanResult] = []
    left: list[PlanResult] = []
    for number, (first, *others) in enumerate(choices.of_plans):
        known = PERCENTILES in first.breakdown
        if not known and len(kept) >= wanted and order(study, kept[wanted - 1]) <= choices.at_best[first.key]:
            left.append(first)
            continue
        if progress is not None:
            progress(number, len(choices.of_plans))
        checked = first
        if not known:
            checked = choices.best((first, *others), limits, simulated_once())
            if keep is not None:
                keep(checked)
        (kept if checked.feasible else broken).append(checked)
        kept.sort(key=lambda p: (order(study, p), p.plan))
    first_left = choices.at_best[left[0].key] if left else inf
    reached = sum(order(study, plan) <= first_left for plan in kept)
    return SimulatedRanking(
        ranked=tuple(kept[:reached]),
        behind=tuple(kept[reached:]),
        broken=tuple(broken),
        simulated=len(kept) + len(broken),
        left=tuple(replace(plan, variant="") for plan in left),
        sampled="" if traffic.sample is None else traffic.sample.words(),
    )
