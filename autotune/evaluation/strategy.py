"""A verdict per parallel axis: the best plan with that axis at each value, all else free, by what ranks plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.engines import rule_texts
from autotune.evaluation.values import (
    ACCEPTABLE,
    HARMFUL,
    INFEASIBLE,
    OPTIMAL,
    UNDECIDED,
    Alternative,
    AxisVerdict,
)
from autotune.metrics import PER_GPU
from autotune.scoring.gpu_time import OPERATORS, gpu_s_per_request, operator_words
from autotune.scoring.joint_uncertainty import TOLD_APART, confidence
from autotune.scoring.limits import LIMITS
from autotune.scoring.objective import CLOSE_FRAC, behind, plan_expected
from autotune.space import Candidate, rejected_by_value, short_plan
from autotune.study import Study
from autotune.text.numbers import number, within
from autotune.tuning import PlanResult, TuneResult

AXES = {"EP": "moe_ep", "PP": "pp", "TP": "attn_tp", "R": "replicas", "attention-DP": "attn_dp"}
"""Name of an axis -> field of a layout."""
COSTS = {"EP": "ep_exchange", "PP": "pp_send", "TP": "tp_all_reduce"}
"""Axis -> the operators that it costs each decode step."""
NEGLIGIBLE_S = 1e-6
APART_P = 0.05
"""Probabilities of keeping the limits that differ by more than this are said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """One parallel axis of a study's plans of one kind of replica."""

    study: Study
    name: str
    field: str
    """Of a layout."""
    best: PlanResult | None
    firsts: Mapping[int, PlanResult]
    """Value -> the first plan with it that keeps every limit."""
    infeasible: Sequence[PlanResult]
    """Nearest first."""
    rules: Mapping[int, Mapping[str, int]]
    """Value -> rule -> plans with the value that the rule forbids."""

    @classmethod
    def of(cls, study: Study, tuned: TuneResult, name: str, field: str) -> _Axis:
        ranked, infeasible = ([p for p in plans if p.pools is None] for plans in (tuned.ranked, tuned.infeasible))
        firsts: dict[int, PlanResult] = {}
        for plan in ranked:
            firsts.setdefault(int(getattr(plan.layout, field)), plan)
        return cls(
            study=study,
            name=name,
            field=field,
            best=ranked[0] if ranked else None,
            firsts=firsts,
            infeasible=infeasible,
            rules=rejected_by_value(
                study.arch,
                gpus=study.cluster.gpus,
                engine=study.engine,
                axis=field,
                search=study.search,
                version=study.engine_version,
                drafts=study.axes.speculative is not None,
            ),
        )

    def value(self, plan: PlanResult | Candidate) -> int:
        """What a plan has of the axis."""
        return int(getattr(plan.layout, self.field))

    def words(self, plan: PlanResult) -> str:
        """`EP16`."""
        return f"{self.name}{self.value(plan)}"


def strategy(
    study: Study, candidate: Candidate, result: PlanResult | None, tuned: TuneResult
) -> tuple[AxisVerdict, ...]:
    """Verdicts on all axes that the model has: without experts there is no EP and no attention-DP."""
    axes = AXES if study.arch.is_moe else {"PP": "pp", "TP": "attn_tp", "R": "replicas"}
    return tuple(_verdict(_Axis.of(study, tuned, *named), candidate, result) for named in axes.items())


def _verdict(axis: _Axis, candidate: Candidate, result: PlanResult | None) -> AxisVerdict:
    value, best = axis.value(candidate), axis.best
    own = axis.firsts.get(value)
    if best is None or own is None:
        verdict, loss = INFEASIBLE, None
        reason = f"no plan with {axis.name}{value} keeps every limit: {_why_none(axis, value)}"
        if best is not None:
            reason += f"; {axis.words(best)} does ({short_plan(best.layout)})"
    else:
        verdict, loss, found = _against_the_best(axis, own, best)
        cost = _cost(axis.name, value, result or own)
        reason = f"{found}; {cost}" if cost else found
    others = sorted((axis.rules.keys() | axis.firsts.keys()) - {value})
    return AxisVerdict(
        axis=axis.name,
        value=value,
        verdict=verdict,
        loss_frac=loss,
        reason=reason,
        best_value=None if best is None else axis.value(best),
        alternatives=tuple(_alternative(axis, other) for other in others),
    )


