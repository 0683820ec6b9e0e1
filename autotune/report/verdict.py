"""The answer of a study in one sentence, and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotune.metrics import METRICS
from autotune.report.document import baseline_place, baseline_rank
from autotune.report.reach import idle_gpus, reach_line
from autotune.report.vocabulary.plan_names import subject_name
from autotune.report.vocabulary.titles import LIMITS, broken
from autotune.report.vocabulary.words import count, percent
from autotune.scoring.limits import JOINT_PROBABILITY, LOAD_SERVED, SERVED_WITHIN
from autotune.scoring.objective import plan_figure
from autotune.scoring.pair_words import against, other_settings
from autotune.scoring.reach import unmeasured
from autotune.scoring.value_and_gain import hard_limits_kept, ratio_of, value_per_s
from autotune.text.numbers import number, probability, within
from autotune.tuning import PlanResult, TuneResult
from autotune.tuning.remedy import MOST_PLANS, SLACK, Remedy, find_remedy

STAGE_RATE = "min_stage_tokens_per_s_per_gpu"
SECONDS, FEW_MS = ("ttft_ms", "e2e_ms"), 60.0
"""Limits that people think of in seconds, and up to which figure seconds may have been meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do."""

    kind: str
    """`good`: there is an answer; `open`: it has to be measured first; `bad`: nothing fits."""
    badge: str
    """One of `Best plan`, `Switch`, `Keep`, `Measure first`, `No plan fits`, `No plan`."""
    headline: str
    """What to do, in one sentence."""
    lines: tuple[str, ...]
    """What it wins and what it loses, and what else decides."""
    scope: str = ""
    """How many plans were looked at."""
    place: str = ""
    """The rank of the plan in production, or that the study names none, as a sentence; empty: it is said above."""
    reach: str = ""
    """What of the plans was never measured."""
    settings: tuple[str, ...] = ()
    """Values of `--set` with which there is a plan, where none fits."""


def tune_verdict(result: TuneResult, name: str) -> Verdict:
    """`name`: how the first plan (or the nearest, where none is feasible) is called."""
    if not result.ranked:
        return _nothing(result, name)
    first, baseline = result.ranked[0], result.baseline
    base = None if baseline is None else baseline.result
    if baseline is None:
        return _unopposed(result, name)
    if base is None:
        rules = "; ".join(v.message for v in baseline.resolution.violations)
        said = f"It is the best of {_plans(result)}; the plan in production cannot be launched: {rules}."
        return _towards(result, name, "Switch", said)
    settings = other_settings(result.study, first, base)
    called = f"{name} with {settings}" if settings else name
    if not base.feasible:
        return _baseline_breaks(result, called, base)
    now, then = (value_per_s(result.study, plan, base) for plan in (base, first))
    if first.plan == base.plan and not (settings and ratio_of(then, now) - 1.0 >= result.study.retune.min_gain_frac):
        more = (f"With {settings} it would gain too little for a switch.",) if settings else ()
        text, said = f"{_lead(result)}Keep the plan in production, {name}.", f"It is first of {_plans(result)}."
        return _say(result, "good", "Keep", text, said, *more)
    return _against(result, called, base)


def _say(result: TuneResult, kind: str, badge: str, text: str, *lines: str, place: str = "") -> Verdict:
    first = next(iter(result.ranked or result.infeasible), None)
    base = None if result.baseline is None else result.baseline.result
    return Verdict(
        kind=kind,
        badge=badge,
        headline=text,
        lines=lines,
        scope=_scope(result),
        place=place,
        reach=reach_line(result.study, first, base, called="the first plan" if result.ranked else "the nearest plan"),
    )


def beyond_reach(result: TuneResult) -> bool:
    """Whether the first plan or the plan in production is of a kind that was never measured."""
    base = None if result.baseline is None else result.baseline.result
    plans = (*result.ranked[:1], *(() if base is None else (base,)))
    return any(unmeasured(result.study, plan) for plan in plans)


def _lead(result: TuneResult) -> str:
    """How many GPUs are needed, where that is the question."""
    if result.study.objective.metric != "gpus":
        return ""
    return f"{count(round(result.ranked[0].metrics['gpus']), 'GPU is', 'GPUs are')} enough. "


def _towards(result: TuneResult, name: str, badge: str, *lines: str, place: str = "") -> Verdict:
    """An answer that asks for a plan: to be measured first where it or what it is held against was never measured."""
    lead, idle = _lead(result), idle_gpus(result.study, result.ranked[0])
    lines = (*lines, idle) if idle else lines
    if beyond_reach(result):
        does = "switch" if badge == "Switch" else "commit"
        text = f"{lead}Measure before you {does} to {name}."
        return _say(result, "open", "Measure first", text, *lines, place=place)
    text = f"{lead}Switch to {name}." if badge == "Switch" else f"{lead}{name} is the best plan."
    return _say(result, "good", badge, text, *lines, place=place)


def _unopposed(result: TuneResult, name: str) -> Verdict:
    first, metric = result.ranked[0], METRICS[result.study.objective.metric]
    value = f"{metric.text(plan_figure(first, metric.name))} {metric.unit}"
    said = f"First of {_plans(result)}: {within(metric.title)} {value}."
    return _towards(result, name, "Best plan", said, place="The study names no baseline.")


def _against(result: TuneResult, name: str, base: PlanResult) -> Verdict:
    first = result.ranked[0]
    p = result.confidence[first.plan].p_better_than_baseline
    words = against(result.study, first, base)
    alike = first.plan == base.plan
    rank = baseline_rank(result.baseline, result) if result.baseline is not None and not alike else None
    if rank == 1:  # it is none of the ranked plans: of another engine, or outside of what was sampled
        text = f"Keep the plan in production: none of {_plans(result)} is before it."
        return _say(result, "good", "Keep", text, f"The first of them, {name}, {words}.")
    place = (
        "The plan in production has its layout."
        if alike
        else ""
        if result.baseline is None
        else f"The plan in production is {baseline_place(result.baseline, result)}."
    )
    least = result.study.retune.min_p_better
    sure = "" if p is None else f"better with probability {probability(p)}"
    now, then = (value_per_s(result.study, plan, base) for plan in (base, first))
    if then <= now:
        text, said = "Keep the plan in production: a switch gains nothing.", f"{name} {words}; {sure}."
        return _say(result, "good", "Keep", text, said, place=place)
    if p is not None and p < least:
        text = f"Measure both, {name} and the plan in production: neither is surely better."
        said = f"The first {words}; {sure}, and {percent(least)} would be sure."
        return _say(result, "open", "Measure first", text, said, place=place)
    if ratio_of(then, now) - 1.0 < result.study.retune.min_gain_frac:
        text, said = "Keep the plan in production: a switch gains too little.", f"{name} {words}; {sure}."
        return _say(result, "good", "Keep", text, said, place=place)
    if beyond_reach(result):
        sure = f"{sure} at most" if sure else "how sure is not known"
    return _towards(result, name, "Switch", f"It {words}; {sure}.", place=place)


def _baseline_breaks(result: TuneResult, name: str, base: PlanResult) -> Verdict:
    given = [v for v in base.violations if v.code != JOINT_PROBABILITY] or list(base.violations)
    words = against(result.study, result.ranked[0], base, chances=False)
    said = f"It keeps every limit and {words}. Broken now: {'; '.join(broken(v) for v in given)}."
    first = result.ranked[0]
    fewer = first.metrics["total_tokens_per_s"] < base.metrics["total_tokens_per_s"]
    if fewer and any(v.code == STAGE_RATE for v in given):
        said += (
            " Every token passes every stage, so that this limit is kept by cutting the model into "
            f"{count(first.layout.pp, 'stage')} as well as by serving more."
        )
    return _towards(result, name, "Switch", said)


def _nothing(result: TuneResult, name: str) -> Verdict:
    if not result.infeasible:
        return _say(result, "bad", "No plan", "No valid plan was scored.")
    found = find_remedy(result)
    if found.too_large is not None:
        said = _say(result, "bad", "No plan fits", f"No plan fits: {found.too_large}", *remedy_lines(found))
        more = found.fewest_gpus
        return replace(said, settings=() if more is None else (f"cluster.gpus={more}",))
    nearest = result.infeasible[0]
    given = [v for v in nearest.violations if v.code != JOINT_PROBABILITY] or list(nearest.violations)
    near = f"The nearest is {name}: {'; '.join(broken(v) for v in given)}."
    seconds = [v for v in given if v.code in SECONDS and v.limit <= FEW_MS < v.value]
    near += f" Limits are in ms: {number(seconds[0].limit)} s are {seconds[0].limit * 1e3:,.0f}." if seconds else ""
    other = None if found.plan is None or found.plan.plan == nearest.plan else found.plan
    taken = "" if other is None else subject_name(result, other)
    said = _say(result, "bad", "No plan fits", _none_keeps(result), near, *remedy_lines(found, taken))
    return replace(said, settings=found.settings)


def _none_keeps(result: TuneResult) -> str:
    """What no plan does, as a sentence: under goodput no request may be within the limits, whichever plan serves it."""
    fitting = [plan for plan in result.infeasible if hard_limits_kept(plan)]
    able = [plan for plan in fitting if all(v.code != LOAD_SERVED for v in plan.violations)]
    if not able or any(all(v.code != SERVED_WITHIN for v in plan.violations) for plan in able):
        return "No plan keeps every limit."
    which = "" if len(able) == len(fitting) else " that takes the load"
    return f"No plan{which} serves a request within the limits."


def remedy_lines(found: Remedy, name: str = "") -> tuple[str, ...]:
    """What would have to give, and how many GPUs hold the model, as sentences.

    `name`: how the plan is called that then keeps every limit, where it is not the one before.
    """
    if found.settings:
        then = f", with which {name} keeps every limit" if name else ""
        return (f"What would have to give: --set {' --set '.join(found.settings)}{then}",)
    if found.fewest_gpus is not None:
        return (f"The fewest of these GPUs that hold it: --set cluster.gpus={found.fewest_gpus}",)
    tried = f"No looser limits were found that one of the nearest {MOST_PLANS} plans keeps"
    return (f"{tried}, up to {SLACK[-1]:g} times what it does: change the model, the GPUs or the load.",)


def _plans(result: TuneResult) -> str:
    return f"{count(len(result.ranked), 'plan')} that {'keeps' if len(result.ranked) == 1 else 'keep'} every limit"


def sampling_errors(result: TuneResult) -> str:
    """What sampling a log leaves open of the first plan's figures: the end of a sentence on the sample, or nothing."""
    plan = next(iter(result.ranked or result.infeasible), None)
    shown = {} if plan is None else plan.breakdown.get("simulated", {})
    errors = [
        f"{LIMITS[code]} ± {number(row['sampling_error'], 2)}{' ms' if code.endswith('_ms') else ''}"
        for code, row in shown.items()
        if "sampling_error" in row
    ]
    return f"; sampling error of the first plan (80 %): {', '.join(errors)}" if errors else ""


def sampled(result: TuneResult) -> bool:
    """Whether not every plan was scored, or not every request of a log simulated."""
    return not result.complete or (result.by_percentile is not None and bool(result.by_percentile.sampled))


def _scope(result: TuneResult) -> str:
    space = result.space
    scored = len(result.ranked) + len(result.infeasible)
    found = [f"{len(space.candidates):,} valid of {space.enumerated:,} layouts"] if space.enumerated else []
    found += [] if result.pools is None else [f"{result.pools.plans:,} pairs of pools covered"]
    kept = f"{result.kept_count:,} keep every limit"
    if result.by_percentile is not None:
        seen = result.by_percentile
        kept += f"; {seen.simulated:,} simulated"
        kept += f", {len(seen.left):,} could at best come behind the first {len(seen.ranked):,}" if seen.left else ""
        kept += f", by {seen.sampled}{sampling_errors(result)}" if seen.sampled else ""
    if result.complete:
        return f"{', '.join(found)}, all scored; {kept}."
    return f"{', '.join(found)}, {scored:,} sampled and scored: a better one may exist. {kept}."
