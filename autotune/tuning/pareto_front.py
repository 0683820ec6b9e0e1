"""Several objectives: the plans, with their knobs, that no other is at least as good as in all of them.

Each plan is looked at with every choice of dtypes and token budget and, where the study leaves the load open, at a
range of loads: one plan can give several points of the front. Points that break a limit are never on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.metrics import COST, MAXIMIZE, METRICS, MINIMIZE, PER_GPU
from autotune.scoring.best_knobs import KnobGridAtLoad, candidate_grid, loads
from autotune.scoring.dominance import nondominated
from autotune.scoring.objective import Standing, figure
from autotune.scoring.plan_result import VARIANT, PlanResult, from_record, plan_key
from autotune.space import Candidate, Space
from autotune.storage import Store
from autotune.study import Objective, Study, cluster_choices
from autotune.tuning.executor import Pool
from autotune.tuning.workers import covered, sample_missing, score_missing, study_space
from costmodel.errors import InputError
from costmodel.plan.columns import Floats

LOADS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.0)
"""Shares of the most requests in flight that keep the limits; 0 is one per replica."""


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
    metric = study.objective.metric if study.objective.direction == MAXIMIZE else PER_GPU
    goals = [(metric, MAXIMIZE), ("ttft_s", MINIMIZE), ("tpot_s", MINIMIZE)]
    if all(c.gpu.price_per_hour is not None for c in cluster_choices(study)):
        goals.append((COST, MINIMIZE))
    return tuple(goals)


def front_study(study: Study) -> Study:
    """The study as its front is found, with what that leaves out among the assumptions.

    Raises:
        InputError: only disaggregated plans are asked for.
    """
    if study.axes.disaggregated == "only":
        raise InputError.single("--pareto", 'must go with plans of one kind of replica, got disaggregated="only"')
    said = []
    if study.axes.disaggregated != "off":
        said.append("search.disaggregated is left out of the Pareto front: plans of one kind of replica alone")
    if len(study_goals(study)) < 4:
        said.append("no price of every GPU type given: cost is no objective of the Pareto front")
    if study.workload.concurrency is None and study.workload.request_rate_per_s is None:
        said.append(f"Pareto front: every plan is looked at under {len(LOADS)} loads, up to the most within the limits")
    axes = replace(study.axes, disaggregated="off")
    return replace(study, axes=axes, assumptions=tuple(dict.fromkeys((*study.assumptions, *said))))


def pareto(
    study: Study,
    store: Store | None = None,
    *,
    pool: Pool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Front:
    """The Pareto front of a study over `study_goals`, alone or with others on the same store.

    Args:
        study: from `load_study`; the baseline is left out.
        store: opened with the goals' directions. None: nothing is kept.
        pool: what scores; None: this process.
        progress: called with (plans done, plans in all).

    Raises:
        InputError: as `front_study`, or the storage fails.
    """
    start = time.perf_counter()
    study = front_study(study)
    goals, space = study_goals(study), study_space(study)
    keys = {plan_key(c) for c in space.candidates}
    stored = [] if store is None else [from_record(r) for r in store.records()]
    # a plan is done when its own result is stored: that is written after its others
    whole = {p.plan for p in stored if not p.variant and p.plan in keys}
    found = [p for p in stored if p.plan in whole]
    missing = [c for c in space.candidates if plan_key(c) not in whole]
    before, everything = len(whole), len(space.candidates)
    told = None if progress is None else lambda done: progress(before + done, everything)
    asked = {"progress": told, "scorer": front_rows, "goals": goals}
    if covered(study, everything):
        batches = score_missing(study, missing, store, pool or Pool(), **asked)  # type: ignore[arg-type]
    else:
        batches = sample_missing(study, missing, found, store, **asked)  # type: ignore[arg-type]
    done: set[str] = set()
    for batch, _ in batches:
        done |= {p.plan for p in batch}
        found += batch
        found = _kept(found, goals)
        whole |= done
    if store is not None and covered(study, everything):
        theirs = [from_record(r) for r in store.records()]
        found = [p for p in theirs if p.plan in keys]
        whole = {p.plan for p in found if not p.variant}
    elif store is None:
        whole |= done
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
    # the most within the limits, whatever the study's objective: what is least depends on the goal
    most = replace(study, objective=Objective(metric=PER_GPU, direction=MAXIMIZE))
    tried = [KnobGridAtLoad(grid, load) for load in loads(replace(grid, study=most), LOADS)]
    values = np.concatenate([_row_values(t, goals) for t in tried])
    feasible = np.concatenate([t.scored.check.kept() for t in tried])
    wanted = np.flatnonzero(feasible)
    wanted = wanted[nondominated(values[wanted])]
    best = Standing.stack([t.scored.standing for t in tried]).first_of_each(owner)
    size = owner.size
    extra = [_named(tried[at // size].result(int(at % size))) for at in wanted.tolist() if at != best[owner[at % size]]]
    unique = {p.key: p for p in extra}
    return [*unique.values(), *(tried[at // size].result(int(at % size)) for at in best.tolist())]


def _row_values(tried: KnobGridAtLoad, goals: Sequence[tuple[str, str]]) -> Floats:
    scored = tried.scored
    columns = [figure(scored.estimate, name, scored.price_per_hour) for name, _ in goals]
    return _larger_is_better(np.stack(columns, axis=1), goals)


def _named(plan: PlanResult) -> PlanResult:
    k = plan.knobs
    knobs = (k.concurrency, k.max_num_batched_tokens, k.weight_dtype or "", k.kv_dtype or "")
    return replace(plan, variant=VARIANT + VARIANT.join(map(str, knobs)))
