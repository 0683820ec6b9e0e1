"""The disaggregated plans of a study that no other is at least as good as in all of several goals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autotune.disaggregated.local_prefill import by_local_prefill
from autotune.disaggregated.operating_points import served_together
from autotune.disaggregated.pairs import Choice, Pair
from autotune.disaggregated.plan_results import pair_results
from autotune.disaggregated.refine_loads import at_best_loads
from autotune.disaggregated.role_candidates import RoleCandidates
from autotune.disaggregated.search import pool_sides, search_pools
from autotune.disaggregated.splits import barred
from autotune.metrics import METRICS
from autotune.scoring.dominance import nondominated
from autotune.scoring.limits import check_limits, study_limits
from autotune.scoring.objective import figure
from autotune.scoring.plan_result import PlanResult
from autotune.study import Objective, Study, cluster_choices, on_cluster
from costmodel.plan.columns import Floats

Goals = Sequence[tuple[str, str]]
"""Metric and direction of every goal."""


def pool_front(study: Study, goals: Goals) -> list[PlanResult]:
    """Disaggregated plans within the limits, with their loads; every one on the front of all pairs is among them.

    A pair is no better in any goal than with points that dominate its own, as at the head of
    `autotune.disaggregated.search`: undominated points of every split are joined, and what is dominated is dropped.
    Where the study fixes the requests in flight, dominance says nothing of the wait in front of the pools: then these
    are the best by each goal.
    """
    out: list[PlanResult] = []
    clusters = (on_cluster(study, cluster) for cluster in cluster_choices(study))
    for own in (own for home in clusters for own in by_local_prefill(home)):
        pairs = _best_by_each(own, goals) if study.workload.concurrency is not None else _undominated(own, goals)
        out += pair_results(own, pairs, home=study.cluster.gpu.name)
    return [plan for plan in out if plan.feasible]


def _best_by_each(study: Study, goals: Goals) -> list[Pair]:
    asked = [replace(study, objective=Objective(metric=name, direction=direction)) for name, direction in goals]
    return [pair for own in asked for pair in at_best_loads(own, search_pools(own).pairs) if pair.feasible]


def _undominated(study: Study, goals: Goals) -> list[Pair]:
    pairs: list[Pair] = []
    values = np.empty((0, len(goals)))
    for sides in pool_sides(study):
        first, second = (RoleCandidates(study, side, feasible=True) for side in (sides.prefill, sides.decode))
        for split in sides.splits:
            if not (first.has(split[0]) and second.has(split[1])):
                continue
            choices = [
                side.undominated(choice := side.of_size(gpus), np.zeros(choice.index.size), 1, -np.inf)
                for side, gpus in zip((first, second), split, strict=True)
            ]
            found, own = _joined(study, choices[0], choices[1], goals)
            pairs, values = [*pairs, *found], np.concatenate([values, own])
            keep = np.flatnonzero(nondominated(values))
            pairs, values = [pairs[i] for i in keep], values[keep]
    return pairs


def _joined(study: Study, first: Choice, second: Choice, goals: Goals) -> tuple[list[Pair], Floats]:
    """Undominated pairs of points within the limits, and their goals with more being better."""
    rows, columns = (a.ravel() for a in np.indices((first.index.size, second.index.size)))
    clusters = first.points.rows.cluster, second.points.rows.cluster
    service, price = served_together(
        study, clusters[0], first.columns.take(rows), clusters[1], second.columns.take(columns)
    )
    kept = check_limits(study_limits(study), service).kept()
    kept &= ~barred(first.points, first.index, second.points, second.index).ravel()
    own = np.stack([METRICS[name].sign * figure(service, name, price) for name, _ in goals], axis=1)
    own = np.nan_to_num(own, nan=-np.inf)
    at = np.flatnonzero(kept)
    at = at[nondominated(own[at])]
    pairs = [
        Pair.of(first, i, second, j, feasible=True, key=0.0)
        for i, j in zip(rows[at].tolist(), columns[at].tolist(), strict=True)
    ]
    return pairs, own[at]
