"""Evaluate one plan of a study against its limits, and against what the study finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from autotune.disaggregated.rescore import rescored_pools
from autotune.engines import Violation
from autotune.evaluation.compatibility import compatibility
from autotune.evaluation.conclusion import binding, conclusion
from autotune.evaluation.evaluate_pools import PoolSections, pool_sections
from autotune.evaluation.plan import EvaluatedPlan, balance, capacity, performance, stage_bytes
from autotune.evaluation.quantities import quantities
from autotune.evaluation.report_claims import Claims, judge
from autotune.evaluation.strategy import strategy
from autotune.evaluation.values import Check, Evaluation, Sections
from autotune.scoring.best_knobs import score_launches
from autotune.scoring.joint_uncertainty import confidence
from autotune.scoring.limits import KV_ROOM, LOAD_SERVED, Limit, study_limits
from autotune.scoring.objective import behind
from autotune.scoring.overload import WAITING, overload_of
from autotune.scoring.plan_result import PERCENTILES, plan_key, relative_excess
from autotune.scoring.unsure_means import unsure_means
from autotune.simulation.percentile_limits import PercentileLimit, percentile_limits
from autotune.space import Candidate
from autotune.space.pooled_planstring import is_pooled
from autotune.storage import Store
from autotune.study import Study, cluster_of, on_one_cluster
from autotune.text.numbers import number
from autotune.tuning import BaselineResult, PlanResult, TuneResult, tune
from autotune.tuning.answer_study import score_plan
from autotune.tuning.given_plan import with_fitting_baseline
from autotune.tuning.knob_choices import simulated_plans
from costmodel.errors import InputError

NOT_SIMULATED = ("limits on percentiles are not looked at: without KV room for a request nothing can be simulated",)
STAGE_TIMES = (
    "time per stage: formulas alone, of a chunk of one prompt and of a decode step; calibration adds to TTFT and TPOT",
)
SATURATION = "saturation: powers of two in flight per replica and the most that have KV room, the study's token budgets"


def evaluate(
    study: Study,
    plan: str | None = None,
    claims: Claims | None = None,
    *,
    store: Store | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """What a plan does and why; of a disaggregated plan, what each of its pools does.

    Args:
        study: from `load_study`.
        plan: a plan string; None: the study's baseline with the knobs it gives.
        claims: from `read_claims`; None: none.
        store: of the study's trials, so that nothing is scored twice; None: nowhere.
        progress: of the tuning, as in `tune`.

    Raises:
        InputError: no plan is given, the string has no reading on the study's GPUs, or a claim is about nothing known.
    """
    missing = "must name a plan, or give one with --plan"
    if plan is None and study.baseline is None:
        raise InputError.single("$.baseline", missing)
    named = None if plan is None else score_plan(study, plan, path="--plan")
    study, named, elsewhere = _in_its_place(study, named)
    tuned = tune(study, store, progress=progress)
    scored = named or tuned.baseline
    if scored is None:
        raise InputError.single("$.baseline", missing)
    if claims is not None and scored.result is not None and scored.result.pools is not None:
        raise InputError.single("--claims", "must not be given with a disaggregated plan: claims are about one layout")
    return _evaluation(study, scored, tuned, claims, elsewhere=elsewhere)


def _in_its_place(study: Study, named: BaselineResult | None) -> tuple[Study, BaselineResult | None, str]:
    """The study about the cluster that a named plan is on, the plan as it is there, and `Evaluation.elsewhere`.

    None: the baseline, which is on the study's own.
    """
    if named is None:
        return on_one_cluster(study, pools=study.baseline is not None and is_pooled(study.baseline.plan)), None, ""
    result, found = named.result, named.resolution.candidate
    pooled = result is not None and result.pools is not None
    cluster = study.cluster if pooled else cluster_of(study, found.gpu, found.layout.gpus)
    own = with_fitting_baseline(on_one_cluster(study, pools=pooled, cluster=cluster))
    elsewhere = "" if cluster == study.cluster else plan_key(found)
    if not pooled:  # the type of its cluster needs no name there
        named = replace(named, resolution=replace(named.resolution, candidate=replace(found, gpu=None)))
    if result is None:
        return own, named, elsewhere
    if pooled and own.objective != study.objective:
        result = rescored_pools(own, result)
    elif elsewhere or own.objective != study.objective:
        (result,) = score_launches(own, [replace(result, gpu=None)])
    return own, replace(named, result=simulated_plans(own, [result])[0]), elsewhere


def _evaluation(
    study: Study, scored: BaselineResult, tuned: TuneResult, claims: Claims | None, *, elsewhere: str
) -> Evaluation:
    result, resolution = scored.result, scored.resolution
    checks = _checks(study, result, resolution.violations)
    best = tuned.ranked[0] if tuned.ranked else None
    passed = all(c.passed for c in checks)
    distance = None if result is None or best is None or not passed else behind(study, result, best)
    if result is not None and result.pools is not None:
        sections: Sections | PoolSections = pool_sections(study, result, tuned)
        taken: tuple[str, ...] = ("what a GPU more brings: at its pool's rate per GPU, though workers come whole",)
    else:
        sections = _sections(study, resolution.candidate, result, tuned)
        figures = quantities(study, result, sections, [c.name for c in checks if not c.passed])
        sections = replace(
            sections,
            claims=() if claims is None else judge(claims, figures),
            quantities={name: q.value for name, q in figures.items()},
        )
        taken = (*unsure_means(study, result), *(STAGE_TIMES if result is not None else ()), SATURATION)
    plan = (f"plan: {text}" for text in resolution.assumed)
    assumed = (
        *study.assumptions,
        *study.arch.assumptions,
        *plan,
        *_searched(tuned),
        *_left_open(study, result),
        *taken,
    )
    return Evaluation(
        study=study,
        elsewhere=elsewhere,
        text=scored.text,
        is_baseline=scored.is_baseline,
        result=result,
        tuned=tuned,
        passed=passed,
        binding=binding(checks).name,
        best=best,
        distance=distance,
        p_better_than_best=_p_better(study, result, best) if passed else None,
        checks=checks,
        sections=sections,
        conclusion=conclusion(study, result, best, checks, distance),
        assumptions=tuple(dict.fromkeys(assumed)),
    )


def _sections(study: Study, candidate: Candidate, result: PlanResult | None, tuned: TuneResult) -> Sections:
    plan = None if result is None else EvaluatedPlan.of(study, candidate, result)
    return Sections(
        candidate=candidate,
        compatibility=compatibility(study, candidate),
        performance={} if plan is None else performance(plan),
        strategy=strategy(study, candidate, result, tuned),
        memory=() if plan is None else stage_bytes(plan),
        capacity={} if plan is None else capacity(plan),
        balance={} if plan is None else balance(plan),
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
    used = round(result.metrics["gpus"])
    types = (study.cluster, *(study.axes.other_gpus if result.pools is not None else ()))
    named = {result.pools.prefill.gpu, result.pools.decode.gpu} if result.pools is not None else set()
    there = sum(c.gpus for c in types if c.gpu.name in named) or study.cluster.gpus
    gpus = Check(
        name="gpus",
        value=float(used),
        limit=float(there),
        unit="GPUs",
        passed=used == there,
        margin_frac=None,
        rests_on="replicas x stages x GPUs of a stage",
    )
    of_means = (_check(study, result, limit) for limit in study_limits(study) if limit.code in result.margins)
    of_log = [_log_served(result, x) for x in study_limits(study) if x.code == LOAD_SERVED and _over_bin(study, result)]
    of_requests = (limit for limit in percentile_limits(study) if limit.code in result.margins)
    return (gpus, *of_means, *of_log, *(_simulated_check(result, limit) for limit in of_requests))


def _over_bin(study: Study, result: PlanResult) -> bool:
    """Whether it was simulated how it ends that more requests come in the fullest bin of a log than are served."""
    simulated = study.means_of_requests and PERCENTILES in result.breakdown
    return simulated and LOAD_SERVED not in result.margins


def _log_served(result: PlanResult, limit: Limit) -> Check:
    """What is served in the fullest bin, where what comes beyond that waits and is served by the end of the log."""
    return Check(
        name=limit.code,
        value=limit.value(result.metrics, result.p_meets),
        limit=limit.limit,
        unit=limit.kind.unit,
        passed=True,
        margin_frac=None,
        rests_on="the log's fullest bin: what comes beyond waits, and over the log all is served, as simulated",
    )


def _left_open(study: Study, result: PlanResult | None) -> tuple[str, ...]:
    """What of the study a plan was not held against."""
    return NOT_SIMULATED if result is not None and not result.has_room and percentile_limits(study) else ()


def _check(study: Study, result: PlanResult, limit: Limit) -> Check:
    excess, overload = result.margins[limit.code], overload_of(result.breakdown)
    if overload is not None and limit.kind.metric in WAITING:
        return Check(
            name=limit.code,
            value=None,
            limit=limit.limit,
            unit=limit.kind.unit,
            passed=False,
            margin_frac=None,
            rests_on=overload.words,
            grows=True,
        )
    if limit.code == KV_ROOM:
        # weights beyond the memory leave less than no room: how much that is, the memory's own limit says
        excess = min(excess, limit.limit)
    short = next((v for v in result.violations if v.code == limit.code), None)
    if limit.code == LOAD_SERVED and short is not None and PERCENTILES in result.breakdown:
        return Check(
            name=limit.code,
            value=short.value,
            limit=short.limit,
            unit=short.unit,
            passed=False,
            margin_frac=-relative_excess(short),
            rests_on="the log's requests, simulated one by one: the queue grows",
        )
    words = limit.kind.rests_on.format(
        longest=study.workload.longest_prompt,
        flight=result.knobs.concurrency,
        chunk=result.knobs.max_num_batched_tokens,
    )
    return Check(
        name=limit.code,
        value=limit.value(result.metrics, result.p_meets),
        limit=limit.limit,
        unit=limit.kind.unit,
        passed=excess <= 0.0,
        margin_frac=-excess / abs(limit.limit) if limit.limit else None,
        rests_on=words,
    )


def _simulated_check(result: PlanResult, limit: PercentileLimit) -> Check:
    found, excess = result.breakdown["simulated"][limit.code], result.margins[limit.code]
    low, high = (number(found[end], 4) for end in ("likely_low", "likely_high"))
    return Check(
        name=limit.code,
        value=found["value"],
        limit=limit.limit,
        unit=limit.unit,
        passed=excess <= 0.0,
        margin_frac=-excess / limit.limit,
        rests_on=f"requests simulated one by one, likely {low} to {high}",
    )


def _p_better(study: Study, result: PlanResult | None, best: PlanResult | None) -> float | None:
    if result is None or best is None:
        return None
    if result.runs_as(best):
        return 0.5
    return confidence(study, [result], best)[result.plan].p_better_than_baseline
