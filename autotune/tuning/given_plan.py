"""A plan that is given, the one in production among them: what it means within a study, scored as it is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from autotune.scoring.best_knobs import score
from autotune.scoring.peaks import KV_MARGIN_FRAC, peak_variance, with_peaks
from autotune.scoring.plan_result import PlanResult
from autotune.simulation.percentile_limits import is_simulated
from autotune.space import Candidate, Resolution, parse_plan, resolve
from autotune.space.pooled_planstring import is_pooled
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
from autotune.tuning.answer import BaselineResult
from costmodel.errors import InputError, Problem

OF_POOLS = ("decode_max_num_seqs", "max_local_prefill_tokens")
"""What is given of a disaggregated plan alone."""


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
        found = score_in_production(study, asked, path="$.baseline.plan", like=like, simulated=simulated)
        return replace(found, is_baseline=True)
    except InputError as error:
        hint = "; `--set baseline=` asks without it"
        raise InputError(Problem(path=p.path, message=p.message + hint) for p in error.problems) from error


def score_in_production(
    study: Study, given: Baseline, *, path: str, like: Sequence[PlanResult] = (), simulated: bool = True
) -> BaselineResult:
    """As `score_given`, in the dtypes that the plan in production has."""
    own, said = in_production(study, given)
    found = score_given(own, given, path=path, like=like, simulated=simulated)
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


def score_given(
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
