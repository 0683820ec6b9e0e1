"""Dtypes and token budgets under limits on requests: which of those that a study leaves open is best is known once each
is simulated, as far as it can be the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from autotune.metrics import GOODPUT
from autotune.scoring.best_knobs import score_choices
from autotune.scoring.plan_order import order, rank
from autotune.scoring.plan_result import PERCENTILES, PlanResult
from autotune.simulation.percentile_limits import PercentileLimit, is_simulated, percentile_limits
from autotune.simulation.simulate_plan import Traffic, simulate_plan, study_traffic
from autotune.study import Study
from autotune.tuning.busiest_stretch import broken_in_stretch, busiest_stretch
from autotune.tuning.least_latencies import least_latencies, out_of_reach, p_at_best
from autotune.tuning.simulated_limits import Simulating, may_keep, simulated_once, with_percentiles

LONG_REQUESTS = 0.9
"""Share of the leading plans whose requests take at most what a sample's windows are measured by."""

MOST_SERVED, MOST_SERVED_IN_STAGES = 1.4, 2.8
"""Times what the closed form says that a closed loop serves, at most; and that of plans with pipeline stages.

Of 134 plans of three models and engines, with 16 to 600 requests in flight, the simulated ones served 0.88 to 1.21
times as much. Of 51 of DeepSeek-V3 on 128 GPUs, with 300 to 3,000 in flight of one length, which stay in step, those
without stages served up to 1.39 times, and those with stages 0.84 to 2.68 times.
"""
MOST_DECODED = 1.0
"""Times what a closed loop would serve if its requests were nothing but their passes of decode operators, at most: the
simulated ones of those 51 served up to 0.84 times that."""

SETTLED_FRAC = 0.005
"""Of what a plan stands for with some knobs: those that could bring no more than that beyond it are not tried."""

WANTED = 10
"""Plans that are ranked under limits on percentiles, at least, where so many keep them."""


def worth_simulating(study: Study, plans: Sequence[PlanResult]) -> list[PlanResult]:
    """Plans that `may_keep` every limit, with what those break that are out of reach; and those simulated before.

    Of a plan of one kind each of its `every_choice` is one of them: which is best is known once they are simulated.
    """
    known = [plan for plan in plans if PERCENTILES in plan.breakdown]
    new = [plan for plan in plans if PERCENTILES not in plan.breakdown and may_keep(study, plan)]
    able = [plan for plan in every_choice(study, new) if may_keep(study, plan)]
    beyond = out_of_reach(study, able)
    return [*known, *(beyond.get(plan.key, plan) for plan in able)]


def every_choice(study: Study, plans: Sequence[PlanResult]) -> list[PlanResult]:
    """Plans, each of one kind followed by itself with other dtypes and token budgets, told apart by their keys.

    The seats, budgets and front of two pools are those that are best by means.
    """
    single = [plan for plan in plans if plan.pools is None]
    scored = zip(single, score_choices(study, [plan.candidate for plan in single]), strict=True)
    others = {
        plan.plan: [
            other.apart()
            for each in choices
            if (other := replace(each, own_options=plan.own_options)).launch != plan.launch
        ]
        for plan, choices in scored
    }
    return [choice for plan in plans for choice in (plan, *others.get(plan.plan, ()))]


def search_traffic(study: Study, plans: Sequence[PlanResult]) -> Traffic:
    """What every plan of a search is simulated under: of a long log windows that stand for it."""
    whole = study_traffic(study)
    leading = sorted(plans, key=lambda p: (not p.feasible, _at_best(study, p, whole), p.plan))[:WANTED]
    taken = sorted(plan.metrics["e2e_s"] for plan in leading)
    return whole.sampled(taken[int(LONG_REQUESTS * (len(taken) - 1))] if taken else 0.0)


def _at_best(study: Study, plan: PlanResult, traffic: Traffic, least: Mapping[str, float] | None = None) -> float:
    """What sorts a plan before it is simulated: its place can only be behind it.

    `least`: of `least_latencies`.
    """
    if least is not None:
        plan = replace(plan, metrics={**plan.metrics, **least}, p_meets=1.0)
    elif study.workload.recorded is None:
        plan = replace(plan, p_meets=p_at_best(study, plan))
    if study.objective.metric != GOODPUT:
        return order(study, plan)
    most_per_s = traffic.rate_per_s
    if most_per_s is None:
        most_per_s = _most_served_per_s(study, plan)
    best = most_per_s / plan.metrics["gpus"]
    return order(study, replace(plan, metrics={**plan.metrics, GOODPUT: best}))


