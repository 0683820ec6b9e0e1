"""`compare`: the plan in production and a candidate, side by side."""

from __future__ import annotations

from dataclasses import replace

from autotune.comparison.best import at_capacity, best_plan, capacity_study
from autotune.comparison.capacity import drawn_capacities
from autotune.comparison.operators import time_rows, where_from
from autotune.comparison.probability_better import LATENCIES, THROUGHPUTS, metric_p_better, p_better
from autotune.comparison.robustness import robustness
from autotune.comparison.switching import same_launch, switch_cost
from autotune.comparison.value_and_gain import served_within_limits, value_per_s
from autotune.comparison.values import Comparison, MarginRow, MetricRow, Side, SwitchCost
from autotune.comparison.verdict import verdict
from autotune.scoring.joint_uncertainty import joint_draws
from autotune.scoring.limits import study_limits
from autotune.space import format_plan
from autotune.space.pooled_planstring import is_pooled
from autotune.study import Study, in_place
from autotune.traffic import WorkloadProfile
from autotune.traffic.workload import with_traffic
from autotune.tuning import PlanResult
from autotune.tuning.answer_study import BaselineResult, score_plan
from costmodel.errors import InputError
from costmodel.estimate.result import MEMORY_KINDS
from costmodel.plan.columns import Floats

BEST = "best"
METRIC_ORDER = (
    "total_tokens_per_s_per_gpu",
    "output_tokens_per_s_per_gpu",
    "total_tokens_per_s",
    "output_tokens_per_s",
    "requests_per_s",
    "stage_tokens_per_s_per_gpu",
    "ttft_s",
    "ttft_longest_s",
    "tpot_s",
    "memory_util_frac",
    "gpu_util_frac",
    "compute_util_frac",
    "bandwidth_util_frac",
    "kv_capacity_sequences",
)


