"""Limits on percentiles, and goodput, kept by the search exactly: plans are simulated in the order of what they can at
best reach.

A simulation can only lower what a plan stands for: it may break a limit on percentiles, the probability to keep them
multiplies what can be expected of it, and of the requests that come not all may keep their limits. So the place of a
plan by means is a bound, and once so many plans as are wanted stand above the bound of the next one, no plan that is
left can be among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isnan
from typing import Protocol

import numpy as np

from autotune.metrics import GOODPUT
from autotune.scoring.best_knobs import score_choices
from autotune.scoring.kept_together import Kept, merged, p_together
from autotune.scoring.limits import JOINT_PROBABILITY, LOAD_SERVED, MEAN_LATENCIES, means_kept, study_limits
from autotune.scoring.plan_order import order, rank
from autotune.scoring.plan_result import PERCENTILES, PlanResult, Violation, worst_first
from autotune.simulation.goodput import goodput, is_full, served_per_s
from autotune.simulation.percentile_limits import PercentileLimit, is_simulated, percentile_limits
from autotune.simulation.queue_growth import queue_grows
from autotune.simulation.simulate_plan import PlanSimulation, Traffic, simulate_plan, study_traffic
from autotune.study import Study
from autotune.study.sections import REQUEST_LATENCIES
from autotune.tuning.least_latencies import least_latencies, out_of_reach
from costmodel.simulation.forecast import Forecast, Likely

LONG_REQUESTS = 0.9
"""Share of the leading plans whose requests take at most what a sample's windows are measured by."""
MOST_SERVED = 1.3
"""Times what the closed form says that a closed loop serves, at most: of 134 plans of three models and engines, with 16
to 600 requests in flight, the simulated ones served 0.88 to 1.21 times that."""
SETTLED_FRAC = 0.005
"""Of what a plan stands for with some knobs: those that could bring no more than that beyond it are not tried."""
WANTED = 10
"""Plans that are ranked under limits on percentiles, at least, where so many keep them."""


class Simulating(Protocol):
    """What simulates a plan: `simulate_plan`, or what knows the plans that it simulated before."""

    def __call__(self, study: Study, plan: PlanResult, traffic: Traffic) -> PlanSimulation:
        """Serve traffic by a plan."""
        ...


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


def may_keep(study: Study, plan: PlanResult) -> bool:
    """Whether a plan is worth simulating: it keeps every limit that no simulation decides (`_decided`)."""
    return all(v.code in _decided(study) for v in plan.violations)


def _decided(study: Study) -> frozenset[str]:
    """Limits that the closed form may break, and a simulation decides.

    Under a log a plan may fall short of the log's fullest bin: how that ends for its requests is what is simulated, and
    so is what they meet on average where that is limited.
    """
    if study.workload.recorded is None:
        return frozenset()
    means = {*MEAN_LATENCIES, JOINT_PROBABILITY} if study.means_of_requests else set[str]()
    return frozenset({LOAD_SERVED, *means})


def worth_simulating(study: Study, plans: Sequence[PlanResult]) -> list[PlanResult]:
    """Plans that `may_keep` every limit, but for those surely out of reach; and those that were simulated before.

    Of a plan of one kind each of its `every_choice` is one of them: which is best is known once they are simulated.
    """
    known = [plan for plan in plans if PERCENTILES in plan.breakdown]
    new = [plan for plan in plans if PERCENTILES not in plan.breakdown and may_keep(study, plan)]
    able = [plan for plan in every_choice(study, new) if may_keep(study, plan)]
    beyond = out_of_reach(study, able)
    return [*known, *(plan for plan in able if plan.key not in beyond)]


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
    choices = _Choices.of(study, plans, traffic)
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
            checked = choices.best((first, *others), lambda plan: with_percentiles(study, plan, limits, traffic))
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choices:
    """What may be simulated, in the order in which it is."""

    study: Study
    of_plans: tuple[tuple[PlanResult, ...], ...]
    """The choices for each plan. Plans, and the choices for each, are in the order of `at_best`."""
    at_best: Mapping[str, float]
    """What sorts each by its key: its place can only be behind it."""

    @classmethod
    def of(cls, study: Study, plans: Sequence[PlanResult], traffic: Traffic) -> _Choices:
        least = least_latencies(study, plans)
        at_best = {plan.key: _at_best(study, plan, traffic, least.get(plan.key)) for plan in plans}
        found: dict[str, list[PlanResult]] = {}
        for plan in sorted(plans, key=lambda p: (at_best[p.key], p.key)):
            found.setdefault(plan.plan, []).append(plan)
        return cls(study=study, of_plans=tuple(map(tuple, found.values())), at_best=at_best)

    def best(self, choices: Sequence[PlanResult], simulated: Callable[[PlanResult], PlanResult]) -> PlanResult:
        """The one of a plan's choices that stands first once they are simulated, or but for `SETTLED_FRAC`."""
        best = simulated(choices[0])
        for choice in choices[1:]:
            own = order(self.study, best)
            if best.feasible and own - self.at_best[choice.key] <= SETTLED_FRAC * abs(own):
                break
            kept, broken = rank(self.study, [best, simulated(choice)])
            best = (*kept, *broken)[0]
        return replace(best, variant="")


