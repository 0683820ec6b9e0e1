"""The answer of a study in one sentence, and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.report.document import baseline_rank, versus
from autotune.report.vocabulary.metrics import METRICS
from autotune.report.vocabulary.titles import LIMITS
from autotune.report.vocabulary.words import asked, count, measure, percent, probability, signed, united
from autotune.scoring.joint_uncertainty import TOLD_APART
from autotune.scoring.limits import JOINT_PROBABILITY
from autotune.scoring.plan_result import relative_excess
from autotune.text.numbers import number, within
from autotune.tuning import PlanResult, TuneResult, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do."""

    kind: str
    """`good`: there is an answer; `open`: it cannot be told apart from what runs; `bad`: nothing fits."""
    badge: str
    headline: str
    lines: tuple[str, ...]


def tune_verdict(result: TuneResult, name: str) -> Verdict:
    """`name`: how the first plan (or the nearest, where none is feasible) is called."""
    if not result.ranked:
        return _nothing(result, name)
    first, baseline, plans = result.ranked[0], result.baseline, count(len(result.ranked), "plan")
    scope = _scope(result)
    if baseline is None:
        text = f"{name} is first of {count(len(result.ranked), 'plan')} that keep every limit."
        return Verdict(kind="good", badge="Best plan", headline=text, lines=("The study names no baseline.", scope))
    if baseline.result is None:
        rules = "; ".join(v.message for v in baseline.resolution.violations)
        return Verdict(
            kind="good",
            badge="Switch",
            headline=f"The plan in production cannot be launched; {name} is the best that can.",
            lines=(rules, scope),
        )
    if not baseline.result.feasible:
        return _baseline_breaks(result, name, baseline.result, scope)
    if first.plan == baseline.result.plan:
        text = f"Keep the plan in production: {name} is first of {plans} that keep every limit."
        return Verdict(kind="good", badge="Keep", headline=text, lines=(*_knobs(first, baseline.result), scope))
    return _against(result, name, baseline.result, scope)


def _against(result: TuneResult, name: str, base: PlanResult, scope: str) -> Verdict:
    first, metric = result.ranked[0], METRICS[result.study.objective.metric]
    change = versus(first, base).get(f"{metric.name}_frac")
    p = result.confidence[first.plan].p_better_than_baseline
    gain = f"{signed(change)} {within(metric.title)}"
    if result.study.workload.request_rate_per_s is not None and result.study.objective.direction == "maximize":
        outputs = max(result.study.workload.osl.mean - 1.0, 0.0)
        took = [x.metrics["ttft_s"] + outputs * x.metrics["tpot_s"] for x in (base, first)]
        gain = f"{signed(took[1] / took[0] - 1.0)} time a request takes, at the same load"
    rank = baseline_rank(result.baseline, result) if result.baseline is not None else None
    place = f"The plan in production is rank {rank} of {len(result.ranked):,}." if rank else ""
    if p is not None and p >= TOLD_APART:
        text = f"Switch to {name}: {gain}."
        said = f"{probability(p)} likely to be better than the plan in production, model uncertainty included."
        return Verdict(kind="good", badge="Switch", headline=text, lines=(f"{said} {place}".strip(), scope))
    if rank == 1:  # it is none of the ranked plans: of another engine, or outside of what was sampled
        plans = count(len(result.ranked), "plan")
        text = f"Keep the plan in production: none of the {plans} that keep every limit is before it."
        said = f"The first of them, {name}: {gain}, better with probability {'–' if p is None else probability(p)}."
        return Verdict(kind="good", badge="Keep", headline=text, lines=(said, scope))
    text = f"{name} is ahead of the plan in production by {gain}, but not surely."
    said = f"P(better) is {probability(p)}; below {percent(TOLD_APART)} the two cannot be told apart. Measure both."
    return Verdict(kind="open", badge="Undecided", headline=text, lines=(f"{said} {place}".strip(), scope))


def _baseline_breaks(result: TuneResult, name: str, base: PlanResult, scope: str) -> Verdict:
    metric = METRICS[result.study.objective.metric]
    change = versus(result.ranked[0], base).get(f"{metric.name}_frac")
    given = [v for v in base.violations if v.code != JOINT_PROBABILITY] or list(base.violations)
    against = f"{metric.title} of {name} against it: {signed(change)}."
    return Verdict(
        kind="good",
        badge="Switch",
        headline=f"{name} keeps every limit; the plan in production does not.",
        lines=(
            f"In production: {'; '.join(broken(v) for v in given)}.",
            f"{against} It is first among the plans that keep every limit.",
            scope,
        ),
    )


def _nothing(result: TuneResult, name: str) -> Verdict:
    if not result.infeasible:
        return Verdict(kind="bad", badge="No plan", headline="No valid plan was scored.", lines=(_scope(result),))
    nearest = result.infeasible[0]
    given = [v for v in nearest.violations if v.code != JOINT_PROBABILITY] or list(nearest.violations)
    return Verdict(
        kind="bad",
        badge="No plan fits",
        headline="No plan keeps every limit.",
        lines=(
            f"The nearest is {name}: {'; '.join(broken(v) for v in given)}.",
            f"To make it feasible: {'; '.join(_remedy(v) for v in given)}.",
            _scope(result),
        ),
    )


def _remedy(violation: Violation) -> str:
    """`raise ttft_ms from 50 to 4,457 ms`: the field of the study, and what it would have to say."""
    verb = "lower" if violation.value < violation.limit else "raise"
    return f"{verb} {violation.code} from {number(violation.limit, 6)} to {number(violation.value, 4)} {violation.unit}"


def broken(violation: Violation) -> str:
    """`TTFT at the longest prompt 4,294 ms against 50 ms, over by 8,488%`."""
    side = "short" if violation.value < violation.limit else "over"
    return (
        f"{LIMITS[violation.code]} {measure(violation.value, violation.unit)} against "
        f"{united(asked(violation.limit, violation.unit), violation.unit)}, {side} by {relative_excess(violation):,.0%}"
    )


def _knobs(first: PlanResult, base: PlanResult) -> tuple[str, ...]:
    if first.knobs == base.knobs:
        return ()
    mine, theirs = first.knobs, base.knobs
    text = (
        f"With {mine.concurrency:,} requests in flight and chunks of {mine.max_num_batched_tokens:,} tokens; in "
        f"production: {theirs.concurrency:,} and {theirs.max_num_batched_tokens:,}."
    )
    return (text,)


def _scope(result: TuneResult) -> str:
    space = result.space
    scored = len(result.ranked) + len(result.infeasible)
    text = f"{space.enumerated:,} layouts enumerated, {len(space.candidates):,} valid"
    if result.complete:
        return f"{text}, all scored; {len(result.ranked):,} keep every limit."
    return f"{text}, {scored:,} sampled and scored: a better one may exist. {len(result.ranked):,} keep every limit."
