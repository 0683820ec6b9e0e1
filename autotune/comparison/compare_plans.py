"""`compare`: the plan in production and a candidate, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import numpy as np

from autotune.comparison.best import at_capacity, best_plan, capacity_study, drawn_capacities, served_log
from autotune.comparison.operators import time_rows, where_from
from autotune.comparison.probability_better import metric_p_better, p_better
from autotune.comparison.robustness import robustness
from autotune.comparison.simulated_requests import ServedLog, SimulatedRequests, simulated_requests
from autotune.comparison.switching import switch_cost
from autotune.comparison.values import ComparedPlan, Comparison, MarginRow, MetricRow, SwitchCost, Verdict
from autotune.comparison.verdict import NO_GAIN, verdict
from autotune.metrics import COST, GOODPUT, MAXIMIZE, METRICS, MINIMIZE, OUTPUT_COST, Use, used
from autotune.scoring.joint_uncertainty import joint_draws, p_greater, ranked_draws
from autotune.scoring.limits import study_limits
from autotune.scoring.overload import told
from autotune.scoring.plan_result import plan_key
from autotune.scoring.reach import bounded, unmeasured
from autotune.scoring.unsure_means import unsure_means
from autotune.scoring.value_and_gain import Gain, gain_over, gpus_ratio, ratio_of, served_within_limits, value_per_s
from autotune.simulation.percentile_limits import percentile_limits
from autotune.space import Resolution
from autotune.space.pooled_planstring import is_pooled
from autotune.study import Study, on_throughput
from autotune.traffic.profile import WorkloadProfile
from autotune.traffic.workload import with_traffic
from autotune.tuning import BaselineResult, PlanResult, score_named, score_plan
from autotune.tuning.knob_choices import simulated_plans
from costmodel.estimate.result import MEMORY_KINDS
from costmodel.plan.columns import Floats
from costmodel.simulation.requests import Requests

BEST = "best"


def compare(  # noqa: PLR0913  # one for each thing that may be given
    study: Study,
    current: str | None = None,
    candidate: str | PlanResult = BEST,
    traffic: WorkloadProfile | None = None,
    *,
    source: str | None = None,
    requests: Requests | None = None,
    log: ServedLog | None = None,
    scenarios: bool = True,
) -> Comparison:
    """Put the plan in production beside a candidate.

    Args:
        study: from `load_study`.
        current: a plan string; None: the study's baseline with the knobs it gives.
        candidate: a plan string, a plan scored under this study, or `best`: the first of the ranking, the nearest plan
            where none keeps every limit.
        traffic: replaces the study's workload (`with_traffic`).
        source: where the traffic came from, for the report.
        requests: those of the traffic, one by one, where the study holds none itself: plans are judged by how many of
            them keep the limits, simulated.
        log: those that the study holds itself (`served_log`), where plans may have served them before.
        scenarios: whether to look at other traffic and other loads as well (`Comparison.robustness`), most of the time.

    Raises:
        InputError: no current plan is given, or a string has no meaning on this many GPUs.
    """
    if traffic is not None:
        study = on_traffic(study, traffic)
    # traffic that is given replaces the study's own log
    study = replace(study, workload=replace(study.workload, recorded=requests or study.workload.recorded))
    production = score_named(
        study,
        current,
        path="--current",
        missing="must name the plan in production, or give --current PLAN",
        production=True,
    )
    log = log or served_log(study, production.result)
    production, proposed = _simulated(study, production, _candidate(study, candidate, log))
    before = _compared(study, production, reference=production.result)
    after = None if proposed is None else _compared(study, proposed, reference=production.result)
    simulated: tuple[SimulatedRequests, ...] = ()
    counted = None if log is None else _counted(study, log, before, after)
    if counted is None:
        served = _served(study, before, after)
    else:
        simulated, served = counted
        if study.objective.direction == MINIMIZE and after is not None:
            # requests in the limits, each worth the more the less it has of what is minimised
            served, metric = None, study.objective.metric
            kept = [one.within_limits_per_s.value for one in simulated]
            old, new = (side.result.metrics[metric] for side in (before, after) if side.result is not None)
            before = replace(before, value_per_s=kept[0])
            after = replace(after, value_per_s=kept[1] * ratio_of(old, new))
    if served is not None and after is not None:
        served = served * _counting(study, before, after)
        before = replace(before, value_per_s=float(served[0].mean()))
        after = replace(after, value_per_s=float(served[1].mean()))
    both = None if after is None or before.result is None or after.result is None else (before.result, after.result)
    same = both is not None and both[0].launch == both[1].launch
    p = 0.5 if after is None or after.result is None else 1.0
    switch, gain, drawn = None, None, p
    beyond: tuple[str, ...] = ()
    if both is not None and after is not None:
        beyond = tuple(dict.fromkeys(kind for plan in both for kind in unmeasured(study, plan)))
        # at one rate as rankings have it; under rates that change or that neither takes, by what each serves of them
        by_served = counted or study.workload.rate_levels_per_s or not (before.keeps or after.keeps)
        drawn = p_better(study, *both, served=served if by_served else None)
        p = bounded(drawn, beyond)
        switch = _switch(study, (before, after), both)
        gain = gain_over(
            current_per_s=before.value_per_s,
            candidate_per_s=after.value_per_s,
            horizon_s=study.retune.horizon_s,
            duration_s=switch.duration_s,
            loss=switch.loss(before.value_per_s),
        )
    found = verdict(study, before, after, same=same, p_better=p, gain=gain, beyond=beyond)
    rows = () if both is None else time_rows(*both)
    return Comparison(
        study=study,
        traffic=source,
        current=before,
        candidate=after,
        same_plan=same,
        p_better=p,
        simulated=simulated,
        metrics=() if both is None else _metrics(study, *both, beyond),
        margins=() if both is None else _margins(study, *both),
        memory_bytes={} if both is None else _memory(*both),
        time=rows,
        where_from=where_from(rows),
        robustness=robustness(on_throughput(study), *both, drawn)
        if scenarios and both is not None and not same
        else None,
        price_per_million_tokens=None if both is None else _prices(*both, COST),
        price_per_million_output_tokens=None if both is None else _prices(*both, OUTPUT_COST),
        switch=switch,
        gain=_paid_back(gain, found),
        verdict=found,
        beyond=beyond,
        assumptions=_assumptions(study, before, after, switch),
    )


def on_traffic(study: Study, profile: WorkloadProfile) -> Study:
    """The study under recorded traffic; what the baseline had in flight before says nothing of that load."""
    own = with_traffic(study, profile)
    return own if own.baseline is None else replace(own, baseline=replace(own.baseline, concurrency=None))


def _candidate(study: Study, asked: str | PlanResult, log: ServedLog | None) -> BaselineResult | None:
    """What is asked for: a plan, or the first of the ranking."""
    if isinstance(asked, str) and asked != BEST:
        return score_plan(study, asked, path="--candidate")
    plan = asked if isinstance(asked, PlanResult) else best_plan(study, log=log)
    if plan is None:
        return None
    known = Resolution(candidate=plan.candidate, assumed=(), alternatives=(), violations=())
    return BaselineResult(text=BEST, resolution=known, result=plan)


def _simulated(
    study: Study, production: BaselineResult, proposed: BaselineResult | None
) -> tuple[BaselineResult, BaselineResult | None]:
    """Both plans held against the study's limits on requests as well, where one was not when it was scored."""
    sides = [production, *([] if proposed is None else [proposed])]
    held = iter(simulated_plans(study, [side.result for side in sides if side.result is not None]))
    first, *others = [side if side.result is None else replace(side, result=next(held)) for side in sides]
    return first, next(iter(others), None)