def best_once_simulated(
    study: Study, plan: PlanResult, *, like: Sequence[PlanResult] = (), simulated: Simulating = simulate_plan
) -> PlanResult:
    """A plan with those of the dtypes and token budgets that a study leaves open that are best once it is simulated.

    Arguments as those of `simulated_plans`.
    """
    choices = [] if not is_simulated(study) or PERCENTILES in plan.breakdown else worth_simulating(study, [plan])
    if len(choices) < 2:
        return simulated_plans(study, [plan], like=like, simulated=simulated)[0]
    limits, traffic = percentile_limits(study), search_traffic(study, like or [plan])
    ordered = _Choices.of(study, choices, traffic)
    return ordered.best(ordered.of_plans[0], lambda one: with_percentiles(study, one, limits, traffic, simulated))


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


def search_traffic(study: Study, plans: Sequence[PlanResult]) -> Traffic:
    """What every plan of a search is simulated under: of a long log windows that stand for it."""
    whole = study_traffic(study)
    leading = sorted(plans, key=lambda p: (not p.feasible, _at_best(study, p, whole), p.plan))[:WANTED]
    taken = sorted(plan.metrics["e2e_s"] for plan in leading)
    return whole.sampled(taken[int(LONG_REQUESTS * (len(taken) - 1))] if taken else 0.0)


def with_percentiles(
    study: Study,
    plan: PlanResult,
    limits: Sequence[PercentileLimit],
    traffic: Traffic,
    simulated: Simulating = simulate_plan,
) -> PlanResult:
    """The plan held against what is simulated: its figures, what it breaks, and how probably it keeps all.

    A sample of a log says too little of a plan whose queue grows in a window: it begins each with an empty server. What
    such a plan breaks it breaks; where it seems to keep all, the whole log is simulated. A plan that breaks a limit as
    expected is not simulated at both ends of its likely range, which cannot make it one that keeps all.
    """

    simulation = simulated(study, plan, traffic.for_plan(plan.metrics["e2e_s"]))
    forecast = simulation.in_proportion
    if all(limit.kept(limit.figure(forecast)) for limit in limits):
        if traffic.sample is not None and queue_grows(forecast.expected):
            return with_percentiles(study, plan, limits, replace(traffic, sample=None), simulated)
        forecast = simulation.forecast
    figures = {limit.code: limit.figure(forecast) for limit in limits}
    decided = _decided(study)
    margins = {
        c: excess for c, excess in plan.margins.items() if c not in decided or (c == LOAD_SERVED and excess <= 0)
    }
    margins |= {limit.code: limit.excess(figures[limit.code]) for limit in limits}
    violations = [v for v in plan.violations if v.code not in decided and v.code != JOINT_PROBABILITY]
    violations += [found for limit in limits if (found := limit.violation(figures[limit.code])) is not None]
    if study.means_of_requests and (short := _short(traffic, simulation)) is not None:
        violations.append(short)
        margins[LOAD_SERVED] = short.excess
    p_kept = _p_kept(study, plan, [limit.surely(figures[limit.code]) for limit in limits])
    least = study.search.min_p_meets
    if p_kept < least and (not violations or any(v.code == JOINT_PROBABILITY for v in plan.violations)):
        excess = least - p_kept
        violations.append(
            Violation(code=JOINT_PROBABILITY, value=p_kept, limit=least, excess=excess, unit="probability")
        )
    if JOINT_PROBABILITY in plan.margins:
        margins[JOINT_PROBABILITY] = least - p_kept
    met = _as_met(plan, forecast) if study.means_of_requests else plan
    shown, metrics = _simulated_figures(forecast, limits, figures), met.metrics
    if study.objective.metric == GOODPUT:
        good = goodput(study, traffic, forecast, gpus=round(plan.metrics["gpus"]))
        metrics, shown = {**metrics, GOODPUT: good.value}, {**shown, GOODPUT: _shown(good, 1.0)}
    expected_ms = {f"{name}_{statistic}_ms": 1e3 * value for (name, statistic), value in forecast.statistics().items()}
    return replace(
        met,
        feasible=not violations,
        violations=worst_first(violations),
        margins=margins,
        metrics=metrics,
        p_meets=p_kept,
        breakdown={**met.breakdown, "simulated": shown, PERCENTILES: expected_ms},
    )


