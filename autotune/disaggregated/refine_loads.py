"""The loads under which disaggregated plans run, found between those that the search tries.

The search joins pools at some shares of what each can do. Between two shares next to each other a pair may serve a few
percent more; so around the best pair of points of each plan, ever closer ones are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.disaggregated.operating_points import OperatingPoints, pair_price, served_together, settled
from autotune.disaggregated.pairs import ALIKE, Pair, of_each_table
from autotune.disaggregated.pool_rows import Evaluator
from autotune.scoring.limits import check_limits, study_limits
from autotune.scoring.load_peaks import around
from autotune.scoring.objective import Standing
from autotune.space.pool_plan import ROLES
from autotune.study import Study
from costmodel.plan.columns import Floats, Ints

BETWEEN = 3
"""Loads that are tried between one and the next on either side."""
SETTLED_ALIKE = 1e-6
"""Relative distance within which numbers of admitted sequences count as alike."""
BROKEN = 1e100
"""Weight of an excess over a limit beside any gain."""
ROUNDS = 7
"""Times that it is done, each of which leaves a quarter of the distance: shares of 3 % become 2e-6."""


def at_best_loads(study: Study, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs, in their order, each at the loads of its pools under which it stands best.

    Where the study gives a request rate, it sets the loads, and pairs stay as they are. Where it gives the requests in
    flight, they set them as far as the decode pool admits them: how many it admits is chosen.
    """
    if study.workload.request_rate_per_s is not None:
        return list(pairs)
    fixed = study.workload.concurrency is not None
    return of_each_table(pairs, lambda group: (_admitting if fixed else _refined)(study, group))


def _admitting(study: Study, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs that share both tables of points, with as many sequences admitted as suit them best, or the most."""
    first, second = pairs[0].prefill, pairs[0].decode
    own = [np.flatnonzero(second.row == second.row[pair.decode_at]) for pair in pairs]
    owner, tried = np.repeat(np.arange(len(pairs)), [places.size for places in own]), np.concatenate(own)
    copies = [np.array([getattr(p, f"{role}_copies") for p in pairs])[owner] for role in ROLES]
    at = np.array([p.prefill_at for p in pairs])[owner]
    load = np.full(tried.size, float(study.workload.concurrency or 0.0))
    loop = settled(first, second, (at, tried), (copies[0], copies[1]), load)
    price = pair_price(first.rows.cluster, loop.prefill.columns.gpus, second.rows.cluster, loop.decode.columns.gpus)
    limits = study_limits(study)
    standing = Standing.of(study, limits, check_limits(limits, loop.pair), loop.pair, price)
    gain = np.where(standing.worst > 0.0, -BROKEN * standing.worst, standing.gain)
    most = np.full(len(pairs), -np.inf)
    np.maximum.at(most, owner, gain)
    # beyond what settles of itself it says nothing how many more would be admitted
    alike = gain >= (most - SETTLED_ALIKE * abs(most))[owner]
    order = np.lexsort((-second.at[tried], ~alike, owner))
    best = tried[order[np.searchsorted(owner[order], np.arange(len(pairs)))]]
    return [replace(pair, decode_at=int(place)) for pair, place in zip(pairs, best, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """One pool of each of some pairs, whose points are in one table. Arrays have shape `(pairs,)`."""

    points: OperatingPoints
    row: Ints
    copies: Ints
    whole: Floats
    """What loads are whole multiples of: the replicas of decode pools; 0 for utilisations."""
    evaluate: Evaluator
    """Of each row, as often as loads are tried."""
    ladder: Floats
    """The loads that the search tried, shape `(loads, pairs)`."""
    edges: Floats
    """The best load so far between those next to it, shape `(3, pairs)`."""

    @classmethod
    def of(cls, points: OperatingPoints, at: Sequence[int], copies: Sequence[int]) -> _Side:
        index = np.array(at)
        row = points.row[index]
        ladder = np.stack([points.at[points.row == own] for own in row], axis=1)
        replicas = np.array([float(c.layout.replicas) for c in points.rows.layouts])[points.layout[index]]
        return cls(
            points=points,
            row=row,
            copies=np.array(copies),
            whole=replicas if points.rows.role == "decode" else np.zeros(index.size),
            evaluate=Evaluator(points.rows, np.tile(row, 2 * BETWEEN + 3)),
            ladder=ladder,
            edges=around(ladder, (ladder == points.at[index]).argmax(axis=0)),
        )

    def closer(self, values: Floats, best: Ints) -> _Side:
        """Around the best of the loads that were tried last, which may be at the end of what was looked at so far."""
        return replace(self, edges=around(np.vstack([values, self.ladder]), best))

    def tried(self) -> tuple[OperatingPoints, Floats]:
        """Points at and around the best loads, and the loads, ascending, shape `(loads, pairs)`."""
        below, at, above = self.edges
        shares = np.arange(1, BETWEEN + 2)[:, None] / (BETWEEN + 1.0)
        values = np.vstack([below, below + (at - below) * shares, at + (above - at) * shares])
        whole = np.maximum(self.whole, 1.0)
        values = np.where(self.whole > 0.0, np.rint(values / whole) * whole, values)
        row, flat = np.tile(self.row, values.shape[0]), values.ravel()
        points = self.points
        return replace(
            points, row=row, at=flat, columns=self.evaluate(flat).columns, layout=points.rows.row_layout[row]
        ), values


def _refined(study: Study, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs that share both tables of points; those that are found share two others."""
    first = _Side.of(pairs[0].prefill, [p.prefill_at for p in pairs], [p.prefill_copies for p in pairs])
    second = _Side.of(pairs[0].decode, [p.decode_at for p in pairs], [p.decode_copies for p in pairs])
    clusters, limits = (first.points.rows.cluster, second.points.rows.cluster), study_limits(study)
    every = np.arange(len(pairs))
    for _ in range(ROUNDS):
        (prefill, p_loads), (decode, d_loads) = first.tried(), second.tried()
        shape = (p_loads.shape[0], d_loads.shape[0], every.size)
        i, j, pair = (index.ravel() for index in np.indices(shape))
        pools = (
            points.columns.take(load * every.size + pair).times(side.copies[pair].astype(np.float64))
            for points, load, side in ((prefill, i, first), (decode, j, second))
        )
        service, price = served_together(study, clusters[0], next(pools), clusters[1], next(pools))
        standing = Standing.of(study, limits, check_limits(limits, service), service, price)
        worst, gain = standing.worst.reshape(-1, every.size), standing.gain.reshape(-1, every.size)
        kept = np.asarray(worst <= 0.0)
        feasible = kept.any(axis=0)
        key = np.where(feasible, np.where(kept, gain, -np.inf), -worst)
        best = key.max(axis=0)
        alike = key >= best - ALIKE * abs(best)
        place = np.where(alike, service.e2e_s.reshape(key.shape), np.inf).argmin(axis=0)
        p_best, d_best = np.divmod(place, shape[1])
        first, second = first.closer(p_loads, p_best), second.closer(d_loads, d_best)
    # behind the points that were tried before, which say what a pool can do at most
    tried = first.points.row.size, second.points.row.size
    prefill, decode = first.points.followed_by(prefill), second.points.followed_by(decode)
    return [
        replace(
            old,
            prefill=prefill,
            prefill_at=tried[0] + int(p_best[at]) * every.size + at,
            decode=decode,
            decode_at=tried[1] + int(d_best[at]) * every.size + at,
            feasible=bool(kept[place[at], at]),
            key=float(key[place[at], at]),
        )
        for at, old in enumerate(pairs)
    ]
