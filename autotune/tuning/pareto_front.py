"""Several objectives: the plans, with their knobs, that no other is at least as good as in all of them.

Each plan is looked at with every choice of dtypes and token budget and, where the study leaves the load open, at a
range of loads: one plan can give several points of the front. Points that break a limit are never on it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from autotune.disaggregated.front import pool_front
from autotune.metrics import COST, MAXIMIZE, METRICS, MINIMIZE, PER_GPU
from autotune.scoring.best_knobs import KnobGridAtLoad, candidate_grid
from autotune.scoring.dominance import nondominated
from autotune.scoring.knob_grid import KnobGrid
from autotune.scoring.objective import figure
from autotune.scoring.plan_result import PlanResult, plan_key
from autotune.scoring.solve_concurrency import bounds, in_range, most_within_limits, solve_concurrency
from autotune.scoring.trial_record import Recorder, plan_of
from autotune.space import Candidate, Space
from autotune.storage import Store, TrialRecord
from autotune.study import IntRange, Objective, Study, cluster_choices
from autotune.tuning.batches import sample_missing, score_missing
from autotune.tuning.executor import Executor
from autotune.tuning.study_space import covered, study_space
from costmodel.plan.columns import Floats, Ints

LOADS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.0)
"""Shares of the most requests in flight that keep the limits; 0 is one per replica."""
POINTS_ATTR = "points"
"""Attribute of a plan's own result: how many others of the plan are stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The answer to a study with several objectives."""

    study: Study
    goals: tuple[tuple[str, str], ...]
    """Metric and direction (`maximize` or `minimize`) of every objective."""
    complete: bool
    """Whether every valid plan was scored, so that the front is that of the whole space."""
    space: Space
    points: tuple[PlanResult, ...]
    """By the first objective, best first; several may be one plan with other knobs."""
    plans_scored: int
    feasible: int
    """Plans that keep every limit with some knobs."""
    nearest: PlanResult | None
    """Of the plans that keep no limit, where none is feasible."""
    scored_now: int
    """Plans scored by this run."""
    elapsed_s: float
    storage: str | None


def study_goals(study: Study) -> tuple[tuple[str, str], ...]:
    """Throughput (the study's own, if its objective is one), TTFT, TPOT, and the cost where every GPU has a price."""
    own = study.objective
    metric = own.metric if own.direction == MAXIMIZE and not METRICS[own.metric].simulated else PER_GPU
    goals = [(metric, MAXIMIZE), ("ttft_s", MINIMIZE), ("tpot_s", MINIMIZE)]
    if all(c.gpu.price_per_hour is not None for c in cluster_choices(study)):
        goals.append((COST, MINIMIZE))
    return tuple(goals)


def front_study(study: Study) -> Study:
    """The study as its front is found, with what that leaves out among the assumptions."""
    said = []
    if METRICS[study.objective.metric].simulated:
        said.append(f"{study.objective.metric} is throughput per GPU in the Pareto front, and the limits are on means")
        study = replace(study, objective=Objective(metric=PER_GPU, direction=MAXIMIZE))
    if len(study_goals(study)) < 4:
        said.append("no price of every GPU type given: cost is no objective of the Pareto front")
    if study.workload.concurrency is None and study.workload.request_rate_per_s is None:
        said.append(
            f"Pareto front: every plan is looked at under {len(LOADS)} loads, up to the most within the limits, and "
            "under the one by which it is ranked"
        )
    return replace(study, assumptions=tuple(dict.fromkeys((*study.assumptions, *said))))


