"""A verdict per parallel axis: the best plan with that axis at each value, all else free, by what ranks plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.engines import RULES
from autotune.evaluation.conclusion import CLOSE_FRAC
from autotune.evaluation.values import (
    ACCEPTABLE,
    HARMFUL,
    INFEASIBLE,
    OPTIMAL,
    Alternative,
    AxisVerdict,
)
from autotune.scoring.gpu_time import OPERATORS, gpu_s_per_request, operator_words
from autotune.scoring.joint_uncertainty import TOLD_APART, confidence
from autotune.scoring.objective import plan_expected
from autotune.space import Candidate, rejected_by_value, short_plan
from autotune.study import Study
from autotune.text.numbers import number, within
from autotune.tuning import PlanResult, TuneResult

AXES = {"EP": "moe_ep", "PP": "pp", "TP": "attn_tp", "DP": "replicas", "attention-DP": "attn_dp"}
"""Name of an axis -> field of a layout."""
THROUGHPUT = "total_tokens_per_s_per_gpu"
LATENCIES = ("ttft_longest_s", "tpot_s")
"""The metrics of which every one must be worse for a value to do harm."""
COSTS = {"EP": "ep_exchange", "PP": "pp_send", "TP": "tp_all_reduce"}
"""Axis -> the operators that it costs each decode step."""
NEGLIGIBLE_S = 1e-6
APART_P = 0.05
"""Probabilities of keeping the limits that differ by more than this are said."""


def strategy(
    study: Study, candidate: Candidate, result: PlanResult | None, tuned: TuneResult
) -> tuple[AxisVerdict, ...]:
    """Verdicts on all axes that the model has: without experts there is no EP and no attention-DP."""
    axes = AXES if study.arch.is_moe else {"PP": "pp", "TP": "attn_tp", "DP": "replicas"}
    return tuple(_verdict(study, axis, field, candidate, result, tuned) for axis, field in axes.items())


def _verdict(
    study: Study, axis: str, field: str, candidate: Candidate, result: PlanResult | None, tuned: TuneResult
) -> AxisVerdict:
    value = int(getattr(candidate.layout, field))
    ranked = [p for p in tuned.ranked if p.pools is None]
    firsts: dict[int, PlanResult] = {}
    for plan in ranked:
        firsts.setdefault(int(getattr(plan.layout, field)), plan)
    rules = rejected_by_value(
        study.arch, gpus=study.cluster.gpus, engine=study.engine, axis=field, attn_cp=study.search.attn_cp
    )
    best = ranked[0] if ranked else None
    others = sorted((rules.keys() | firsts.keys()) - {value})
    alternatives = tuple(_alternative(study, axis, field, v, firsts.get(v), best, rules, tuned) for v in others)
    mine, best_value = firsts.get(value), None if best is None else int(getattr(best.layout, field))
    if best is None or mine is None:
        reason = f"no plan with {axis}{value} keeps every limit: {_why_none(value, field, rules, tuned)}"
        if best is not None:
            reason += f"; {axis}{best_value} does ({short_plan(best.layout)})"
        return AxisVerdict(
            axis=axis,
            value=value,
            verdict=INFEASIBLE,
            loss_frac=None,
            reason=reason,
            best_value=best_value,
            alternatives=alternatives,
        )
    loss = _loss(study, mine, best)
    sure = 0.0 if mine is best else confidence(study, [best, mine], None)[mine.plan].p_best_is_better
    harm = [p for v, p in firsts.items() if v != value and _better_on_all(study, p, mine)]
    as_good = loss <= CLOSE_FRAC or sure < TOLD_APART
    verdict = OPTIMAL if as_good else HARMFUL if harm else ACCEPTABLE
    return AxisVerdict(
        axis=axis,
        value=value,
        verdict=verdict,
        loss_frac=loss,
        reason=_reason(study, axis, value, verdict, field, mine, best, result, sure=sure, loss=loss, harm=harm),
        best_value=best_value,
        alternatives=alternatives,
    )


def _reason(
    study: Study,
    axis: str,
    value: int,
    verdict: str,
    field: str,
    mine: PlanResult,
    best: PlanResult,
    result: PlanResult | None,
    *,
    sure: float,
    loss: float,
    harm: Sequence[PlanResult],
) -> str:
    cost = _cost(axis, value, mine if result is None else result)
    if mine is best:
        found = f"the best plan of all has {axis}{value}"
    elif verdict == OPTIMAL and loss > CLOSE_FRAC:
        found = (
            f"the best plan with {axis}{value} ({short_plan(mine.layout)}) loses {loss:.1%}, which cannot be "
            f"told apart from the best ({axis}{getattr(best.layout, field)}, better with probability {sure:.0%}, "
            f"{TOLD_APART:.0%} would be sure{_less_sure(study, mine, best)})"
        )
    elif verdict == OPTIMAL:
        found = f"the best plan with {axis}{value} is within {CLOSE_FRAC:.0%} of the best"
    else:
        other = harm[0] if verdict == HARMFUL else best
        gain = _loss(study, mine, other)
        more = f", which is better on {_alike(study)} alike" if verdict == HARMFUL else ""
        found = (
            f"the best plan with {axis}{value} ({short_plan(mine.layout)}) loses {gain:.1%} against "
            f"{axis}{getattr(other.layout, field)}{more} ({short_plan(other.layout)}: {_difference(mine, other)}"
            f"{_less_sure(study, mine, other)})"
        )
    return f"{found}; {cost}" if cost else found


def _cost(axis: str, value: int, plan: PlanResult) -> str:
    """What the axis costs each decode step of a plan."""
    if axis == "DP":
        return f"{value} replicas hold the weights {value} times and exchange nothing" if value > 1 else ""
    if axis == "attention-DP":
        gathered = plan.breakdown["decode_s"].get("ep_exchange", 0.0) if plan.layout.moe_ep == 1 else 0.0
        adds = f", and gather tokens for the experts in {gathered * 1e3:.2f} ms of each decode step"
        more = adds if gathered > NEGLIGIBLE_S else ""
        return f"{value} groups each hold the cache of their own requests{more}" if value > 1 else ""
    seconds = plan.breakdown["decode_s"].get(COSTS[axis], 0.0)
    if value == 1 or seconds < NEGLIGIBLE_S:
        return ""
    return f"{axis}{value} adds {seconds * 1e3:.2f} ms of {within(OPERATORS[COSTS[axis]])} to each decode step"


def _less_sure(study: Study, mine: PlanResult, other: PlanResult) -> str:
    """Where a good part of the loss is that the limits are kept less surely, say so."""
    if study.objective.direction == "minimize" or abs(mine.p_meets - other.p_meets) <= APART_P:
        return ""
    return f"; keeps the limits with probability {mine.p_meets:.0%} against {other.p_meets:.0%}"


def _difference(mine: PlanResult, other: PlanResult) -> str:
    """The operator whose share of a request's GPU time differs most."""
    before, after = gpu_s_per_request(mine), gpu_s_per_request(other)
    whole = sum(before.values())
    key = max(before.keys() | after.keys(), key=lambda k: abs(after.get(k, 0.0) - before.get(k, 0.0)))
    change = (after.get(key, 0.0) - before.get(key, 0.0)) / whole
    return f"{operator_words(key[1], key[0])} {change:+.0%} of a request's GPU time".replace("-", "−", 1)


