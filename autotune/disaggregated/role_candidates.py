"""The operating points of one role, by pool size, and what rules them out."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from autotune.disaggregated.operating_points import OperatingPoints, demand, served_together
from autotune.disaggregated.pairs import Choice, ranking_key
from autotune.disaggregated.splits import pair_coordinates
from autotune.scoring.dominance import skyband
from autotune.scoring.limits import study_limits
from autotune.study import Study
from costmodel.disaggregated.pairing import Demand
from costmodel.disaggregated.pool_point import PoolColumns
from costmodel.hardware import Cluster
from costmodel.plan.columns import Bools, Floats, Ints

LARGER_IS_BETTER = frozenset({"requests_per_s", "able_per_s", "busy_s", "kv_fits_longest", "kv_capacity_sequences"})
"""Columns of a pool; of the others less is better, or all pools of a size are alike."""
FIRST_LAYOUTS = 8
"""Layouts of either side of a split that are joined in the first round, whose plans bound what the second one joins."""
Pools = tuple[Cluster, PoolColumns]
"""Pools of one role, and the GPUs that they are of."""


class RoleCandidates:
    """The points of one role, by pool size, with what can rule them out."""

    def __init__(self, study: Study, points: OperatingPoints, *, feasible: bool) -> None:
        """`feasible` leaves only points that plans within the limits have."""
        self.study, self.points, self.feasible = study, points, feasible
        self.excess = memory_excess(study, points)
        self._coordinates = coordinates(study, points, self.excess)
        allowed = np.flatnonzero((self.excess <= 0.0) | (not feasible))
        gpus = points.gpus[allowed]
        self._gpus = np.unique(gpus)
        """GPUs of layouts, ascending."""
        order = np.argsort(gpus, kind="stable")
        self._starts = np.searchsorted(gpus[order], self._gpus)
        self._by_gpus = allowed[order]
        self._ideals = _bests(points.columns.take(self._by_gpus), self._starts)

    @property
    def cluster(self) -> Cluster:
        """The GPUs that the pools are of."""
        return self.points.rows.cluster

    def has(self, gpus: int) -> bool:
        """Whether there is a point of a pool size."""
        return bool(self._filling(gpus).size)

    def of_size(self, gpus: int) -> Choice:
        """All points of pools of a size."""
        ends = np.append(self._starts[1:], self._by_gpus.size)
        parts = [self._by_gpus[self._starts[i] : ends[i]] for i in self._filling(gpus)]
        return Choice.of(self.points, np.sort(np.concatenate(parts)), gpus)

    def ideal(self, gpus: int) -> PoolColumns:
        """One pool of a size that is in everything as good as the best of that; there must be a point of that size."""
        filling = self._filling(gpus)
        best = self._ideals.take(filling).times(gpus / self._gpus[filling])
        return _bests(best, np.zeros(1, dtype=np.int64))

    def _filling(self, gpus: int) -> Ints:
        """Of `_gpus`, those whose layouts fill a pool of so many GPUs."""
        # a rate is asked of the whole pool, so that its points are of no other number of replicas
        whole = self.study.workload.request_rate_per_s is not None
        return np.flatnonzero(self._gpus == gpus if whole else gpus % self._gpus == 0)

    def most_promising(self, choice: Choice, bounds: Floats) -> Choice:
        """All points of the few layouts that could do most by the bounds of their points."""
        starts = choice.firsts
        most = np.maximum.reduceat(bounds, starts)
        good = np.zeros(most.size, dtype=bool)
        good[np.argsort(-most, kind="stable")[:FIRST_LAYOUTS]] = True
        return _of_layouts(choice, good & (most > -np.inf))

    def undominated(self, choice: Choice, bounds: Floats, keep: int, least: float) -> Choice:
        """Points of a pool size that can be part of one of the `keep` best plans, of which `least` is the worst.

        `bounds` are of each point: no plan with it comes before.
        """
        good = (bounds >= least) & (bounds > -np.inf)
        if self.study.workload.concurrency is not None:
            # a slower pool may shorten the wait in front: all points of a layout, or none
            return _of_layouts(choice, np.logical_or.reduceat(good, choice.firsts))
        left = np.flatnonzero(good)
        return _picked(choice, left[skyband(self._coordinates[choice.index[left]], choice.layout[left], keep)])


def coordinates(study: Study, points: OperatingPoints, excess: Floats) -> Floats:
    """What a plan can be better by, larger is better, shape `(points, coordinates)`; the same for every pool size."""
    c, own = study.constraints, points.columns
    smaller = [own.latency_s, own.longest_extra_s, own.log_sd, own.rate_log_sd, own.wire_s, own.slot_wait_s, excess]
    if study.axes.local_prefill is not None:
        # of prompts that a decode pool prefills its latency says nothing, and what takes them longer leaves others less
        first_s = own.latency_s if points.rows.role == "prefill" else own.entry_s
        smaller[1:2] = [first_s, first_s + own.longest_extra_s]
    larger = [own.requests_per_s / own.gpus, *pair_coordinates(points)]
    if study.workload.request_rate_per_s is not None:
        larger.append(own.able_per_s / own.gpus)
    if c.min_stage_tokens_per_s_per_gpu is not None:
        smaller.append(own.stage_gpus / own.gpus)
    if c.min_gpu_util_frac is not None:
        larger.append(own.busy_s)
    columns = [*larger, *(-column for column in smaller)]
    apart = [column for column in columns if np.ptp(column) > 0.0]  # what all share decides nothing
    return np.stack(apart or columns[:1], axis=1)


def _bests(columns: PoolColumns, starts: Ints) -> PoolColumns:
    """Of each run of pools, from each start to the next, one that is in everything as good as the best of them."""
    if not starts.size:
        return columns
    best = {
        f.name: (np.maximum if f.name in LARGER_IS_BETTER else np.minimum).reduceat(getattr(columns, f.name), starts)
        for f in fields(PoolColumns)
    }
    return PoolColumns(**best)


def bounds(study: Study, first: Pools, second: Pools, *, feasible: bool) -> Floats:
    """Ranking key of pools that prefill and pools that decode, entry `i` with entry `i`: no plan with both exceeds it.

    Requests in flight that the study fixes are taken as the most that are admitted: what waits in front depends on both
    pools, and only adds to the time of a request.
    """
    asked = demand(study)
    if asked.in_flight is not None:
        asked = Demand(most_in_flight=asked.in_flight)
    pair, price = served_together(study, *first, *second, asked)
    return ranking_key(study, pair, price, feasible=feasible)


def _of_layouts(choice: Choice, good: Bools) -> Choice:
    """All points of some of the layouts."""
    return _picked(choice, np.flatnonzero(np.repeat(good, np.diff([*choice.firsts, choice.index.size]))))


def _picked(choice: Choice, index: Ints) -> Choice:
    return replace(choice, index=choice.index[index], copies=choice.copies[index])


def memory_excess(study: Study, points: OperatingPoints) -> Floats:
    """Worst relative excess over the limits on the pool's own memory, shape `(points,)`."""
    worst = np.zeros(points.row.size)
    for limit in study_limits(study):
        if limit.code in ("kv_capacity", "memory_util_frac"):
            worst = np.maximum(worst, limit.excess(getattr(points.columns, limit.kind.metric)) / limit.size)
    return worst
