"""Evaluate one plan of a study against its limits, and against what the study finds."""

from __future__ import annotations

from collections.abc import Callable

from autotune.engines import Violation
from autotune.evaluation.balance import balance
from autotune.evaluation.compatibility import compatibility
from autotune.evaluation.conclusion import conclusion, failures
from autotune.evaluation.memory import capacity, stage_bytes
from autotune.evaluation.performance import performance
from autotune.evaluation.plan import Subject
from autotune.evaluation.quantities import quantities
from autotune.evaluation.report_claims import Claims, judge
from autotune.evaluation.strategy import strategy
from autotune.evaluation.values import Check, ClaimVerdict, Evaluation
from autotune.scoring.joint_uncertainty import confidence
from autotune.scoring.limits import Limit, study_limits
from autotune.scoring.objective import plan_expected
from autotune.storage import Store
from autotune.study import Study, in_place
from autotune.tuning import PlanResult, TuneResult, tune
from autotune.tuning.answer_study import BaselineResult, score_plan
from costmodel.errors import InputError

RESTS_ON = {
    "ttft_ms": "the longest prompt of {longest:,} tokens, {flight:,} requests in flight",
    "tpot_ms": "mean lengths, {flight:,} requests in flight",
    "memory_util_frac": "the fullest GPU, {flight:,} requests in flight",
    "kv_capacity": "one request of {longest:,} prompt tokens beside its output",
    "request_rate_per_s": "{flight:,} requests in flight: as many as the rate needs, so that there is no room in it",
    "min_p_meets": "how sure the estimate is on this model, GPU and engine",
}
"""Limit -> what its figure was computed for."""
NO_ROOM = "kv_capacity"
STAGE_TIMES = (
    "time per stage: formulas alone, of a chunk of one prompt and of a decode step; calibration adds to TTFT and TPOT",
)
ANY_LOAD = "{flight:,} requests in flight, chunks of {chunk:,} tokens"


