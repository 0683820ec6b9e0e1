"""`tune`: enumerate, score what the storage does not hold yet, rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from autotune.disaggregated.tune_pools import disaggregated_plans
from autotune.scoring.joint_uncertainty import confidence
from autotune.scoring.limits import TITLES
from autotune.scoring.plan_order import order, rank
from autotune.scoring.plan_result import PlanResult, plan_key
from autotune.scoring.trial_record import Recorder, plan_of
from autotune.simulation.percentile_limits import is_simulated
from autotune.space import Candidate
from autotune.storage import Store
from autotune.study import Baseline, Study
from autotune.tuning.answer import BaselineResult, TuneResult
from autotune.tuning.batches import Keep, Scored, keeper, sample_missing, score_missing
from autotune.tuning.executor import Executor
from autotune.tuning.given_plan import score_baseline, score_given, score_in_production
from autotune.tuning.study_space import covered, study_space
from costmodel.errors import InputError

if TYPE_CHECKING:
    from autotune.tuning.simulate_ranking import SimulatedRanking

PRODUCTION = ("baseline", "now")
"""Names of the plan in production, where a plan is asked for."""
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
    return score_given(study, given, path=path)


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
        found = score_in_production(study, Baseline(plan=text), path=path)
    else:
        found = score_plan(study, text, path=path)
    if found is None:
        raise InputError.single("$.baseline", missing)
    return found