def _alternative(
    study: Study,
    axis: str,
    field: str,
    value: int,
    plan: PlanResult | None,
    best: PlanResult | None,
    rules: Mapping[int, Mapping[str, int]],
    tuned: TuneResult,
) -> Alternative:
    if plan is None or best is None:
        return Alternative(
            value=value, plan=None, objective=None, loss_frac=None, reason=_why_none(value, field, rules, tuned)
        )
    cost = _cost(axis, value, plan)
    return Alternative(
        value=value,
        plan=plan.plan,
        objective=plan_expected(study, plan),
        loss_frac=_loss(study, plan, best),
        reason=cost,
    )


def _why_none(value: int, field: str, rules: Mapping[int, Mapping[str, int]], tuned: TuneResult) -> str:
    """The limit that the nearest plan with the value breaks, or the rule that forbids most of them."""
    for plan in tuned.infeasible:
        if plan.pools is None and getattr(plan.layout, field) == value:
            worst = plan.violations[0]
            return (
                f"the nearest ({short_plan(plan.layout)}) breaks {worst.code}: "
                f"{number(worst.value, 4)} against {number(worst.limit, 4)} {worst.unit}"
            )
    counts = rules.get(value, {})
    if not counts:
        return "it does not divide the GPUs"
    rule = max(counts, key=lambda name: counts[name])
    text = next(r.text for r in RULES if r.name == rule)
    return f"forbidden by {rule} ({text})"


def _loss(study: Study, plan: PlanResult, best: PlanResult) -> float:
    mine, top = plan_expected(study, plan), plan_expected(study, best)
    if study.objective.direction == "minimize":
        return max(mine / top - 1.0, 0.0) if top > 0.0 else 0.0
    return max(1.0 - mine / top, 0.0) if top > 0.0 else 0.0


def _better_on_all(study: Study, plan: PlanResult, other: PlanResult) -> bool:
    """At a given arrival rate every plan that keeps up has the same throughput: there latency alone decides."""
    mine, theirs = plan.metrics, other.metrics
    quicker = all(mine[name] < theirs[name] for name in LATENCIES)
    return quicker and (study.workload.request_rate_per_s is not None or mine[THROUGHPUT] > theirs[THROUGHPUT])


def _alike(study: Study) -> str:
    return "TTFT and TPOT" if study.workload.request_rate_per_s is not None else "throughput, TTFT and TPOT"