def _most_served_per_s(study: Study, plan: PlanResult) -> float:
    """What a closed loop may serve once it is simulated, at most, requests per second."""
    times = MOST_SERVED if plan.layout.pp == 1 else MOST_SERVED_IN_STAGES
    most_per_s = times * plan.metrics["requests_per_s"]
    if plan.pools is not None:
        return most_per_s
    drafts = study.axes.speculative
    passes = (study.workload.osl.mean - 1.0) / (1.0 if drafts is None else drafts.accepted_per_step)
    decoding_s = passes * sum(plan.breakdown["decode_s"].values())
    return min(most_per_s, MOST_DECODED * plan.knobs.concurrency / decoding_s) if decoding_s > 0.0 else most_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What may be simulated, in the order in which it is."""

    study: Study
    limits: Sequence[PercentileLimit]
    traffic: Traffic
    stretch: Traffic | None
    """The part of a log that is simulated first; None: all of it is."""
    of_plans: tuple[tuple[PlanResult, ...], ...]
    """The choices for each plan. Plans, and the choices for each, are in the order of `at_best`."""
    at_best: Mapping[str, float]
    """What sorts each by its key: its place can only be behind it."""
    scored: Mapping[str, PlanResult]
    """Each by its key, as the closed form has it."""

    @classmethod
    def of(cls, study: Study, plans: Sequence[PlanResult], traffic: Traffic) -> Choices:
        """Of plans that may be simulated under the traffic, several of which may be one plan with other knobs."""
        least = least_latencies(study, plans) if study.means_of_requests else {}
        at_best = {plan.key: _at_best(study, plan, traffic, least.get(plan.key)) for plan in plans}
        found: dict[str, list[PlanResult]] = {}
        for plan in sorted(plans, key=lambda p: (at_best[p.key], p.key)):
            found.setdefault(plan.plan, []).append(plan)
        of_plans, scored = tuple(map(tuple, found.values())), {plan.key: plan for plan in plans}
        limits = percentile_limits(study)
        return cls(
            study=study,
            limits=limits,
            traffic=traffic,
            stretch=busiest_stretch(traffic, limits),
            of_plans=of_plans,
            at_best=at_best,
            scored=scored,
        )

    def best(self, choices: Sequence[PlanResult], simulated: Simulating, *, whole: bool = True) -> PlanResult:
        """The one of a plan's choices that stands first once they are simulated, or but for `SETTLED_FRAC`.

        As expected: the likely range, which `ranged` draws, leaves choices for one plan in their order. Unless the
        `whole` log is asked for, of choices that break a limit by its busiest stretch nothing else is known.
        """
        stretch = None if whole else self.stretch
        tried, best = list[PlanResult](), inf
        for choice in choices:
            bound = self.at_best[choice.key]
            if bound + SETTLED_FRAC * abs(bound) >= best:
                break
            checked = None
            if stretch is not None:
                checked = broken_in_stretch(self.study, choice, self.limits, stretch, simulated)
            if checked is None:
                checked = self._simulated(choice, simulated, with_range=False)
            tried.append(checked)
            if checked.feasible:
                best = min(best, order(self.study, checked))
        kept, broken = rank(self.study, tried)
        return (*kept, *broken)[0]

    def _simulated(self, choice: PlanResult, simulated: Simulating, *, with_range: bool) -> PlanResult:
        return with_percentiles(self.study, choice, self.limits, self.traffic, simulated, with_range=with_range)

    def ranged(self, plan: PlanResult, simulated: Simulating) -> PlanResult:
        """What `best` found with its likely range drawn through the simulation; what breaks a limit as it is."""
        if not plan.feasible:
            return replace(plan, variant="")
        return replace(self._simulated(self.scored[plan.key], simulated, with_range=True), variant="")


def best_once_simulated(
    study: Study, plan: PlanResult, *, like: Sequence[PlanResult] = (), simulated: Simulating | None = None
) -> PlanResult:
    """A plan with those of the dtypes and token budgets that a study leaves open that are best once it is simulated.

    Arguments as those of `simulated_plans`.
    """
    new = is_simulated(study) and PERCENTILES not in plan.breakdown
    choices = [choice for choice in worth_simulating(study, [plan]) if may_keep(study, choice)] if new else []
    if len(choices) < 2:
        return simulated_plans(study, [plan], like=like, simulated=simulated or simulate_plan)[0]
    ordered, known = Choices.of(study, choices, search_traffic(study, like or [plan])), simulated or simulated_once()
    return ordered.ranged(ordered.best(ordered.of_plans[0], known), known)


def simulated_plans(
    study: Study,
    plans: Sequence[PlanResult],
    *,
    like: Sequence[PlanResult] = (),
    simulated: Simulating = simulate_plan,
) -> list[PlanResult]:
    """Plans held against what is simulated, where the study asks for that; those that were simulated as they are.

    A plan whose KV cache does not hold a request stays as it is too: it breaks that limit, and serves nothing.

    Args:
        study: whose limits these are.
        plans: that are held against them.
        like: those by whose requests the windows of a long log are chosen; none: the plans themselves.
        simulated: what simulates a plan.
    """
    if not is_simulated(study):
        return list(plans)
    limits, traffic = percentile_limits(study), search_traffic(study, like or plans)
    return [
        with_percentiles(study, p, limits, traffic, simulated) if p.has_room and PERCENTILES not in p.breakdown else p
        for p in plans
    ]