def _against_the_best(axis: _Axis, own: PlanResult, best: PlanResult) -> tuple[str, float, str]:
    """Verdict on a value by the best plan with it, what that loses against the best of all, and why."""
    study, with_value = axis.study, f"the best plan with {axis.words(own)}"
    loss = _loss(study, own, best)
    if own is best:
        return OPTIMAL, loss, f"the best plan of all has {axis.words(own)}"
    if loss <= CLOSE_FRAC:
        return OPTIMAL, loss, f"{with_value} is within {CLOSE_FRAC:.0%} of the best"
    loses = f"{with_value} ({short_plan(own.layout)}) loses"
    p_best = confidence(study, [best, own], None)[own.plan].p_best_is_better
    if p_best < TOLD_APART:
        apart = f"better with probability {p_best:.0%}, {TOLD_APART:.0%} would be sure{_less_sure(study, own, best)}"
        from_best = f"cannot be told apart from the best ({axis.words(best)}, {apart})"
        return UNDECIDED, loss, f"{loses} {_loss_words(study, own, best)}, which {from_best}"
    harm = next((p for p in axis.firsts.values() if p is not own and _better_on_all(study, p, own)), None)
    other, alike = (best, "") if harm is None else (harm, f", which is better on {_alike(study)} alike")
    why = f"{short_plan(other.layout)}: {_difference(own, other)}{_less_sure(study, own, other)}"
    against = f"{loses} {_loss_words(study, own, other)} against {axis.words(other)}{alike} ({why})"
    return ACCEPTABLE if harm is None else HARMFUL, loss, against


def _cost(axis: str, value: int, plan: PlanResult) -> str:
    """What the axis costs each decode step of a plan."""
    if axis == "R":
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


def _less_sure(study: Study, own: PlanResult, other: PlanResult) -> str:
    """Where a good part of the loss is that the limits are kept less surely, say so."""
    if study.objective.direction == "minimize" or abs(own.p_meets - other.p_meets) <= APART_P:
        return ""
    return f"; keeps the limits with probability {own.p_meets:.0%} against {other.p_meets:.0%}"


def _difference(own: PlanResult, other: PlanResult) -> str:
    """The operator whose share of a request's GPU time differs most."""
    before, after = gpu_s_per_request(own), gpu_s_per_request(other)
    whole = sum(before.values())
    key = max(before.keys() | after.keys(), key=lambda k: abs(after.get(k, 0.0) - before.get(k, 0.0)))
    change = (after.get(key, 0.0) - before.get(key, 0.0)) / whole
    return f"{operator_words(key[1], key[0])} {f'{change:+.0%}'.replace('-', '−')} of a request's GPU time"


def _alternative(axis: _Axis, value: int) -> Alternative:
    plan = axis.firsts.get(value)
    if plan is None or axis.best is None:
        return Alternative(value=value, plan=None, objective=None, loss_frac=None, reason=_why_none(axis, value))
    return Alternative(
        value=value,
        plan=plan.plan,
        objective=plan_expected(axis.study, plan),
        loss_frac=_loss(axis.study, plan, axis.best),
        reason=_cost(axis.name, value, plan),
    )


def _why_none(axis: _Axis, value: int) -> str:
    """The limit that the nearest plan with the value breaks, or the rule that forbids most of them."""
    for plan in axis.infeasible:
        if axis.value(plan) == value:
            worst = plan.violations[0]
            return (
                f"the nearest ({short_plan(plan.layout)}) breaks {worst.code}: "
                f"{number(worst.value, 4)} against {number(worst.limit, 4)} {worst.unit}"
            )
    counts = axis.rules.get(value, {})
    if not counts:
        return "it does not divide the GPUs"
    rule = max(counts, key=lambda name: counts[name])
    text = rule_texts()[rule]
    return f"forbidden by {rule} ({text})"


def _loss(study: Study, plan: PlanResult, best: PlanResult) -> float:
    found = behind(study, plan, best)
    return 0.0 if found is None else max(found.frac, 0.0)


def _loss_words(study: Study, plan: PlanResult, best: PlanResult) -> str:
    """`12.0%`, and of what it is where the time of a request decides."""
    found = behind(study, plan, best)
    of = " in the time of a request" if found is not None and found.metric != study.objective.metric else ""
    return f"{_loss(study, plan, best):.1%}{of}"


def _better_on_all(study: Study, plan: PlanResult, other: PlanResult) -> bool:
    """At a given arrival rate every plan that keeps up has the same throughput: there latency alone decides."""
    latencies = (kind.metric for kind in LIMITS if kind.more_in_flight == "worse" and kind.log_sd)
    quicker = all(plan.metrics[name] < other.metrics[name] for name in latencies)
    more = study.workload.request_rate_per_s is not None or plan.metrics[PER_GPU] > other.metrics[PER_GPU]
    return quicker and more


def _alike(study: Study) -> str:
    return "TTFT and TPOT" if study.workload.request_rate_per_s is not None else "throughput, TTFT and TPOT"
