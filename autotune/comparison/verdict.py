"""Switch, keep or undecided, with the rule that said so and the reason in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from autotune.comparison.values import KEEP, SWITCH, UNDECIDED, ComparedPlan, Verdict
from autotune.metrics import METRICS
from autotune.scoring.objective import time_decides
from autotune.scoring.overload import ENDLESS
from autotune.scoring.pair_words import against, metric_change
from autotune.scoring.value_and_gain import Gain, gpus_ratio
from autotune.study import Study
from autotune.text.numbers import number, probability

NO_GAIN = "no_gain"
"""The rule of a verdict where nothing is gained, so that nothing pays for a switch."""
LIMIT_BROKEN = "limit_broken"
"""The rule of a switch from a plan that breaks a limit."""
SAME_SERVED_FRAC = 0.0005
"""Requests served within the limits that differ by less are as many: the share would be printed as nothing."""


def worst_broken(side: ComparedPlan) -> str:
    """What a plan breaks most, as `tpot_ms (62.1 against 50 ms)`; empty where it keeps everything."""
    if side.rules_broken:
        return side.rules_broken[0]
    if side.result is None or side.result.feasible:
        return ""
    worst = side.result.violations[0]
    if worst.value == inf:
        return f"{worst.code} ({ENDLESS})"
    return f"{worst.code} ({number(worst.value, 4)} against {number(worst.limit, 4)} {worst.unit})"


def out_of_limits_words(broken: str, p_better: float, *, candidate_keeps: bool = True) -> str:
    """Why a switch from a plan that breaks a limit is right; no share of what it is worth, which is next to none.

    `broken`: the limit, in words.
    """
    other = "keeps every limit" if candidate_keeps else "does more within the limits, not everything"
    sure = probability(p_better)
    return f"the current plan breaks {broken}, the candidate {other}; better with probability {sure}"


def duration_words(seconds: float) -> str:
    """Seconds as people say them: `45 s`, `12 min`, `3.4 h`, `5 days`."""
    for limit, unit, size in ((120.0, "s", 1.0), (7200.0, "min", 60.0), (172800.0, "h", 3600.0)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}" if unit != "h" else f"{seconds / size:.1f} h"
    return f"{seconds / 86400.0:,.0f} days"


def verdict(  # noqa: PLR0913  # one for each thing that decides
    study: Study,
    current: ComparedPlan,
    candidate: ComparedPlan | None,
    *,
    same: bool,
    p_better: float,
    gain: Gain | None,
    beyond: Sequence[str] = (),
) -> Verdict:
    """The answer to: should the candidate replace the current plan?

    `beyond`: what of the two was never measured (`autotune.scoring.reach.KINDS`): it is measured before a switch.
    """
    found = _plain(current, candidate, same=same)
    if found is None:
        if candidate is None or gain is None:
            found = _say(SWITCH, "current_cannot_run", f"the current plan cannot be launched ({worst_broken(current)})")
        elif current.keeps:
            found = _by_arithmetic(study, current, candidate, p_better, gain)
        else:
            found = _out_of_limits(study, current, candidate, p_better, gain)
    if found.verdict != SWITCH or not beyond or candidate is None or current.result is None:
        return found
    return _say(UNDECIDED, "not_measured", f"measure both before you switch: {found.reason}")


def _plain(current: ComparedPlan, candidate: ComparedPlan | None, *, same: bool) -> Verdict | None:
    """What needs no arithmetic."""
    if candidate is None:
        return _say(KEEP, "no_candidate", "no plan at all can be launched on these GPUs")
    if same:
        return _say(KEEP, "same_plan", "the candidate is the plan that runs today")
    if candidate.result is None:
        return _say(KEEP, "candidate_cannot_run", f"the candidate cannot be launched: {worst_broken(candidate)}")
    if current.result is None and candidate.keeps:
        reason = f"the current plan cannot be launched ({worst_broken(current)}), the candidate keeps every limit"
        return _say(SWITCH, "current_cannot_run", reason)
    if not candidate.keeps and current.keeps:
        reason = f"the candidate breaks {worst_broken(candidate)}, the current plan keeps every limit"
        return _say(KEEP, "candidate_breaks_limit", reason)
    if not candidate.keeps:
        reason = (
            f"neither keeps every limit: the current plan breaks {worst_broken(current)}, "
            f"the candidate {worst_broken(candidate)}"
        )
        return _say(UNDECIDED, "both_break_limits", reason)
    return None


def _out_of_limits(
    study: Study, current: ComparedPlan, candidate: ComparedPlan, p_better: float, gain: Gain
) -> Verdict:
    broken, policy = worst_broken(current), study.retune
    over = duration_words(policy.horizon_s)
    if gain.net <= 0.0:
        reason = f"the current plan breaks {broken}, but over {over} a switch costs more than it gains"
        return _say(KEEP, "switch_costs_more", reason)
    if p_better < policy.min_p_better:
        reason = (
            f"the current plan breaks {broken} by its estimate, but the candidate is better with a probability of only "
            f"{probability(p_better)} ({policy.min_p_better:.0%} is asked)"
        )
        return _say(UNDECIDED, "not_sure", reason)
    reason = out_of_limits_words(broken, p_better) + _price_of_limits(study, current, candidate)
    return _say(SWITCH, LIMIT_BROKEN, reason)


def _price_of_limits(study: Study, current: ComparedPlan, candidate: ComparedPlan) -> str:
    """What keeping the limits costs in the ranked metric, where it does."""
    if current.result is None or candidate.result is None:
        return ""
    changes = metric_change(METRICS[study.objective.metric], candidate.result, current.result)
    return "".join(f", but {words}" for better, words in changes if not better)


def _by_arithmetic(
    study: Study, current: ComparedPlan, candidate: ComparedPlan, p_better: float, gain: Gain
) -> Verdict:
    policy = study.retune
    over, words = duration_words(policy.horizon_s), _gain_words(study, current, candidate)
    if p_better <= 1.0 - policy.min_p_better or candidate.value_per_s <= current.value_per_s:
        nothing = "nothing that pays for a switch" if p_better >= policy.min_p_better else "nothing"
        reason = f"the candidate gains {nothing}: it {words}; better with probability {probability(p_better)}"
        return _say(KEEP, NO_GAIN, reason)
    if gain.net <= 0.0:
        reason = f"the candidate {words}, which does not pay for the switch within {over}"
        return _say(KEEP, "switch_costs_more", reason)
    if p_better < policy.min_p_better:
        reason = (
            f"measure both: the candidate {words}, and is better with a probability of only {probability(p_better)} "
            f"({policy.min_p_better:.0%} is asked)"
        )
        return _say(UNDECIDED, "not_sure", reason)
    net = 0.0 if gain.net_frac is None else gain.net_frac
    if net < policy.min_gain_frac:
        reason = f"over {over} the switch brings {net:+.1%} net, below the {policy.min_gain_frac:.1%} that is asked"
        return _say(KEEP, "gain_too_small", reason)
    paid = "at once" if gain.payback_s is None else f"after {duration_words(gain.payback_s)}"
    reason = (
        f"the candidate {words}; better with probability {probability(p_better)}; the switch has paid for itself {paid}"
    )
    return _say(SWITCH, "gain", reason)


def _gain_words(study: Study, current: ComparedPlan, candidate: ComparedPlan) -> str:
    """What the candidate wins and loses, and under an open load what it is worth."""
    if current.result is None or candidate.result is None or current.value_per_s <= 0.0:
        return "does what the current plan cannot do"
    worth = candidate.value_per_s / current.value_per_s - 1.0
    if not time_decides(study) or gpus_ratio(study, candidate.result, current.result) != 1.0:
        return against(study, candidate.result, current.result)
    if abs(worth) < SAME_SERVED_FRAC:
        return f"serves as many requests within the limits and {against(study, candidate.result, current.result)}"
    more = "more" if worth >= 0.0 else "fewer"
    chances = f"{probability(candidate.result.p_meets)} against {probability(current.result.p_meets)}"
    return f"serves {abs(worth):.1%} {more} requests within the limits, which it keeps with {chances}"


def _say(what: str, rule: str, reason: str) -> Verdict:
    return Verdict(verdict=what, rule=rule, reason=reason)
