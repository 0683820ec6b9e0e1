"""Scoring plans batch by batch, each kept as soon as it is there: all that are missing, or a sample of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from autotune.disaggregated.tune_pools import pool_records
from autotune.scoring.best_knobs import score
from autotune.scoring.plan_result import PlanResult
from autotune.scoring.solve_concurrency import FIRST_LOOK
from autotune.scoring.trial_record import Goals, Recorder
from autotune.space import Candidate
from autotune.storage import Store
from autotune.study import IntRange, Study
from autotune.tuning.executor import Executor, Scorer

BATCH_CANDIDATES = 512
"""Plans scored and written at a time: what an interruption can lose, and the step of the progress bar."""
BATCH_EVALUATIONS = 100_000
"""Rows (a plan with one choice of knobs) evaluated at a time, for memory: they take about 1 kB each."""

Keep = Callable[[Sequence[PlanResult]], int]
"""Stores results; how many of them were not stored before."""
Scored = Iterator[tuple[list[PlanResult], int]]
"""Results of a batch, and how many of them were not stored before."""


def keeper(store: Store | None, recorder: Recorder, *, kept_pools: int = 0) -> Keep:
    """What keeps results in a store; None: nowhere, and every result is new.

    `kept_pools` is how many disaggregated plans belong together, where there are any among the results.
    """

    if store is None:
        return len

    def keep(results: Sequence[PlanResult]) -> int:
        pooled = [plan for plan in results if plan.pools is not None]
        single = [recorder.record(plan) for plan in results if plan.pools is None]
        return store.add([*single, *pool_records(recorder, pooled, kept_pools)])

    return keep


def evaluations(study: Study) -> int:
    """Rows that are evaluated for one plan: its choices of dtypes, token budgets and concurrencies."""
    search, fixed = study.search, study.workload.concurrency or study.workload.request_rate_per_s
    asked = search.concurrency
    several = FIRST_LOOK.size if asked is None or isinstance(asked, IntRange) else len(asked)
    dtypes = len(search.weight_dtype) * len(search.kv_dtype)
    return dtypes * len(search.max_num_batched_tokens) * (1 if fixed else several)


def batch_candidates(study: Study, waiting: int, jobs: int) -> int:
    """Plans of one batch: few enough for memory, and so many that every job has several."""
    share = -(-waiting // (jobs * 4)) if jobs > 1 else waiting
    return max(min(share, BATCH_CANDIDATES, BATCH_EVALUATIONS // evaluations(study)), 1)


def score_missing(
    study: Study,
    missing: Sequence[Candidate],
    executor: Executor,
    *,
    keep: Keep = len,
    progress: Callable[[int], None] | None = None,
    scorer: Scorer = score,
) -> Scored:
    """Score and keep candidates.

    Another process that scores the same plans makes nothing be stored twice. Of several results of the `scorer` for one
    plan, the one whose key is the plan's comes last. `progress` is called with the number of candidates done.

    Raises:
        InputError: the storage fails.
    """
    size = batch_candidates(study, len(missing), executor.jobs)
    batches = [missing[i : i + size] for i in range(0, len(missing), size)]
    yield from _kept(executor.scored(study, batches, scorer), keep, progress)


def sample_missing(  # noqa: PLR0913  # one for each thing that may be asked
    study: Study,
    missing: Sequence[Candidate],
    known: Sequence[PlanResult],
    *,
    keep: Keep = len,
    progress: Callable[[int], None] | None = None,
    scorer: Scorer = score,
    goals: Goals = (),
) -> Scored:
    """As `score_missing`, of as many plans as the study's budget allows, `known` included, chosen by its sampler."""
    from autotune.tuning.sampling.sampler import sample  # most spaces are covered

    budget = study.search.trials or study.search.exhaustive_limit
    yield from _kept(sample(study, missing, known, budget=budget, scorer=scorer, goals=goals), keep, progress)


def _kept(batches: Iterator[list[PlanResult]], keep: Keep, progress: Callable[[int], None] | None) -> Scored:
    done = 0
    for results in batches:
        yield results, keep(results)
        done += len({p.plan for p in results})
        if progress is not None:
            progress(done)