def _short(traffic: Traffic, simulation: PlanSimulation) -> Violation | None:
    """How much less of a log a plan serves than comes over all of it; None: it serves what comes."""
    served, rate = served_per_s(traffic, simulation), traffic.rate_per_s
    if rate is None or not is_full(traffic, served):
        return None
    return Violation(code=LOAD_SERVED, value=served, limit=rate, excess=rate - served, unit="requests/s")


def _as_met(plan: PlanResult, forecast: Forecast) -> PlanResult:
    """The plan with the mean latencies that a log's requests meet, in place of those in its fullest bin.

    What TTFT is made of stays as it is there, and so does what the longest prompt adds to it.
    """
    met = {name: forecast.latency(name, "mean").value for name in REQUEST_LATENCIES}
    metrics = {**plan.metrics, **{f"{name}_s": value for name, value in met.items() if not isnan(value)}}
    share = metrics["ttft_s"] / max(plan.metrics["ttft_s"], 1e-300)
    metrics["ttft_longest_s"] = metrics["ttft_s"] + plan.metrics["ttft_longest_s"] - plan.metrics["ttft_s"]
    parts = {name: seconds * share for name, seconds in plan.breakdown["ttft_parts_s"].items()}
    return replace(plan, metrics=metrics, breakdown={**plan.breakdown, "ttft_parts_s": parts})


def _simulated_figures(
    forecast: Forecast, limits: Sequence[PercentileLimit], figures: Mapping[str, Likely]
) -> dict[str, dict[str, float]]:
    """What is simulated of each limit, by its code, in its unit."""
    shown = {limit.code: _shown(figures[limit.code], limit.factor) for limit in limits}
    for limit in limits:
        if (error := limit.sampling_error(forecast)) is not None:
            shown[limit.code]["sampling_error"] = error * limit.factor
    return shown


def _p_kept(study: Study, plan: PlanResult, simulated: Sequence[tuple[str, Kept]]) -> float:
    """Probability that a plan keeps its limits on means and these together: no more than that of means alone."""
    if study.means_of_requests:
        return float(p_together(merged(simulated))[0])
    wait = np.array([plan.breakdown["ttft_parts_s"].get("kv_wait", 0.0)])
    means = means_kept(study_limits(study), lambda name: np.array([plan.metrics[name]]), wait)
    together = p_together(merged([*means.items(), *simulated]))
    return min(float(together[0]), plan.p_meets)


def _shown(likely: Likely, factor: float) -> dict[str, float]:
    return {"value": likely.value * factor, "likely_low": likely.low * factor, "likely_high": likely.high * factor}


def _at_best(study: Study, plan: PlanResult, traffic: Traffic, least: Mapping[str, float] | None = None) -> float:
    """What sorts a plan before it is simulated: its place can only be behind it.

    `least`: of `least_latencies`.
    """
    if least is not None:
        plan = replace(plan, metrics={**plan.metrics, **least}, p_meets=1.0)
    if study.objective.metric != GOODPUT:
        return order(study, plan)
    most_per_s = traffic.rate_per_s
    if most_per_s is None:
        most_per_s = MOST_SERVED * plan.metrics["requests_per_s"]
    best = most_per_s / plan.metrics["gpus"]
    return order(study, replace(plan, metrics={**plan.metrics, GOODPUT: best}))
