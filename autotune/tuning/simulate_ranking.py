"""Limits on percentiles, and goodput, kept by the search exactly: plans are simulated in the order of what they can at
best reach.

A simulation can only lower what a plan stands for: it may break a limit on percentiles, the probability to keep them
multiplies what can be expected of it, and of the requests that come not all may keep their limits. So the place of a
plan by means is a bound, and once so many plans as are wanted stand above the bound of the next one, no plan that is
left can be among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush

from autotune.scoring.plan_order import order, rank
from autotune.scoring.plan_result import PERCENTILES, PlanResult
from autotune.study import Study
from autotune.tuning.knob_choices import WANTED, Choices, search_traffic
from autotune.tuning.simulated_limits import Simulating, may_keep, simulated_once

_RANGED, _EXPECTED, _UNKNOWN = range(3)
"""How little is known of a plan: its likely range is, or only what is expected of it, or only the closed form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRanking:
    """A ranking under limits on percentiles."""

    ranked: tuple[PlanResult, ...]
    """Those that keep every limit, best first: the best of all plans, as many as were wanted."""
    behind: tuple[PlanResult, ...]
    """Those that keep every limit, of some as expected alone, and come behind the last of `ranked`, best first: plans
    of `left` may come before them."""
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
    """The best of plans that `may_keep` every limit, as many as are `wanted`, best first, under what is simulated too.

    A plan that was simulated before is taken as it is; `keep` is called with every other as soon as it is known to
    break a limit, or its likely range is drawn. Of several choices for one plan the best stands for it.
    """
    choices = Choices.of(study, plans, search_traffic(study, plans))
    search = _Search.of(choices, wanted)
    while search.waiting and (len(search.ranked) < wanted or search.known_next):
        checked = search.step()
        if progress is not None:
            progress(len(choices.of_plans) - len(search.unknown), len(choices.of_plans))
        if keep is not None and checked is not None:
            keep(checked)
    while not search.ranked and (checked := search.nearest_known(wanted)) is not None:
        if keep is not None:
            keep(checked)
    if keep is not None:
        for plan in search.in_part.values():
            keep(plan)
    behind = [*search.ranged.values(), *(replace(plan, variant="") for plan in search.expected.values())]
    broken = [*search.broken, *search.in_part.values()]
    sampled = choices.traffic.sample
    return SimulatedRanking(
        ranked=rank(study, search.ranked)[0],
        behind=rank(study, behind)[0],
        broken=tuple(broken),
        simulated=len(search.ranked) + len(behind) + len(broken),
        left=tuple(replace(first, variant="") for first, *_ in search.unknown.values()),
        sampled="" if sampled is None else sampled.words(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """Plans by what is known of them, from the closed form to the likely range of what is simulated, by their names.

    A plan is looked at again when what it can at best reach is more than what any other can: it is simulated as
    expected, then at both ends of its likely range, and then it has its place. So the range, which takes the longest,
    is drawn for few that have none among the first.
    """

    choices: Choices
    most_held: int
    """Simulations that are held for their range to be drawn; of those that are further behind they are done again."""
    unknown: dict[str, Sequence[PlanResult]]
    """The choices for each."""
    ranged: dict[str, PlanResult]
    broken: list[PlanResult]
    in_part: dict[str, PlanResult]
    """Those that are known to break a limit of a log before all of it is simulated."""
    waiting: list[tuple[float, int, str]]
    """What sorts each of these plans at best, how little is known of it, and its name: a heap."""
    expected: dict[str, PlanResult] = field(default_factory=dict)
    held: dict[str, Simulating] = field(default_factory=dict)
    ranked: list[PlanResult] = field(default_factory=list)

    @classmethod
    def of(cls, choices: Choices, most_held: int) -> _Search:
        """Of plans some of which may have been simulated before."""
        study = choices.study
        known = [first for first, *_ in choices.of_plans if PERCENTILES in first.breakdown]
        new = [of_plan for of_plan in choices.of_plans if PERCENTILES not in of_plan[0].breakdown]
        able = [(of_plan[0], [choice for choice in of_plan if may_keep(study, choice)]) for of_plan in new]
        unknown: dict[str, Sequence[PlanResult]] = {first.plan: left for first, left in able if left}
        ranged = {plan.plan: plan for plan in known if plan.feasible}
        waiting = [(order(study, plan), _RANGED, name) for name, plan in ranged.items()]
        waiting += [(choices.at_best[first.key], _UNKNOWN, name) for name, (first, *_) in unknown.items()]
        heapify(waiting)
        return cls(
            choices=choices,
            most_held=most_held,
            unknown=unknown,
            ranged=ranged,
            broken=[plan for plan in known if not plan.feasible],
            in_part={first.plan: replace(first, variant="") for first, left in able if not left},
            waiting=waiting,
        )

    @property
    def known_next(self) -> bool:
        """Whether all is known of the plan that may be the next."""
        return self.waiting[0][1] == _RANGED

    def step(self) -> PlanResult | None:
        """Learn more of the plan that may be the first; the plan, once all is known of it that will be."""
        _, known, name = heappop(self.waiting)
        if known == _RANGED:
            self.ranked.append(self.ranged.pop(name))
            return None
        simulated = self.held.pop(name, None) or simulated_once()
        if known == _UNKNOWN:
            checked = self.choices.best(self.unknown.pop(name), simulated, whole=False)
        else:
            checked = self.choices.ranged(self.expected.pop(name), simulated)
        if not checked.feasible:
            return self._breaks(replace(checked, variant=""))
        known -= 1
        heappush(self.waiting, (order(self.choices.study, checked), known, name))
        if known == _RANGED:
            self.ranged[name] = checked
            return checked
        self.expected[name], self.held[name] = checked, simulated
        if len(self.held) > self.most_held:
            self.held.pop(max(self.held, key=lambda each: order(self.choices.study, self.expected[each])))
        return None

    def nearest_known(self, wanted: int) -> PlanResult | None:
        """The nearest plan of which not all of a log was simulated, with all of it; None: there is none among the
        `wanted` nearest."""
        study = self.choices.study
        nearest = rank(study, [*self.broken, *self.in_part.values()])[1][:wanted]
        name = next((plan.plan for plan in nearest if plan.plan in self.in_part), None)
        if name is None:
            return None
        del self.in_part[name]
        of_plan = next(each for each in self.choices.of_plans if each[0].plan == name)
        return self._breaks(replace(self.choices.best(of_plan, simulated_once()), variant=""))

    def _breaks(self, plan: PlanResult) -> PlanResult | None:
        if PERCENTILES not in plan.breakdown:
            self.in_part[plan.plan] = plan
            return None
        self.broken.append(plan)
        return plan
