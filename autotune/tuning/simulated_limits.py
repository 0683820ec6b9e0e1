"""A plan held against what is simulated: its figures, what of a study's limits it breaks, how probably it keeps all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Protocol

import numpy as np

from autotune.metrics import GOODPUT
from autotune.scoring.kept_together import Kept, merged, p_together
from autotune.scoring.limits import JOINT_PROBABILITY, LOAD_SERVED, MEAN_LATENCIES, means_kept, study_limits
from autotune.scoring.plan_result import PERCENTILES, Launch, PlanResult, Violation, worst_first
from autotune.simulation.goodput import goodput, is_full, served_per_s
from autotune.simulation.percentile_limits import PercentileLimit
from autotune.simulation.queue_growth import queue_grows
from autotune.simulation.simulate_plan import PlanSimulation, Traffic, simulate_plan
from autotune.study import Study
from autotune.study.sections import REQUEST_LATENCIES
from costmodel.simulation.forecast import Forecast, Likely


def decided_by_simulation(study: Study) -> frozenset[str]:
    """Limits that the closed form may break, and a simulation decides.

    Under a log a plan may fall short of the log's fullest bin: how that ends for its requests is what is simulated, and
    so is what they meet on average where that is limited.
    """
    if study.workload.recorded is None:
        return frozenset()
    means = {*MEAN_LATENCIES, JOINT_PROBABILITY} if study.means_of_requests else set[str]()
    return frozenset({LOAD_SERVED, *means})


def may_keep(study: Study, plan: PlanResult) -> bool:
    """Whether a plan is worth simulating: it keeps every limit that no simulation decides (`decided_by_simulation`)."""
    return all(v.code in decided_by_simulation(study) for v in plan.violations)


def broken_by(study: Study, plan: PlanResult, broken: Sequence[Violation]) -> PlanResult:
    """A plan that is known to break limits before all of its traffic is simulated.

    `broken` takes the place of what the closed form says of those that a simulation decides.
    """
    decided = decided_by_simulation(study)
    margins = {code: excess for code, excess in plan.margins.items() if code not in decided}
    violations = [v for v in plan.violations if v.code not in decided]
    return replace(plan, feasible=False, violations=worst_first([*violations, *broken]), margins=margins)


class Simulating(Protocol):
    """What simulates a plan: `simulate_plan`, or what knows the plans that it simulated before."""

    def __call__(self, study: Study, plan: PlanResult, traffic: Traffic) -> PlanSimulation:
        """Serve traffic by a plan."""
        ...


def simulated_once() -> Simulating:
    """What simulates a plan as it is started once at a rate, whatever the limits are that it is then held against."""
    known: dict[tuple[Launch, float | None, bool], PlanSimulation] = {}

    def simulated(study: Study, plan: PlanResult, traffic: Traffic) -> PlanSimulation:
        key = plan.launch, traffic.rate_per_s, traffic.sample is None
        if key not in known:
            known[key] = simulate_plan(study, plan, traffic)
        return known[key]

    return simulated


def with_percentiles(
    study: Study,
    plan: PlanResult,
    limits: Sequence[PercentileLimit],
    traffic: Traffic,
    simulated: Simulating = simulate_plan,
    *,
    with_range: bool = True,
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
            return with_percentiles(
                study, plan, limits, replace(traffic, sample=None), simulated, with_range=with_range
            )
        forecast = simulation.forecast if with_range else forecast
    figures = {limit.code: limit.figure(forecast) for limit in limits}
    decided = decided_by_simulation(study)
    margins = {
        c: excess for c, excess in plan.margins.items() if c not in decided or (c == LOAD_SERVED and excess <= 0)
    }
    margins |= {limit.code: limit.excess(figures[limit.code]) for limit in limits}
    anew = {*decided, JOINT_PROBABILITY, *figures}
    violations = [v for v in plan.violations if v.code not in anew]
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
