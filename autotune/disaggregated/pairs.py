"""Pairs of pools: operating points of either side joined, and the best pair of points of each pair of layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from autotune.disaggregated.operating_points import OperatingPoints, served_together
from autotune.disaggregated.splits import barred
from autotune.engines import ENGINES
from autotune.scoring.limits import check_limits, study_limits
from autotune.scoring.objective import Standing
from autotune.study import Study
from costmodel.disaggregated.pool_point import PoolColumns
from costmodel.estimate.result import Service
from costmodel.plan.columns import Floats, Ints

_T = TypeVar("_T")
ALIKE = 1e-9
"""Relative distance within which two pairs of points count as ranking alike."""
NEAR = 0.05
"""By how much less a plan may be worth at the best of the loads that are tried than at the best of all, as a share."""
JOIN_ROWS = 400_000
"""Pairs of points joined at once, for memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Some points of one side, each with as many times its layout's replicas as fill the pool."""

    points: OperatingPoints
    index: Ints
    """Ascending, so that points of a layout lie together. Shape `(chosen,)`."""
    copies: Ints
    """Times the replicas of each, shape `(chosen,)`."""

    @classmethod
    def of(cls, points: OperatingPoints, index: Ints, gpus: int) -> Choice:
        """Points whose layouts fill a pool of so many GPUs."""
        return cls(points=points, index=index, copies=gpus // points.gpus[index])

    @property
    def columns(self) -> PoolColumns:
        """What the pools do."""
        return self.points.columns.take(self.index).times(self.copies.astype(np.float64))

    @property
    def layout(self) -> Ints:
        """Which layout each point is of."""
        return self.points.layout[self.index]

    def slice(self, part: slice) -> Choice:
        """Those of one part."""
        return replace(self, index=self.index[part], copies=self.copies[part])

    @property
    def firsts(self) -> Ints:
        """Where the points of each layout begin."""
        layout = self.layout
        return np.flatnonzero(np.r_[True, layout[1:] != layout[:-1]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One disaggregated plan: a point of each pool."""

    prefill: OperatingPoints
    prefill_at: int
    prefill_copies: int
    """Times that the replicas of the point's layout are in the pool."""
    decode: OperatingPoints
    decode_at: int
    decode_copies: int
    feasible: bool
    key: float
    """Place among all feasible pairs or among all others, higher is better."""

    @classmethod
    def of(cls, first: Choice, i: int, second: Choice, j: int, *, feasible: bool, key: float) -> Pair:
        """The pair of one point of either side, by their places among those that are chosen."""
        return cls(
            prefill=first.points,
            prefill_at=int(first.index[i]),
            prefill_copies=int(first.copies[i]),
            decode=second.points,
            decode_at=int(second.index[j]),
            decode_copies=int(second.copies[j]),
            feasible=feasible,
            key=key,
        )

    @property
    def layouts(self) -> tuple[object, ...]:
        """What makes two pairs the same plan: both sides' GPU type and layout."""
        sides = (
            (self.prefill, self.prefill_at, self.prefill_copies),
            (self.decode, self.decode_at, self.decode_copies),
        )
        return (self.prefill.rows.engine, *((p.rows.cluster.gpu.name, p.layout_at(i, n)) for p, i, n in sides))


def of_each_table(pairs: Sequence[Pair], answer: Callable[[Sequence[Pair]], Sequence[_T]]) -> list[_T]:
    """What `answer` makes of each pair, in their order, asked once for all that share both tables of points."""
    groups: dict[tuple[int, int], list[int]] = {}
    for at, pair in enumerate(pairs):
        groups.setdefault((id(pair.prefill), id(pair.decode)), []).append(at)
    found = {at: one for g in groups.values() for at, one in zip(g, answer([pairs[i] for i in g]), strict=True)}
    return [found[at] for at in range(len(pairs))]


def best_pair(study: Study, prefill: OperatingPoints, decode: OperatingPoints) -> Pair:
    """The best pair of points of one layout each, as the layouts are, feasible or not."""
    first, second = (
        Choice(points=points, index=(every := np.arange(points.row.size)), copies=np.ones_like(every))
        for points in (prefill, decode)
    )
    for feasible in (True, False):
        found = best_pairs(study, first, second, 1, -np.inf, feasible=feasible)
        if found:
            return chosen_points(study, found[0])
    raise ValueError("a pair of layouts must have points to join, got none")


def choices(study: Study, pair: Pair, least: float) -> list[Pair]:
    """The points at which a pair of layouts may run best: `chosen_points` with each token budget of the prefill pool.

    Those whose key is below `least` are left out, but where the study fixes the requests in flight: there the loads
    that are tried are too far apart to say who is behind, or who keeps a floor of utilisation.
    """
    rows = pair.prefill.row[pair.prefill.layout == pair.prefill.layout[pair.prefill_at]]
    found = [chosen_points(study, pair, row) for row in sorted(set(rows.tolist()))]
    fixed = study.workload.concurrency is not None
    return [own for own in found if fixed or own.key >= least]


def near(key: float) -> float:
    """The least key of pairs of points that may come before one with this key once loads between them are tried."""
    return key - NEAR * abs(key)


def chosen_points(study: Study, pair: Pair, row: int | None = None) -> Pair:
    """The points at which a pair of layouts runs: of those that rank alike, the ones that answer soonest.

    All points of both layouts are looked at, whatever was pruned, so that a plan is the same however it was found; with
    `row`, those of one token budget of the prefill pool.
    """
    own = [
        np.flatnonzero(points.layout == points.layout[at])
        for points, at in ((pair.prefill, pair.prefill_at), (pair.decode, pair.decode_at))
    ]
    if row is not None:
        own[0] = own[0][pair.prefill.row[own[0]] == row]
    first, second = (
        Choice(points=points, index=index, copies=np.full(index.size, copies))
        for points, index, copies in (
            (pair.prefill, own[0], pair.prefill_copies),
            (pair.decode, own[1], pair.decode_copies),
        )
    )
    key, e2e_s = _join(study, first, second, feasible=pair.feasible)
    best = key.max()
    place = np.where(key >= best - ALIKE * abs(best), e2e_s, np.inf).argmin()
    row, column = divmod(int(place), second.index.size)
    at = int(first.index[row]), int(second.index[column])
    return replace(pair, prefill_at=at[0], decode_at=at[1], key=float(key[row, column]))


def best_pairs(
    study: Study, first: Choice, second: Choice, keep: int, least: float, *, feasible: bool
) -> list[Pair]:  # both sides, and what is kept
    """The best pair of points of each of the best pairs of layouts, no worse than `least`."""
    p_starts, d_starts = first.firsts, second.firsts
    p_size, d_size = first.index.size, second.index.size
    p_ends, d_ends = [*p_starts[1:].tolist(), p_size], [*d_starts[1:].tolist(), d_size]
    out: list[Pair] = []
    begin = 0
    while begin < p_starts.size:
        # whole layouts of the prefill side, as many as fit
        end = begin + 1
        while end < p_starts.size and (p_ends[end] - p_starts[begin]) * d_size <= JOIN_ROWS:
            end += 1
        low = int(p_starts[begin])
        key, _ = _join(study, first.slice(slice(low, p_ends[end - 1])), second, feasible=feasible)
        # the largest of each pair of layouts, shape `(prefill layouts, decode layouts)`
        best = np.maximum.reduceat(np.maximum.reduceat(key, p_starts[begin:end] - low, axis=0), d_starts, axis=1)
        for flat in np.argsort(-best, axis=None, kind="stable")[:keep].tolist():
            i, j = divmod(flat, d_starts.size)
            if not np.isfinite(best[i, j]):
                break
            rows = slice(int(p_starts[begin + i]) - low, p_ends[begin + i] - low)
            columns = slice(int(d_starts[j]), d_ends[j])
            block = key[rows, columns]
            row, column = divmod(int(block.argmax()), block.shape[1])
            own = float(block[row, column])
            if own >= least:
                p_at, d_at = low + rows.start + row, columns.start + column
                out.append(Pair.of(first, p_at, second, d_at, feasible=feasible, key=own))
        begin = end
    return out


def ranking_key(study: Study, pair: Service, price_per_hour: Floats, *, feasible: bool) -> Floats:
    """What ranks pairs, higher is better: feasible ones by their gain, the others out of it; or all by their excess."""
    limits = study_limits(study)
    standing = Standing.of(study, limits, check_limits(limits, pair), pair, price_per_hour)
    return np.where(standing.worst <= 0.0, standing.gain, -np.inf) if feasible else -standing.worst


def _join(study: Study, first: Choice, second: Choice, *, feasible: bool) -> tuple[Floats, Floats]:
    """What ranks a pair of points, and the time of a request, each of shape `(prefill points, decode points)`.

    Where the study fixes the requests in flight, a decode pool admits as many as it decodes at its point.
    """
    shape = (first.index.size, second.index.size)
    prefill = first.columns.take(np.repeat(np.arange(shape[0]), shape[1]))
    decode = second.columns.take(np.tile(np.arange(shape[1]), shape[0]))
    clusters = first.points.rows.cluster, second.points.rows.cluster
    pair, price = served_together(study, clusters[0], prefill, clusters[1], decode)
    key = ranking_key(study, pair, price, feasible=feasible).reshape(shape)
    if ENGINES[first.points.rows.engine].pair_rules:
        key = np.where(barred(first.points, first.index, second.points, second.index), -np.inf, key)
    return key, pair.e2e_s.reshape(shape)
