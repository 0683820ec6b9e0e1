"""Scoring a space together with any number of other workers: claim, score, store, until nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from autotune.scoring.best_knobs import STEPS_BACK, score
from autotune.scoring.plan_result import VARIANT, PlanResult, plan_key, to_record
from autotune.scoring.stage_split import balanced_splits
from autotune.space import Candidate, Space, enumerate_space
from autotune.storage import Store
from autotune.study import IntRange, Study, cluster_choices, on_cluster
from autotune.tuning.executor import Pool, Scorer
from autotune.tuning.sampling.sampler import sample
from costmodel.errors import InputError

CLAIM_CANDIDATES = 512
"""Plans claimed, scored and written at a time: what an interruption can lose, and the step of the progress bar."""
SHARED_CLAIM_CANDIDATES = 128
"""The same in a database that several machines use: small enough to share a small study, about 0.1 s of work."""
CLAIM_EVALUATIONS = 100_000
"""Rows (a plan with one choice of knobs) evaluated at a time, for memory: they take about 1 kB each."""
WAIT_S = (0.05, 1.0)
"""Shortest and longest time between two looks at what other workers have done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one worker did of a study."""

    plans: int
    """Plans of the space."""
    scored: int
    """Plans that this worker scored and stored."""
    twice: int
    """Plans that this worker scored and another one stored first: it had been taken for dead."""
    hosts: frozenset[str]
    """Other machines seen at work."""


def evaluations(study: Study) -> int:
    """Rows that are evaluated for one plan: its choices of dtypes, token budgets and concurrencies."""
    search, fixed = study.search, study.workload.concurrency or study.workload.request_rate_per_s
    asked = search.concurrency
    several = len(STEPS_BACK) if asked is None or isinstance(asked, IntRange) else len(asked)
    return (
        len(search.weight_dtype) * len(search.kv_dtype) * len(search.max_num_batched_tokens) * (1 if fixed else several)
    )


def batch_candidates(study: Study, waiting: int, jobs: int, most: int = CLAIM_CANDIDATES) -> int:
    """Plans of one batch: few enough for memory, and so many that every job has several."""
    share = -(-waiting // (jobs * 4)) if jobs > 1 else waiting
    return max(min(share, most, CLAIM_EVALUATIONS // evaluations(study)), 1)


def score_missing(
    study: Study,
    missing: Sequence[Candidate],
    store: Store | None,
    pool: Pool,
    *,
    progress: Callable[[int], None] | None = None,
    scorer: Scorer = score,
    goals: Sequence[tuple[str, str]] = (),
) -> Iterator[tuple[list[PlanResult], int]]:
    """Score and store what is missing, together with whoever else is at it, until all of it is stored.

    Yields:
        Results of this worker's own batches, and how many of them nobody had stored before. What other workers
        scored is in the storage when this ends.

    Args:
        study: the question.
        missing: candidates that were not stored when this was called.
        store: None: nothing is stored, and no one else is at it.
        pool: what scores.
        progress: called with the number of `missing` that are stored.
        scorer: results of candidates; of several of one plan, the one whose key is the plan's comes last.
        goals: metric and direction of every value to store; none: the study's objective.

    Raises:
        InputError: the storage fails.
    """
    progress = progress or (lambda _: None)
    metrics = [name for name, _ in goals] or [study.objective.metric]
    if store is None:
        done = 0
        for results in pool.scored(study, _cut(missing, batch_candidates(study, len(missing), pool.jobs)), scorer):
            done += len({p.plan for p in results})
            yield results, len(results)
            progress(done)
        return
    waiting = {plan_key(c): c for c in missing}
    done, wait_s = 0, WAIT_S[0]
    try:
        while waiting:
            most = CLAIM_CANDIDATES if store.one_machine else SHARED_CLAIM_CANDIDATES
            size = batch_candidates(study, len(waiting), pool.jobs, most)
            claimed = store.claim(waiting, size * (pool.jobs * 4 if pool.jobs > 1 else 1))
            if not claimed:
                # the rest is stored, or with others, who finish it or die and leave it
                stored = store.known_keys()
                waiting = {key: candidate for key, candidate in waiting.items() if key not in stored}
                progress(len(missing) - len(waiting))
                if waiting:
                    time.sleep(wait_s)
                    wait_s = min(wait_s * 2.0, WAIT_S[1])
                continue
            wait_s = WAIT_S[0]
            with store.alive():
                for results in pool.scored(study, _cut([waiting.pop(key) for key in claimed], size), scorer):
                    yield results, store.add([to_record(p, *metrics) for p in results])
                    done += len({p.plan for p in results})
                    progress(done)
    finally:
        with suppress(InputError):  # a storage that is gone holds no claim either
            store.claim((), 0)


def sample_missing(
    study: Study,
    missing: Sequence[Candidate],
    known: Sequence[PlanResult],
    store: Store | None,
    *,
    progress: Callable[[int], None] | None = None,
    scorer: Scorer = score,
    goals: Sequence[tuple[str, str]] = (),
) -> Iterator[tuple[list[PlanResult], int]]:
    """As `score_missing`, of as many plans as the study's budget allows, chosen by its sampler.

    Workers on one store share the budget, and none scores what another one does; but each has a sampler of its
    own, which sees its own results, so that several sample other plans than one would.
    """
    budget = study.search.trials or study.search.exhaustive_limit
    progress = progress or (lambda _: None)
    metrics = [name for name, _ in goals] or [study.objective.metric]
    done = 0
    if store is None:
        for results in sample(study, missing, known, budget=budget, scorer=scorer, goals=goals):
            done += len({p.plan for p in results})
            yield results, len(results)
            progress(done)
        return

    def plans_stored() -> int:
        """Plans, not the further results of a plan, which only a front has."""
        keys = store.known_keys()
        return sum(VARIANT not in key for key in keys) if goals else len(keys)

    before, new = plans_stored(), 0

    def take(batch: list[Candidate]) -> list[Candidate]:
        claimed = set(store.claim([plan_key(c) for c in batch], len(batch)))
        return [c for c in batch if plan_key(c) in claimed]

    def others() -> int:
        return plans_stored() - before - new

    try:
        with store.alive():
            told = {"scorer": scorer, "goals": goals, "take": take, "others": others}
            for results in sample(study, missing, known, budget=budget, **told):  # type: ignore[arg-type]
                added = store.add([to_record(p, *metrics) for p in results])
                new += len({p.plan for p in results}) if added else 0
                yield results, added
                progress(new)
    finally:
        with suppress(InputError):
            store.claim((), 0)


def _cut(candidates: Sequence[Candidate], size: int) -> list[Sequence[Candidate]]:
    return [candidates[i : i + size] for i in range(0, len(candidates), size)]


def work(study: Study, store: Store, pool: Pool, *, progress: Callable[[int, int], None] | None = None) -> Share:
    """Score what a study's storage does not hold yet, as one worker of any number; nothing is ranked.

    Args:
        study: from `load_study`.
        store: where all workers keep the trials.
        pool: what scores.
        progress: called with (plans stored, plans in all).

    Raises:
        InputError: the space is too large to be covered (workers share no sampler), or the storage fails.
    """
    space = study_space(study)
    everything = len(space.candidates)
    if not covered(study, everything):
        raise InputError.single(
            "$.search",
            f"a worker covers a space whole, and this one of {everything:,} plans is sampled: raise "
            f"search.exhaustive_limit (and search.trials), or run `autotune tune` with this storage",
        )
    stored = store.known_keys()
    missing = [c for c in space.candidates if plan_key(c) not in stored]
    before = everything - len(missing)
    scored = new = 0
    hosts: frozenset[str] = frozenset()
    told = None if progress is None else lambda done: progress(before + done, everything)
    for results, added in score_missing(study, missing, store, pool, progress=told):
        scored, new = scored + len(results), new + added
        hosts |= store.other_hosts
    return Share(plans=everything, scored=scored, twice=scored - new, hosts=hosts)


def study_space(study: Study) -> Space:
    """Every plan of a study with one kind of replica. Raises `InputError` as `enumerate_space`."""
    if study.axes.disaggregated == "only":
        return Space(enumerated=0, rejected={}, candidates=())
    search = study.search
    spaces = []
    for cluster in cluster_choices(study):
        found = enumerate_space(
            study.arch,
            gpus=cluster.gpus,
            engine=study.engine,
            attn_cp=search.attn_cp,
            dcp=search.dcp,
            redundant_experts=search.redundant_experts,
        )
        own = on_cluster(study, cluster)
        name = None if cluster.gpu.name == study.cluster.gpu.name else cluster.gpu.name
        splits = balanced_splits(own, found.candidates) if study.axes.balanced_stages else ()
        spaces.append(
            Space(
                enumerated=found.enumerated + len(splits),
                rejected=found.rejected,
                candidates=tuple(replace(c, gpu=name) for c in (*found.candidates, *splits)),
            )
        )
    rules = dict.fromkeys(rule for s in spaces for rule in s.rejected)
    return Space(
        enumerated=sum(s.enumerated for s in spaces),
        rejected={rule: sum(s.rejected.get(rule, 0) for s in spaces) for rule in rules},
        candidates=tuple(c for s in spaces for c in s.candidates),
    )


def covered(study: Study, candidates: int) -> bool:
    """Whether a study scores all of so many plans; a sampler chooses among more."""
    budget = study.search.trials
    return candidates <= study.search.exhaustive_limit and (budget is None or budget >= candidates)