def evaluate(
    study: Study,
    plan: str | None = None,
    claims: Claims | None = None,
    *,
    store: Store | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """What a plan does and why.

    Args:
        study: from `load_study`.
        plan: a plan string; None: the study's baseline with the knobs it gives.
        claims: from `read_claims`; None: none.
        store: of the study's trials, so that nothing is scored twice; None: nowhere.
        progress: of the tuning, as in `tune`.

    Raises:
        InputError: no plan is given, the string has no reading on the study's GPUs, or a claim is about nothing known.
    """
    study = in_place(study)
    if plan is None and study.baseline is None:
        raise InputError.single("$.baseline", "must name a plan, or give one with --plan")
    scored = None if plan is None else score_plan(study, plan, path="--plan")
    tuned = tune(study, store, progress=progress)
    if scored is None:
        scored = tuned.baseline
    if scored is None:
        raise InputError.single("$.baseline", "must name a plan, or give one with --plan")
    if scored.result is not None and scored.result.pools is not None:
        raise InputError.single(
            "--plan", "a disaggregated plan has two layouts: evaluate takes one (tune shows both pools)"
        )
    return _evaluation(study, scored, tuned, claims)


def _evaluation(study: Study, scored: BaselineResult, tuned: TuneResult, claims: Claims | None) -> Evaluation:
    candidate, result = scored.resolution.candidate, scored.result
    broken = scored.resolution.violations
    checks = _checks(study, result, broken)
    where = compatibility(study, candidate)
    subject = None if result is None else Subject.of(study, candidate, result)
    does = {} if subject is None else performance(subject)
    axes = strategy(study, candidate, result, tuned)
    best = tuned.ranked[0] if tuned.ranked else None
    held = () if subject is None else stage_bytes(subject)
    even = {} if subject is None else balance(subject)
    failed = [c.name for c in checks if not c.passed]
    figures = quantities(study, candidate, result, where, does, axes, even, held, failed)
    judged: tuple[ClaimVerdict, ...] = () if claims is None else judge(claims, figures)
    passed = all(c.passed for c in checks)
    distance = None if result is None or best is None or not passed else _distance(study, result, best)
    return Evaluation(
        study=study,
        text=scored.text,
        candidate=candidate,
        result=result,
        tuned=tuned,
        passed=passed,
        binding=_binding(checks),
        best=best,
        distance_frac=distance,
        p_better_than_best=_p_better(study, result, best) if passed else None,
        checks=checks,
        compatibility=where,
        performance=does,
        strategy=axes,
        memory=held,
        capacity={} if subject is None else capacity(subject),
        balance=even,
        claims=judged,
        quantities={name: q.value for name, q in figures.items()},
        conclusion=conclusion(study, result, best, checks, distance),
        assumptions=tuple(
            dict.fromkeys(
                [
                    *study.assumptions,
                    *study.arch.assumptions,
                    *(f"plan: {text}" for text in scored.resolution.assumed),
                    *_searched(tuned),
                    *(STAGE_TIMES if subject is not None else ()),
                    "saturation: powers of two in flight per replica, the study's token budgets, KV room for all",
                ]
            )
        ),
    )


def _searched(tuned: TuneResult) -> tuple[str, ...]:
    """Where the space is too large to score every plan, the best is the best of those that were."""
    if tuned.complete:
        return ()
    scored, valid = len(tuned.ranked) + len(tuned.infeasible), len(tuned.space.candidates)
    return (f"best plans are the best of {scored:,} that were scored, of {valid:,}: better ones may exist",)


def _checks(study: Study, result: PlanResult | None, broken: tuple[Violation, ...]) -> tuple[Check, ...]:
    if result is None:
        return tuple(
            Check(name=v.rule, value=None, limit=None, unit="", passed=False, margin_frac=None, rests_on=v.message)
            for v in broken
        )
    used = result.layout.gpus
    gpus = Check(
        name="gpus",
        value=float(used),
        limit=float(study.cluster.gpus),
        unit="GPUs",
        passed=used == study.cluster.gpus,
        margin_frac=None,
        rests_on="replicas x stages x GPUs of a stage",
    )
    return (gpus, *(_check(study, result, limit) for limit in study_limits(study)))


def _check(study: Study, result: PlanResult, limit: Limit) -> Check:
    excess = result.margins[limit.code]
    if limit.code == NO_ROOM:
        # weights beyond the memory leave less than no room: how much that is, the memory's own limit says
        excess = min(excess, limit.limit)
    value = limit.limit - excess if limit.least else limit.limit + excess
    words = RESTS_ON.get(limit.code, ANY_LOAD).format(
        longest=study.workload.longest_prompt,
        flight=result.knobs.concurrency,
        chunk=result.knobs.max_num_batched_tokens,
    )
    return Check(
        name=limit.code,
        value=value,
        limit=limit.limit,
        unit=limit.unit,
        passed=excess <= 0.0,
        margin_frac=-excess / abs(limit.limit) if limit.limit else None,
        rests_on=words,
    )


def _binding(checks: tuple[Check, ...]) -> str:
    """The check with the least room; what follows from others only where they all pass, a rate only where it fails."""
    roomy = [c for c in checks if c.margin_frac is not None and c.name != "request_rate_per_s"]
    among = failures(checks) or roomy
    return min(among, key=lambda c: float("-inf") if c.margin_frac is None else c.margin_frac).name


def _distance(study: Study, result: PlanResult, best: PlanResult) -> float | None:
    mine, top = plan_expected(study, result), plan_expected(study, best)
    if top <= 0.0:
        return None
    return mine / top - 1.0 if study.objective.direction == "minimize" else 1.0 - mine / top


def _p_better(study: Study, result: PlanResult | None, best: PlanResult | None) -> float | None:
    if result is None or best is None:
        return None
    if result.plan == best.plan:
        return 0.5
    return 1.0 - confidence(study, [best, result], None)[result.plan].p_best_is_better