def compare(
    study: Study,
    current: str | None = None,
    candidate: str | PlanResult = BEST,
    traffic: WorkloadProfile | None = None,
    *,
    source: str | None = None,
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
        scenarios: whether to look at other traffic and other loads as well (`Comparison.robustness`), most of the time.

    Raises:
        InputError: no current plan is given, a string has no meaning on this many GPUs, or a plan is disaggregated
            and traffic is recorded.
    """
    if traffic is not None:
        study = on_traffic(study, traffic)
    study = in_place(study, pools=not study.workload.points)
    first = _current(study, current)
    second = _candidate(study, candidate)
    _scored_alike(study, first, "$.baseline.plan" if current is None else "--current")
    _scored_alike(study, second, "--candidate")
    mine = first.result
    theirs = None if second is None else second.result
    before = _side(study, first, reference=mine)
    after = None if second is None else _side(study, second, reference=mine)
    capacities = _capacities(study, before, after)
    served = None if capacities is None else served_within_limits(study, capacities)
    if served is not None and after is not None:
        before = replace(before, value_per_s=float(served[0].mean()))
        after = replace(after, value_per_s=float(served[1].mean()))
    same = mine is not None and theirs is not None and same_launch(mine, theirs)
    sure = 0.5
    switch: SwitchCost | None = None
    if mine is not None and theirs is not None and after is not None:
        sure = p_better(study, mine, theirs, served=served)
        switch = _switch(study, before, after)
    elif theirs is not None and mine is None:
        sure = 1.0
    rows = () if mine is None or theirs is None else time_rows(mine, theirs)
    return Comparison(
        study=study,
        traffic=source,
        current=before,
        candidate=after,
        same_plan=same,
        p_better=sure,
        metrics=_metrics(study, mine, theirs),
        margins=_margins(study, mine, theirs),
        memory_bytes=_memory(mine, theirs),
        time=rows,
        where_from=where_from(rows),
        robustness=robustness(study, mine, theirs, sure) if scenarios and mine and theirs and not same else None,
        price_per_million_tokens=_prices(mine, theirs, "usd_per_million_tokens"),
        price_per_million_output_tokens=_prices(mine, theirs, "usd_per_million_output_tokens"),
        switch=switch,
        verdict=verdict(study, before, after, same=same, p_better=sure, switch=switch),
        assumptions=_assumptions(study, before, after, switch),
    )


def _scored_alike(study: Study, side: BaselineResult | None, path: str) -> None:
    """Refuse what cannot be put on recorded traffic.

    Raises:
        InputError: the plan is disaggregated, and those are scored at mean lengths alone.
    """
    if study.workload.points and side is not None and is_pooled(side.text if side.result is None else side.result.plan):
        raise InputError.single(
            path,
            "must be a plan of one kind of replica: disaggregated plans are scored at mean lengths, recorded traffic "
            f"at every kind of request, got {side.text[:200]!r} (`autotune compare` without --traffic takes it)",
        )


def on_traffic(study: Study, profile: WorkloadProfile) -> Study:
    """The study under recorded traffic; what the baseline had in flight before says nothing of that load."""
    own = with_traffic(study, profile)
    return own if own.baseline is None else replace(own, baseline=replace(own.baseline, concurrency=None))


def _current(study: Study, text: str | None) -> BaselineResult:
    given = study.baseline
    if text is not None:
        return score_plan(study, text, path="--current")
    if given is None:
        raise InputError.single("$.baseline", "must name the plan in production, or give --current PLAN")
    return score_plan(
        study,
        given.plan,
        engine=given.engine,
        concurrency=given.concurrency,
        batched_tokens=given.max_num_batched_tokens,
        weight_dtype=given.weight_dtype,
        kv_dtype=given.kv_dtype,
        path="$.baseline.plan",
    )


def _candidate(study: Study, asked: str | PlanResult) -> BaselineResult | None:
    if isinstance(asked, PlanResult):
        return _scored(study, asked)
    if asked != BEST:
        return score_plan(study, asked, path="--candidate")
    best = best_plan(study)
    return None if best is None else _scored(study, best)


def _scored(study: Study, plan: PlanResult) -> BaselineResult:
    return replace(score_plan(study, plan.plan, path="--candidate"), text=BEST, result=plan)


def _side(study: Study, scored: BaselineResult, *, reference: PlanResult | None) -> Side:
    plan, found = scored.result, scored.resolution.candidate
    name = (
        scored.text if plan is None and is_pooled(scored.text) else format_plan(found.layout, found.engine, found.gpu)
    )
    most = None if plan is None else at_capacity(study, plan)
    served = 0.0 if plan is None else plan.metrics["requests_per_s"]
    return Side(
        text=scored.text,
        plan=name if plan is None else plan.plan,
        engine=found.engine,
        result=plan,
        rules_broken=tuple(f"{v.rule}: {v.message}" for v in scored.resolution.violations),
        assumed=() if scored.text == BEST else scored.resolution.assumed,
        capacity_requests_per_s=served if most is None else max(most.metrics["requests_per_s"], served),
        at_capacity=most,
        value_per_s=value_per_s(study, plan, reference),
    )


def _capacities(study: Study, current: Side, candidate: Side | None) -> Floats | None:
    """Draws of what both take within the limits; None where the study gives no open load."""
    if study.workload.request_rate_per_s is None or candidate is None:
        return None
    return drawn_capacities(capacity_study(study), (current.at_capacity, candidate.at_capacity))


def _switch(study: Study, current: Side, candidate: Side) -> SwitchCost | None:
    if current.result is None or candidate.result is None:
        return None
    rate, levels = study.workload.request_rate_per_s, study.workload.rate_levels_per_s
    if levels:
        # a change takes many minutes, in which the mean comes
        rate = sum(levels) / len(levels)
    return switch_cost(
        study,
        _as_run(study, current, current.result),
        _as_run(study, candidate, candidate.result),
        capacities=(current.capacity_requests_per_s, candidate.capacity_requests_per_s),
        values=(current.value_per_s, candidate.value_per_s),
        load_requests_per_s=current.result.metrics["requests_per_s"] if rate is None else rate,
    )


def _as_run(study: Study, side: Side, plan: PlanResult) -> PlanResult:
    """Under an open load beyond what a plan takes the rest is turned away: it runs at what it takes."""
    beyond = study.workload.request_rate_per_s is not None and not side.keeps
    return side.at_capacity if beyond and side.at_capacity is not None else plan


def _metrics(study: Study, current: PlanResult | None, candidate: PlanResult | None) -> tuple[MetricRow, ...]:
    if current is None or candidate is None:
        return ()
    draws = joint_draws(study, (current, candidate))
    return tuple(
        MetricRow(
            name=name,
            current=current.metrics[name],
            candidate=candidate.metrics[name],
            better="lower" if name in LATENCIES else "higher" if name in THROUGHPUTS else None,
            p_better=metric_p_better(name, current, candidate, draws),
        )
        for name in METRIC_ORDER
    )


def _margins(study: Study, current: PlanResult | None, candidate: PlanResult | None) -> tuple[MarginRow, ...]:
    if current is None or candidate is None:
        return ()
    return tuple(
        MarginRow(
            code=limit.code,
            limit=limit.limit,
            unit=limit.unit,
            current_excess=current.margins[limit.code],
            candidate_excess=candidate.margins[limit.code],
        )
        for limit in study_limits(study)
    )


def _memory(current: PlanResult | None, candidate: PlanResult | None) -> dict[str, tuple[float, float]]:
    if current is None or candidate is None:
        return {}
    tables = current.breakdown["memory_bytes"], candidate.breakdown["memory_bytes"]
    return {k: (tables[0].get(k, 0.0), tables[1].get(k, 0.0)) for k in MEMORY_KINDS if k in tables[0] or k in tables[1]}


def _prices(current: PlanResult | None, candidate: PlanResult | None, metric: str) -> tuple[float, float] | None:
    """US dollars per million tokens of both; None where a GPU has no price."""
    if current is None or candidate is None or metric not in current.metrics or metric not in candidate.metrics:
        return None
    return current.metrics[metric], candidate.metrics[metric]


def _assumptions(study: Study, current: Side, candidate: Side | None, switch: SwitchCost | None) -> tuple[str, ...]:
    said = [*study.assumptions, *study.operation_assumptions]
    said += [f"current plan: {text}" for text in current.assumed]
    if candidate is not None:
        said += [f"candidate: {text}" for text in candidate.assumed]
    if switch is not None and study.workload.request_rate_per_s is None:
        said.append(
            f"no request rate given: during the switch arrives what the current plan serves, "
            f"{switch.load_requests_per_s:,.2f} requests/s"
        )
    for name, side in (("current plan", current), ("candidate", candidate)):
        if side is not None and side.result is not None and not side.capacity_keeps_limits:
            said.append(f"{name}: no load keeps its limits; its capacity is what it serves at its own load")
    return tuple(said)