def _compared(study: Study, scored: BaselineResult, *, reference: PlanResult | None) -> ComparedPlan:
    plan, found = scored.result, scored.resolution.candidate
    as_read = scored.text if is_pooled(scored.text) else plan_key(found)
    most = None if plan is None else at_capacity(study, plan)
    served = 0.0 if plan is None else plan.metrics["requests_per_s"]
    return ComparedPlan(
        text=scored.text,
        plan=as_read if plan is None else plan.plan,
        engine=found.engine,
        result=plan,
        rules_broken=tuple(f"{v.rule}: {v.message}" for v in scored.resolution.violations),
        assumed=scored.resolution.assumed,
        capacity_requests_per_s=served if most is None else max(most.metrics["requests_per_s"], served),
        at_capacity=most,
        value_per_s=value_per_s(study, plan, reference),
    )


def _served(study: Study, current: ComparedPlan, candidate: ComparedPlan | None) -> Floats | None:
    """Draws of what both serve of an open load within the limits; None where that is not known."""
    if study.workload.request_rate_per_s is None or candidate is None or percentile_limits(study):
        return None  # what a plan takes within limits on percentiles is known at the study's own load alone
    plans = (current.at_capacity, candidate.at_capacity)
    return served_within_limits(study, drawn_capacities(capacity_study(study), plans))


def _counting(study: Study, current: ComparedPlan, candidate: ComparedPlan) -> Floats:
    """What a request counts that each of them serves, shape `(2, 1)`."""
    both = current.result, candidate.result
    ratio = 1.0 if both[0] is None or both[1] is None else gpus_ratio(study, both[1], both[0])
    return np.array([[1.0], [ratio]])


def _counted(
    study: Study, log: ServedLog, current: ComparedPlan, candidate: ComparedPlan | None
) -> tuple[tuple[SimulatedRequests, ...], Floats] | None:
    """What the log's requests meet at both plans; None where one of them serves none, or no limit says what counts."""
    plans = [side.result for side in (current, candidate) if side is not None and side.result is not None]
    able = len(plans) == 2 and all(plan.has_room for plan in plans)
    return simulated_requests(study, log, plans) if able else None


