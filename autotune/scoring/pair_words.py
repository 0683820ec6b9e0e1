"""What one plan wins and loses against another, in words."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.metrics import GOODPUT, METRICS, Metric
from autotune.scoring.objective import plan_figure, time_breaks_ties, time_decides
from autotune.scoring.overload import overload_of
from autotune.scoring.plan_result import PlanResult
from autotune.study import Study
from autotune.text.numbers import number, probability, within
from costmodel.arch import checkpoint_dtype

SAME_FRAC = 0.005
"""Differences below this are none."""
SAME_CHANCE = 0.02
"""The same of probabilities."""


def against(study: Study, plan: PlanResult, other: PlanResult, *, chances: bool = True) -> str:
    """`serves 65% more output tokens and keeps the limits with 88% against 76%`: what is won, then what is lost.

    `chances`: whether the probabilities to keep the limits are named.
    """
    won: list[str] = []
    lost: list[str] = []
    chance = plan.p_meets - other.p_meets
    kept = f"keeps the limits with {probability(plan.p_meets)} against {probability(other.p_meets)}"
    figures = _figures(study, plan, other)
    for better, words in (*figures, *([(chance > 0.0, kept)] if chances and abs(chance) >= SAME_CHANCE else [])):
        (won if better else lost).append(words)
    if not won and not lost:
        return "is as good by its figures"
    if won and lost:
        return f"{_and(won)}, but {_and(lost)}"
    return _and(won or lost)


def other_settings(study: Study, plan: PlanResult, reference: PlanResult) -> str:
    """What tells a plan from another of the same layout, `weights in fp8 and chunks of 2,048 tokens`; empty: nothing
    does, or they are two layouts. How many are in flight is said where no load says it.
    """
    if plan.plan != reference.plan:
        return ""
    mine, theirs, arch, work = plan.knobs, reference.knobs, study.arch, study.workload
    own, other = ((k.weight_dtype or checkpoint_dtype(arch), k.kv_dtype or arch.kv_dtype) for k in (mine, theirs))
    free = work.concurrency is None and work.request_rate_per_s is None
    said = (
        (own[0] != other[0], f"weights in {own[0]}"),
        (own[1] != other[1], f"a KV cache in {own[1]}"),
        (
            mine.max_num_batched_tokens != theirs.max_num_batched_tokens,
            f"chunks of {mine.max_num_batched_tokens:,} tokens",
        ),
        (free and mine.concurrency != theirs.concurrency, f"{mine.concurrency:,} requests in flight"),
    )
    *first, last = [words for differs, words in said if differs] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def change_words(metric: Metric, share: float) -> str:
    """`serves 65% more output tokens`, `needs 12% less TPOT`: a relative change of a metric as a sentence's verb."""
    size = f"{abs(share):.0%}" if abs(share) < 10.0 else f"{abs(share) + (1.0 if share > 0.0 else 0.0):,.0f} times"
    more = "more" if share > 0.0 else "less"
    if metric.priced:
        return f"costs {size} {more}"
    if metric.better == "minimize":
        return f"has {size} {'longer' if share > 0.0 else 'shorter'} {within(metric.title)}"
    return f"serves {size} {more if share > 0.0 else 'fewer'} {_served(metric)}"


def _served(metric: Metric) -> str:
    if metric.name == GOODPUT:
        return "requests within the limits"
    if metric.name == "requests_per_s":
        return "requests"
    return "output tokens" if metric.name.startswith("output") else "tokens"


def _figures(study: Study, plan: PlanResult, other: PlanResult) -> list[tuple[bool, str]]:
    """(whether it is better, in words) of the ranked metric; at a given rate, of its GPUs and the time of a request.

    Goodput differs at a given rate too; where it does not, it is the same there.
    """
    metric = METRICS[study.objective.metric]
    changes = [] if time_decides(study) else metric_change(metric, plan, other)
    if time_breaks_ties(study) and not changes:
        if any(overload_of(p.breakdown) is not None for p in (plan, other)):
            return metric_change(METRICS["requests_per_s"], plan, other)
        share = plan.metrics["e2e_s"] / other.metrics["e2e_s"] - 1.0
        longer = "more" if share > 0.0 else "less"
        words = f"takes {abs(share):.0%} {longer} time for a request at the same load"
        slower = [(share < 0.0, words)] if abs(share) >= SAME_FRAC else []
        return [*metric_change(METRICS["gpus"], plan, other), *slower]
    return changes


def metric_change(metric: Metric, plan: PlanResult, other: PlanResult) -> list[tuple[bool, str]]:
    """(whether it is better, in words) of one metric; empty where it differs by less than `SAME_FRAC`."""
    before, now = (plan_figure(p, metric.name) * metric.factor for p in (other, plan))
    if not before:
        first = f"serves {number(now)} {metric.unit} within the limits instead of none"
        return [(True, first)] if metric.name == GOODPUT and now else []
    share = now / before - 1.0
    better = (share > 0.0) == (metric.better == "maximize")
    if metric.name == "gpus":
        return [(better, f"needs {now:,.0f} GPU{'' if now == 1.0 else 's'} instead of {before:,.0f}")] if share else []
    return [(better, change_words(metric, share))] if abs(share) >= SAME_FRAC else []


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)