def pareto(
    study: Study,
    store: Store | None = None,
    *,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Front:
    """The Pareto front of a study over `study_goals`.

    The baseline is left out. `store` is opened with the goals' directions (None: nothing is kept); without an
    `executor` this process scores; `progress` is called with (plans done, plans in all).

    Raises:
        InputError: the storage fails.
    """
    start = time.perf_counter()
    study = front_study(study)
    goals, space = study_goals(study), study_space(study)
    keys = {plan_key(c) for c in space.candidates}
    found, whole = _stored([] if store is None else store.records(), keys)
    missing = [c for c in space.candidates if plan_key(c) not in whole]
    before, everything = len(whole), len(space.candidates)
    told = None if progress is None else lambda done: progress(before + done, everything)
    recorder = Recorder.of(study, space.candidates, goals)

    def keep(results: Sequence[PlanResult]) -> int:
        return len(results) if store is None else store.add(_records(recorder, results))

    batches = (
        score_missing(study, missing, executor or Executor(), keep=keep, progress=told, scorer=front_rows)
        if covered(study, everything)
        else sample_missing(study, missing, found, keep=keep, progress=told, scorer=front_rows, goals=goals)
    )
    done: set[str] = set()
    for batch, _ in batches:
        done |= {p.plan for p in batch}
        found += batch
        found = _kept(found, goals)
        whole |= done
    pooled = [] if study.axes.disaggregated == "off" else _one_of_each(pool_front(study, goals), goals)
    if store is not None:
        store.add([recorder.record(p) for p in pooled])
    found += pooled
    feasible = {p.plan for p in found if p.feasible}
    points = [p for p in found if p.feasible]
    mask = nondominated(goal_values(points, goals))
    first = goals[0][0]
    front = sorted(
        (p for p, keep in zip(points, mask, strict=True) if keep),
        key=lambda p: (-METRICS[first].sign * p.metrics[first], p.key),
    )
    broken = sorted((p for p in found if not p.feasible), key=lambda p: (len(p.violations), p.plan))
    return Front(
        study=study,
        goals=goals,
        complete=len(whole) == everything,
        space=space,
        points=tuple(front),
        plans_scored=len(whole),
        feasible=len(feasible),
        nearest=None if feasible or not broken else broken[0],
        scored_now=len(done),
        elapsed_s=time.perf_counter() - start,
        storage=None if store is None else store.location,
    )


def _stored(records: Sequence[TrialRecord], keys: Set[str]) -> tuple[list[PlanResult], set[str]]:
    """Stored results of plans of which all are there, and those plans."""
    own = {r.key: r.attrs[POINTS_ATTR] for r in records if POINTS_ATTR in r.attrs and r.key in keys}
    plans = [plan_of(r) for r in records]
    points = Counter(p.plan for p in plans if p.variant)
    whole = {plan for plan, count in own.items() if points[plan] == count}
    return [p for p in plans if p.plan in whole], whole


def _records(recorder: Recorder, results: Sequence[PlanResult]) -> list[TrialRecord]:
    """Results as trials; a plan's own says how many others it has, so that what a torn write lacks is seen."""
    points = Counter(p.plan for p in results if p.variant)
    return [recorder.record(p, **({} if p.variant else {POINTS_ATTR: points[p.plan]})) for p in results]


def _kept(found: Sequence[PlanResult], goals: Sequence[tuple[str, str]]) -> list[PlanResult]:
    """What later results can still need: the front so far, and one result of every plan."""
    points = [p for p in found if p.feasible]
    mask = nondominated(goal_values(points, goals))
    on_front = {p.key for p, keep in zip(points, mask, strict=True) if keep}
    return [p for p in found if not p.variant or p.key in on_front]


def goal_values(plans: Sequence[PlanResult], goals: Sequence[tuple[str, str]]) -> Floats:
    """Objectives with more being better, shape `(plans, goals)`."""
    table = np.array([[p.metrics[name] for name, _ in goals] for p in plans], dtype=np.float64).reshape(-1, len(goals))
    return _larger_is_better(table, goals)


def _larger_is_better(table: Floats, goals: Sequence[tuple[str, str]]) -> Floats:
    """Figures of shape `(plans, goals)` as coordinates; what is not known is infinitely bad."""
    return np.nan_to_num(table * np.array([METRICS[name].sign for name, _ in goals]), nan=-np.inf)


def front_rows(study: Study, candidates: Sequence[Candidate]) -> list[PlanResult]:
    """Of some candidates, the settings that no other dominates, and last of each plan its best by objective."""
    if not candidates:
        return []
    goals = study_goals(study)
    grid, owner = candidate_grid(study, candidates)
    tried = KnobGridAtLoad.each(grid, front_loads(grid, owner))
    columns = [figure(tried.scored.estimate, name, tried.scored.price_per_hour) for name, _ in goals]
    values = _larger_is_better(np.stack(columns, axis=1), goals)
    wanted = np.flatnonzero(tried.scored.check.kept())
    wanted = wanted[nondominated(values[wanted])]
    best = tried.best_of_each(owner)
    extra = [tried.result(at).apart() for at in wanted.tolist() if at != best[owner[at % owner.size]]]
    unique = {p.key: p for p in extra}
    return [*unique.values(), *(tried.result(at) for at in best.tolist())]


def front_loads(grid: KnobGrid, owner: Ints) -> list[Floats]:
    """Requests in flight over all replicas that every row is looked at under: those that the study gives or lists, or
    else the load that it is ranked by (`solve_concurrency`, where `owner` is explained) and shares of the most within
    its limits, at least one per replica."""
    study, rows = grid.study, grid.variant.size
    asked, work = study.search.concurrency, study.workload
    if work.concurrency is not None or work.request_rate_per_s is not None:
        return [solve_concurrency(grid)]
    if asked is not None and not isinstance(asked, IntRange):
        return [np.full(rows, float(value)) for value in asked]
    replicas, most = grid.batch.layout.replicas, most_within_limits(grid)
    least = bounds(study, replicas)[0] * replicas
    tried = [np.maximum(np.floor(most * share / replicas) * replicas, least) for share in LOADS]
    return [solve_concurrency(grid, owner), *(in_range(study, concurrency) for concurrency in tried)]


def _one_of_each(pooled: Sequence[PlanResult], goals: Sequence[tuple[str, str]]) -> list[PlanResult]:
    """The points: of loads that round to the same requests in flight, the best by the first goal."""
    name = goals[0][0]
    worst_first = sorted((p.apart() for p in pooled), key=lambda p: METRICS[name].sign * p.metrics[name])
    return list({p.key: p for p in worst_first}.values())