def _paid_back(gain: Gain | None, found: Verdict) -> Gain | None:
    """The gain, which pays for nothing where the verdict is that nothing is gained."""
    return replace(gain, payback_s=None) if gain is not None and found.rule == NO_GAIN else gain


def _switch(
    study: Study, compared: tuple[ComparedPlan, ComparedPlan], plans: tuple[PlanResult, PlanResult]
) -> SwitchCost:
    rate, levels = study.workload.request_rate_per_s, study.workload.rate_levels_per_s
    if levels:
        # a change takes many minutes, in which the mean comes
        rate = sum(levels) / len(levels)
    # under an open load beyond what a plan takes the rest is turned away: it runs at what it takes
    as_run = [
        side.at_capacity or plan if study.workload.request_rate_per_s is not None and not side.keeps else plan
        for side, plan in zip(compared, plans, strict=True)
    ]
    return switch_cost(
        study,
        as_run[0],
        as_run[1],
        capacities=(compared[0].capacity_requests_per_s, compared[1].capacity_requests_per_s),
        load_requests_per_s=plans[0].metrics["requests_per_s"] if rate is None else rate,
    )


def _metrics(study: Study, current: PlanResult, candidate: PlanResult, beyond: Sequence[str]) -> tuple[MetricRow, ...]:
    draws = joint_draws(study, (current, candidate))
    known = GOODPUT in current.metrics and GOODPUT in candidate.metrics
    compared = ([METRICS[GOODPUT]] if known else []) + list(used(Use.COMPARED))

    def p_candidate(name: str) -> float | None:
        if name == GOODPUT:
            return p_greater(*reversed(ranked_draws(study, (current, candidate), draws)))
        endless = told(current, name) == inf, told(candidate, name) == inf
        if any(endless):
            return None if all(endless) else float(endless[0])
        return metric_p_better(name, current, candidate, draws)

    return tuple(
        MetricRow(
            name=metric.name,
            current=told(current, metric.name),
            candidate=told(candidate, metric.name),
            better={MAXIMIZE: "higher", MINIMIZE: "lower"}.get(metric.better),
            p_better=_bounded(p_candidate(metric.name), beyond),
        )
        for metric in compared
    )


def _bounded(probability: float | None, beyond: Sequence[str]) -> float | None:
    return None if probability is None else bounded(probability, beyond)


def _margins(study: Study, current: PlanResult, candidate: PlanResult) -> tuple[MarginRow, ...]:
    limits = [(limit.code, limit.limit, limit.kind.unit) for limit in study_limits(study)]
    limits += [(limit.code, limit.limit, limit.unit) for limit in percentile_limits(study)]
    both = current.margins.keys() & candidate.margins.keys()
    return tuple(
        MarginRow(
            code=code,
            limit=limit,
            unit=unit,
            current_excess=current.margins[code],
            candidate_excess=candidate.margins[code],
        )
        for code, limit, unit in limits
        if code in both
    )


def _memory(current: PlanResult, candidate: PlanResult) -> dict[str, tuple[float, float]]:
    tables = current.breakdown["memory_bytes"], candidate.breakdown["memory_bytes"]
    return {k: (tables[0].get(k, 0.0), tables[1].get(k, 0.0)) for k in MEMORY_KINDS if k in tables[0] or k in tables[1]}


def _prices(current: PlanResult, candidate: PlanResult, metric: str) -> tuple[float, float] | None:
    """US dollars per million tokens of both; None where a GPU has no price."""
    if metric not in current.metrics or metric not in candidate.metrics:
        return None
    return current.metrics[metric], candidate.metrics[metric]


def _assumptions(
    study: Study, current: ComparedPlan, candidate: ComparedPlan | None, switch: SwitchCost | None
) -> tuple[str, ...]:
    assumptions = [*study.assumptions, *study.operation_assumptions]
    assumptions += [f"current plan: {text}" for text in current.assumed]
    if candidate is not None:
        assumptions += [f"candidate: {text}" for text in candidate.assumed]
    if switch is not None and study.workload.request_rate_per_s is None:
        assumptions.append(
            f"no request rate given: during the switch arrives what the current plan serves, "
            f"{switch.load_requests_per_s:,.2f} requests/s"
        )
    if percentile_limits(study):
        assumptions.append(
            f"limits on {'requests' if study.objective.metric == GOODPUT else 'percentiles'} are simulated at the "
            "study's own load; capacities, other traffic and other loads are judged by the limits on means"
        )
    for name, side in (("current plan", current), ("candidate", candidate)):
        assumptions += [f"{name}: {text}" for text in unsure_means(study, None if side is None else side.result)]
        if side is not None and side.result is not None and not side.capacity_keeps_limits:
            assumptions.append(f"{name}: no load keeps its limits; its capacity is what it serves at its own load")
        if study.workload.points and side is not None and side.result is not None and side.result.pools is not None:
            assumptions.append(
                f"{name}: its pools are scored at the mean lengths of the traffic's requests, each sequence that "
                "decodes counted as long as its output lasts"
            )
    return tuple(assumptions)
