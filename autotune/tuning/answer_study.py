"""`tune`: enumerate, score what the storage does not hold yet, rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autotune.disaggregated.tune_pools import disaggregated_plans
from autotune.scoring.best_knobs import score
from autotune.scoring.joint_uncertainty import confidence
from autotune.scoring.limits import TITLES
from autotune.scoring.peaks import KV_MARGIN_FRAC, peak_variance, with_peaks
from autotune.scoring.plan_order import order, rank
from autotune.scoring.plan_result import PlanResult, plan_key
from autotune.scoring.trial_record import Recorder, plan_of
from autotune.simulation.percentile_limits import is_simulated
from autotune.space import Candidate, Resolution, parse_plan, resolve
from autotune.space.pooled_planstring import is_pooled
from autotune.storage import Store
from autotune.study import (
    Baseline,
    OwnOptions,
    Study,
    cluster_of,
    in_production,
    own_option_sentence,
    own_options,
    refused_dtypes,
    started_with,
)
from autotune.tuning.answer import BaselineResult, TuneResult
from autotune.tuning.batches import Keep, Scored, keeper, sample_missing, score_missing
from autotune.tuning.executor import Executor
from autotune.tuning.study_space import covered, study_space
from costmodel.errors import InputError, Problem

if TYPE_CHECKING:
    from autotune.tuning.simulate_ranking import SimulatedRanking

PRODUCTION = ("baseline", "now")
"""Names of the plan in production, where a plan is asked for."""
OF_POOLS = ("decode_max_num_seqs", "max_local_prefill_tokens")
"""What is given of a disaggregated plan alone."""
MAX_DIGITS = 9


def tune(
    study: Study,
    store: Store | None = None,
    *,
    jobs: int = 1,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TuneResult:
    """Answer a study: score what its storage does not hold, and rank everything.

    Args:
        study: from `load_study`.
        store: where trials are kept; plans that it holds are not scored again. None: nowhere.
        jobs: processes that score in parallel, where no `executor` is given.
        executor: what scores: from `open_executor`.
        progress: called with (plans done, plans in all).

    Raises:
        InputError: the baseline has no meaning on this many GPUs, or the storage fails.
    """
    start = time.perf_counter()
    space = study_space(study)
    baseline = score_baseline(study, simulated=False)
    records = [] if store is None else store.records()
    stored = {r.key: r for r in records}
    plans = {key: plan_of(stored[key]) for c in space.candidates if (key := plan_key(c)) in stored}
    recorder = Recorder.of(study, space.candidates)
    simulated = is_simulated(study)
    pooled, pools = disaggregated_plans(study, records, None if simulated else store, recorder, progress)
    missing = [c for c in space.candidates if plan_key(c) not in plans]
    keep, scored = keeper(store, recorder, kept_pools=len(pooled)), 0
    # a trial appears whole and once: where plans are simulated, none is stored before it is known which of them
    batches = _batches(study, missing, plans, len if simulated else keep, executor or Executor(jobs=jobs), progress)
    for batch, _ in batches:
        plans.update((p.key, p) for p in batch)
        scored += len(batch)
    both = [*plans.values(), *pooled.values()]
    ranked, infeasible = rank(study, both)
    by_percentile: SimulatedRanking | None = None
    if simulated:
        from autotune.tuning.knob_choices import worth_simulating
        from autotune.tuning.simulate_ranking import simulate_ranking

        asked = worth_simulating(study, both)
        by_percentile = simulate_ranking(study, asked, keep=lambda plan: keep([plan]), progress=progress)
        keep(both)
        known = {p.plan for p in asked}
        others = [p for p in infeasible if p.plan not in known]
        ranked, (_, infeasible) = by_percentile.ranked, rank(study, [*by_percentile.broken, *others])
        baseline = score_baseline(study, like=asked)
    base = None if baseline is None else baseline.result
    return TuneResult(
        study=study,
        complete=len(plans) == len(space.candidates),
        space=space,
        ranked=ranked,
        infeasible=infeasible,
        baseline=baseline,
        confidence=confidence(study, ranked or infeasible, base),
        scored_now=scored + (0 if pools is None else pools.scored_now),
        elapsed_s=time.perf_counter() - start,
        storage=None if store is None else store.location,
        pools=pools,
        by_percentile=by_percentile,
    )


def _batches(
    study: Study,
    missing: Sequence[Candidate],
    plans: Mapping[str, PlanResult],
    keep: Keep,
    executor: Executor,
    progress: Callable[[int, int], None] | None,
) -> Scored:
    """Results in batches: of all that is missing, or of a sample of it."""
    before, everything = len(plans), len(plans) + len(missing)
    told = None if progress is None else lambda done: progress(before + done, everything)
    if covered(study, everything):
        yield from score_missing(study, missing, executor, keep=keep, progress=told)
    else:
        yield from sample_missing(study, missing, list(plans.values()), keep=keep, progress=told)


def place(study: Study, plan: PlanResult, ranked: Sequence[PlanResult]) -> int | None:
    """Where a plan with its own knobs stands, or would stand, among ranked plans; None: it breaks a limit."""
    if not plan.feasible:
        return None
    own = (order(study, plan), plan.plan)
    return 1 + sum(p.plan != plan.plan and (order(study, p), p.plan) < own for p in ranked)


def score_baseline(
    study: Study, *, engine: str | None = None, like: Sequence[PlanResult] = (), simulated: bool = True
) -> BaselineResult | None:
    """The plan in production with the knobs that the study gives it; None: the study has none.

    Args:
        study: from `load_study`.
        engine: that it runs on where the baseline says none; None: the study's.
        like: as of `simulated_plans`.
        simulated: whether it is simulated where the study's limits ask for that.

    Raises:
        InputError: it has no reading on the study's GPUs.
    """
    given = study.baseline
    if given is None:
        return None
    try:
        asked = replace(given, engine=given.engine or engine)
        found = _in_production(study, asked, path="$.baseline.plan", like=like, simulated=simulated)
        return replace(found, is_baseline=True)
    except InputError as error:
        hint = "; `--set baseline=` asks without it"
        raise InputError(Problem(path=p.path, message=p.message + hint) for p in error.problems) from error


def _in_production(
    study: Study, given: Baseline, *, path: str, like: Sequence[PlanResult] = (), simulated: bool = True
) -> BaselineResult:
    """As `_scored`, in the dtypes that the plan in production has."""
    own, said = in_production(study, given)
    found = _scored(own, given, path=path, like=like, simulated=simulated)
    return replace(found, resolution=replace(found.resolution, assumed=(*found.resolution.assumed, *said)))


def with_fitting_baseline(study: Study) -> Study:
    """The study for a question about another plan: a baseline of another number of GPUs is left out, which is said.

    One that is no plan at all stays, for whoever scores it to say so.
    """
    given = study.baseline
    if given is None or is_pooled(given.plan):
        return study
    try:
        parse_plan(given.plan)
    except InputError:
        return study
    try:
        _resolved(study, given.plan, given.engine or study.engine)
    except InputError as error:
        why = "; ".join(problem.message for problem in error.problems)
        return replace(study, baseline=None, assumptions=(*study.assumptions, f"baseline left out: {why}"))
    return study


def score_plan(  # noqa: PLR0913  # one for each knob
    study: Study,
    text: str,
    *,
    engine: str | None = None,
    concurrency: int | None = None,
    batched_tokens: int | None = None,
    weight_dtype: str | None = None,
    kv_dtype: str | None = None,
    path: str = "plan",
) -> BaselineResult:
    """Resolve a plan string within a study and score it; knobs that are not given are the study's best.

    `best` and a number mean the plan of that rank, `baseline` and `now` the plan in production.

    Raises:
        InputError: the string has no reading on the study's GPUs, or no plan has that rank; `path` says where it
            stands.
    """
    if text.strip().lower() in PRODUCTION and (known := score_baseline(study)) is not None:
        return known
    given = Baseline(
        plan=full_string(study, text, path=path),
        engine=engine,
        concurrency=concurrency,
        max_num_batched_tokens=batched_tokens,
        weight_dtype=weight_dtype,
        kv_dtype=kv_dtype,
    )
    return _scored(study, given, path=path)


def full_string(study: Study, text: str, *, path: str) -> str:
    """The full string of the plan of a rank, a row of what `tune` answers; what is no rank is given back as it is.

    Whoever looks at a part of the study alone, one cluster or one engine, asks with the whole study first.

    Raises:
        InputError: fewer plans keep every limit, or none does, which names the nearest.
    """
    if (place := _rank_of(text)) is None:
        return text
    found = tune(replace(study, baseline=None))
    ranked = found.ranked
    if not ranked:
        raise InputError.single(path, f"must be a plan string, as {_nothing_kept(found)}, got {text!r}")
    if not 1 <= place <= len(ranked):
        raise InputError.single(
            path, f"must be a rank from 1 to {len(ranked):,}, as `autotune tune` shows, got {text!r}"
        )
    return ranked[place - 1].plan


def _nothing_kept(found: TuneResult) -> str:
    """That no plan has a rank, and which is the nearest."""
    if not found.infeasible:
        return "no plan is valid"
    nearest = found.infeasible[0]
    limits = ", ".join(dict.fromkeys(TITLES[v.code] for v in nearest.violations))
    return f"no plan keeps every limit (the nearest, {nearest.plan}, breaks: {limits})"


def _rank_of(text: str) -> int | None:
    word = text.strip().lower().removeprefix("rank").removeprefix("#").strip()
    if word == "best":
        return 1
    return int(word) if word.isdecimal() and len(word) < MAX_DIGITS else None


def score_named(study: Study, text: str | None, *, path: str, missing: str, production: bool = False) -> BaselineResult:
    """A plan that is named, as `score_plan`, or the study's baseline where none is.

    `production`: what is named is what runs today, with its dtypes, unless it is a rank.

    Raises:
        InputError: as both, and where there is neither, which `missing` says.
    """
    if text is None:
        found = score_baseline(study)
    elif production and text.strip().lower() not in PRODUCTION and _rank_of(text) is None:
        found = _in_production(study, Baseline(plan=text), path=path)
    else:
        found = score_plan(study, text, path=path)
    if found is None:
        raise InputError.single("$.baseline", missing)
    return found


def _scored(
    study: Study, given: Baseline, *, path: str, like: Sequence[PlanResult] = (), simulated: bool = True
) -> BaselineResult:
    """A plan with the knobs that it is given, of the others the best, and started as it says."""
    pooled = is_pooled(given.plan)
    _check_slots(given, pooled=pooled)
    asked, options = _with_knobs(study, given, pooled=pooled), own_options(study, given.engine_options)
    try:
        if pooled:
            from autotune.disaggregated.plan_results import disaggregated_plan

            own, slots = started_with(asked, options), given.decode_max_num_seqs
            resolution, result = disaggregated_plan(own, given.plan, engine=given.engine, slots=slots)
        else:
            resolution, result = _resolved(started_with(study, options), given.plan, given.engine or study.engine), None
    except InputError as error:
        raise InputError(Problem(path=path, message=p.message) for p in error.problems) from error
    if result is None and not resolution.violations:
        chosen = resolution.candidate
        refusal = refused_dtypes(asked, chosen.engine, cluster_of(asked, chosen.gpu, chosen.layout.gpus).gpu)
        resolution = resolution if refusal is None else replace(resolution, violations=(refusal,))
    if result is None and not resolution.violations:
        options = _that_bind(asked, resolution.candidate, options)
        result = score(started_with(asked, options), [resolution.candidate])[0]
    if options is not None:
        said = own_option_sentence(study, options)
        resolution = replace(resolution, assumed=(*resolution.assumed, *said))
        result = None if result is None else replace(result, own_options=options)
    if simulated and result is not None and is_simulated(study):
        from autotune.tuning.knob_choices import best_once_simulated

        result = best_once_simulated(started_with(asked, options), result, like=like)
    return BaselineResult(text=given.plan, resolution=resolution, result=result)


def _check_slots(given: Baseline, *, pooled: bool) -> None:
    """Raises `InputError`: what is given of how many run at once is of the other kind of plan."""
    named = [f"$.baseline.{name}" for name in OF_POOLS if getattr(given, name) is not None and not pooled]
    message = f"must be left out of a plan without a decode pool, got {given.plan[:200]!r}"
    if pooled and given.engine_options is not None and given.engine_options.max_num_seqs is not None:
        named = ["$.baseline.engine_options.max_num_seqs"]
        message = f"must be left out of a plan of two pools (baseline.decode_max_num_seqs), got {given.plan[:200]!r}"
    if named:
        raise InputError(Problem(path=path, message=message) for path in named)


def _that_bind(study: Study, candidate: Candidate, options: OwnOptions | None) -> OwnOptions | None:
    """A plan's own options without a number of sequences that is as good to it as the study's.

    Exports start servers for as many as the load has at its peaks and the cache holds, and not for all that the study
    allows: a server with that many runs as the study's would.
    """
    if options is None or options.max_num_seqs is None:
        return options
    others = own_options(study, replace(options, max_num_seqs=None))
    usual = score(started_with(study, others), [candidate])[0]
    layout, held = usual.layout, usual.metrics["kv_capacity_sequences"]
    cached = int(held / layout.attn_dp / (1.0 + KV_MARGIN_FRAC))
    wanted = max(min(with_peaks(usual.knobs.max_num_seqs, peak_variance(study.workload)), cached), 1)
    enough = min(options.max_num_seqs, wanted) == min(study.engine_options.max_num_seqs, wanted)
    return others if enough else options


def _with_knobs(study: Study, given: Baseline, *, pooled: bool) -> Study:
    work, search, axes = study.workload, study.search, study.axes
    if given.concurrency is not None:
        work = replace(work, concurrency=given.concurrency, request_rate_per_s=None)
    chosen: dict[str, Any] = {
        name: (value,)
        for name in ("max_num_batched_tokens", "weight_dtype", "kv_dtype")
        if (value := getattr(given, name)) is not None
    }
    if pooled and "max_num_batched_tokens" in chosen:  # of two pools it is the one that prefills whose budget is given
        axes = replace(axes, prefill_max_num_batched_tokens=chosen.pop("max_num_batched_tokens")[0])
    if given.max_local_prefill_tokens is not None:
        axes = replace(axes, max_local_prefill_tokens=(given.max_local_prefill_tokens,))
    return replace(study, workload=work, search=replace(search, **chosen), axes=axes)


def _resolved(study: Study, text: str, engine: str) -> Resolution:
    """What a plan string means on the study's own cluster, or else on the first of those that it opens beside it."""
    spec, drafts = parse_plan(text), study.axes.speculative is not None
    counts = dict.fromkeys((study.cluster.gpus, *reversed(study.axes.gpu_counts)))
    problem: InputError | None = None
    for gpus in counts:
        cluster_of(study, spec.gpu, gpus)
        try:
            found = resolve(
                spec, arch=study.arch, gpus=gpus, engine=engine, version=study.engine_version, drafts=drafts
            )
        except InputError as error:
            problem = problem or error
            continue
        own = replace(found.candidate, gpu=None if spec.gpu == study.cluster.gpu.name else spec.gpu)
        return replace(found, candidate=own)
    raise problem or InputError.single("plan", f"has no reading, got {text!r}")
