"""Workers of two pools as what a day scales: which shapes there are, and what one of each takes within the limits.

What workers take is found for a prefill worker and a decode worker, whatever the size of the cluster: TTFT has parts of
both, so that the one may take what the other leaves of it, and of all loads of both that keep the limits together those
count, in each step of a day, with which the fewest GPUs take what comes. Prompts' caches are taken to go over the
network: workers of either pool start anywhere.

Every pair of shapes is looked at that the engine takes and the cluster holds. Left out is a load of a worker that
another one of no more GPUs is as good as in everything: no number of workers is better for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.disaggregated.local_prefill import by_local_prefill
from autotune.disaggregated.operating_points import OperatingPoints, at_shares, served_together
from autotune.disaggregated.pairs import JOIN_ROWS, Pair
from autotune.disaggregated.plan_results import pair_results
from autotune.disaggregated.rescore import as_launched, launched_rows
from autotune.disaggregated.role_candidates import coordinates, memory_excess
from autotune.disaggregated.search import pool_sides
from autotune.disaggregated.splits import barred
from autotune.scoring.dominance import skyband
from autotune.scoring.limits import check_limits, study_limits
from autotune.scoring.objective import Standing
from autotune.study import Study
from autotune.tuning import PlanResult
from costmodel.plan.columns import Bools, Floats, Ints

CLOSER = np.linspace(1.0, 0.02, 99)
"""Shares of what a worker can do at most at which one that was chosen is looked at."""
MOST_WORKERS = 4
"""Of each pool, of a few that suit each other."""


def across_nodes(study: Study) -> Study:
    """The study with caches that go over the network, however few GPUs the cluster has."""
    return replace(study, axes=replace(study.axes, one_domain=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPair:
    """A prefill worker and a decode worker, each at the load at which a request takes the fewest GPU-seconds."""

    study: Study
    """With one setting of the front."""
    prefill: OperatingPoints
    prefill_at: int
    decode: OperatingPoints
    decode_at: int
    gpu_s: float
    """Of a request."""
    held: Floats
    """GPUs that each load takes, at the loads of the workers that suit it best, shape `(steps,)`."""

    @property
    def each_per_s(self) -> tuple[float, float]:
        """Requests per second that one worker of each pool takes."""
        sides = (self.prefill, self.prefill_at), (self.decode, self.decode_at)
        first, second = (float(points.columns.requests_per_s[at]) for points, at in sides)
        return first, second

    @property
    def gpus(self) -> tuple[int, int]:
        """Of one worker of each pool."""
        return int(self.prefill.gpus[self.prefill_at]), int(self.decode.gpus[self.decode_at])

    @property
    def shape(self) -> tuple[object, ...]:
        """What pairs share that differ in knobs alone."""
        sides = (self.prefill, self.prefill_at), (self.decode, self.decode_at)
        return (self.prefill.rows.engine, *(points.layout_at(at, 1) for points, at in sides))

    def few(self) -> PlanResult:
        """As a plan of a few workers that take about the same."""
        copies = few_that_suit(self.each_per_s)
        pair = Pair(
            prefill=self.prefill,
            prefill_at=self.prefill_at,
            prefill_copies=copies[0],
            decode=self.decode,
            decode_at=self.decode_at,
            decode_copies=copies[1],
            feasible=True,
            key=0.0,
        )
        return pair_results(self.study, [pair], home=self.study.cluster.gpu.name)[0]


def few_that_suit(each_per_s: Sequence[float]) -> tuple[int, ...]:
    """As few workers of both pools as take about the same; of one kind of replica one."""
    if len(each_per_s) == 1:
        return (1,)
    prefill, decode = each_per_s
    pairs = [(p, d) for p in range(1, MOST_WORKERS + 1) for d in range(1, MOST_WORKERS + 1)]
    return min(
        pairs, key=lambda pair: (round(abs(float(np.log(pair[0] * prefill / (pair[1] * decode)))), 2), sum(pair))
    )


def worker_pairs(study: Study, load_per_s: Floats) -> list[WorkerPair]:
    """Every pair of worker shapes that keeps the limits at some load; `load_per_s`: of each step, shape `(steps,)`."""
    best: dict[tuple[object, ...], WorkerPair] = {}
    for own in by_local_prefill(across_nodes(study)):
        for side in pool_sides(own):
            if side.prefill.rows.cluster is not own.cluster or side.decode.rows.cluster is not own.cluster:
                continue  # the schedule counts GPUs of one type
            for pair in _pairs_of(own, side.prefill, side.decode, load_per_s):
                known = best.get(pair.shape)
                if known is None or (pair.held.sum(), pair.gpu_s) < (known.held.sum(), known.gpu_s):
                    best[pair.shape] = pair
    return [pair for pair in best.values() if sum(pair.gpus) <= study.cluster.gpus]


def worker_rates(study: Study, plan: PlanResult, load_per_s: Floats) -> Floats:
    """Requests per second that one worker of each pool of a plan takes, shape `(2, steps)`; 0 where no load is in time.

    Args:
        study: traffic and limits.
        plan: of two pools.
        load_per_s: of each step.
    """
    own = across_nodes(as_launched(study, plan))
    first, second = (at_shares(rows, CLOSER) for rows in launched_rows(own, plan))
    replicas = [points.rows.layouts[0].layout.replicas for points in (first, second)]
    out = np.zeros((2, load_per_s.size))
    joined = _Joined.of(own, first, second)
    if not joined.gpu_s.size:
        return out
    each = np.stack([joined.each_per_s[side] / replicas[side] for side in (0, 1)])
    gpus = [points.gpus[0] / copies for points, copies in zip((first, second), replicas, strict=True)]
    for step, load in enumerate(load_per_s.tolist()):
        workers = fewest(load, each)
        held = workers[0] * gpus[0] + workers[1] * gpus[1]
        room = np.where(held <= held.min() + 1e-9, (workers * each).min(axis=0), -np.inf)
        out[:, step] = each[:, room.argmax()]
    return out


def fewest(load_per_s: float | Floats, each_per_s: Floats) -> Floats:
    """The fewest workers, at least one, that take a load."""
    return np.maximum(np.ceil(load_per_s / each_per_s - 1e-9), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joined:
    """Points of two tables that keep the limits together. Arrays have shape `(joined,)`, those of pools a row each."""

    first: Ints
    second: Ints
    shape: Ints
    """Which pair of layouts it is."""
    each_per_s: Floats
    gpus: Floats
    """Of one copy of the layout."""
    gpu_s: Floats
    """Of a request."""

    @classmethod
    def of(cls, study: Study, prefill: OperatingPoints, decode: OperatingPoints) -> _Joined:
        """All of them that may be worth something."""
        first, second = (_worth_joining(study, points) for points in (prefill, decode))
        block = max(JOIN_ROWS // max(second.size, 1), 1)
        parts = [
            _kept(study, prefill, np.repeat(rows, second.size), decode, np.tile(second, rows.size))
            for rows in np.split(first, range(block, first.size, block))
        ]
        i, j, gpu_s = (np.concatenate(column) for column in zip(*parts, strict=True))
        return cls(
            first=i,
            second=j,
            shape=prefill.layout[i] * (int(decode.layout.max()) + 1) + decode.layout[j],
            each_per_s=np.stack([prefill.columns.requests_per_s[i], decode.columns.requests_per_s[j]]),
            gpus=np.stack([prefill.gpus[i], decode.gpus[j]]).astype(np.float64),
            gpu_s=gpu_s,
        )


def _pairs_of(
    study: Study, prefill: OperatingPoints, decode: OperatingPoints, load_per_s: Floats
) -> Iterator[WorkerPair]:
    """The pairs of layouts of two tables that keep the limits at some load."""
    joined = _Joined.of(study, prefill, decode)
    shapes, back = np.unique(joined.shape, return_inverse=True)
    held = np.full((load_per_s.size, shapes.size), np.inf)
    for step, load in enumerate(load_per_s.tolist()):
        np.minimum.at(held[step], back, (fewest(load, joined.each_per_s) * joined.gpus).sum(axis=0))
    order = np.lexsort((joined.gpu_s, back))
    for shape, place in enumerate(order[np.searchsorted(back[order], np.arange(shapes.size))].tolist()):
        yield WorkerPair(
            study=study,
            prefill=prefill,
            prefill_at=int(joined.first[place]),
            decode=decode,
            decode_at=int(joined.second[place]),
            gpu_s=float(joined.gpu_s[place]),
            held=held[:, shape],
        )


def _kept(
    study: Study, prefill: OperatingPoints, p: Ints, decode: OperatingPoints, d: Ints
) -> tuple[Ints, Ints, Floats]:
    """Of points of both tables, entry by entry, those that keep the limits, and the GPU-seconds of a request."""
    sides = [(points.rows.cluster, points.columns.take(at)) for points, at in ((prefill, p), (decode, d))]
    # as many workers of either pool as take one request per second
    alike = [(cluster, columns.times(1.0 / columns.requests_per_s)) for cluster, columns in sides]
    pair, price = served_together(study, *alike[0], *alike[1])
    limits = study_limits(study)
    kept = Standing.of(study, limits, check_limits(limits, pair), pair, price).worst <= 0.0
    forbidden = _forbidden(prefill, decode)[prefill.layout[p], decode.layout[d]]
    good = np.flatnonzero(kept & ~forbidden)
    return p[good], d[good], np.broadcast_to(pair.gpus, p.shape)[good]


def _forbidden(prefill: OperatingPoints, decode: OperatingPoints) -> Bools:
    """Pairs of layouts that a rule of the engine forbids."""
    firsts = [np.unique(points.layout, return_index=True) for points in (prefill, decode)]
    out = np.ones([points.degrees.pp.size for points in (prefill, decode)], dtype=bool)
    (a, p), (b, d) = firsts
    out[np.ix_(a, b)] = barred(prefill, p, decode, d)
    return out


def _worth_joining(study: Study, points: OperatingPoints) -> Ints:
    """Points that keep the pool's own limits, but those that one of another shape with no more GPUs is as good as."""
    excess = memory_excess(study, points)
    allowed = np.flatnonzero((excess <= 0.0) & (points.columns.requests_per_s > 0.0))
    if not allowed.size:
        return allowed
    own = points.columns
    better = np.stack([own.requests_per_s, -own.gpus], axis=1)
    whole = np.hstack([coordinates(study, points, excess), better])[allowed]
    return allowed[skyband(whole, points.layout[allowed], 1)]
