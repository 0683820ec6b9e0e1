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
AROUND = 2 * BETWEEN + 3
"""Loads of a pool that are tried in a round."""
UTILISATION_STEP = 1e-9
"""Utilisations that are computed are whole multiples of it, so that rounding does not tell two searches apart."""
SETTLED_ALIKE = 1e-6
"""Relative distance within which numbers of admitted sequences count as alike."""
BROKEN = 1e100
"""Weight of an excess over a limit beside any gain."""
ROUNDS = 7
"""Times that it is done, each of which leaves a quarter of the distance: shares of 3 % become 2e-6."""
ADMITTED_ROUNDS = 5
"""Times that the loads around the best number of admitted sequences are narrowed down: numbers are whole, so that a gap
of a thousand between two that were tried is closed."""


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
    side = _Side.of(pairs[0].decode, [p.decode_at for p in pairs], [p.decode_copies for p in pairs], AROUND)
    best = _best_admitted(study, pairs, side.points, side.rungs)
    found = [
        replace(p, decode_at=int(at)) for p, at in zip(pairs, side.rungs[best, np.arange(len(pairs))], strict=True)
    ]
    fewer = [at for at, pair in enumerate(found) if pair.decode.at[pair.decode_at] < side.ladder[:, at].max()]
    if fewer:
        closer = dict(zip(fewer, _closer_admitted(study, [found[at] for at in fewer]), strict=True))
        found = [closer.get(at, pair) for at, pair in enumerate(found)]
    return found


def _closer_admitted(study: Study, pairs: Sequence[Pair]) -> list[Pair]:
    """As `_admitting`, each with numbers between the one that it has and the next that were tried on either side."""
    side = _Side.of(pairs[0].decode, [p.decode_at for p in pairs], [p.decode_copies for p in pairs], AROUND)
    for _ in range(ADMITTED_ROUNDS):
        decode, loads = side.tried()
        places = np.arange(loads.size).reshape(loads.shape)
        best = _best_admitted(study, pairs, decode, places)
        side = side.closer(loads, best)
    # behind the points that were tried before, which say what a pool can do at most
    tried, at = side.points.row.size, places[best, np.arange(len(pairs))]
    together = side.points.followed_by(decode)
    return [replace(pair, decode=together, decode_at=tried + int(own)) for pair, own in zip(pairs, at, strict=True)]


def _best_admitted(study: Study, pairs: Sequence[Pair], decode: OperatingPoints, places: Ints) -> Ints:
    """Which of some points of its decode pool suits each pair best, of those of shape `(tried, pairs)`."""
    prefill, tried = pairs[0].prefill, places.shape[0]
    at = np.tile([pair.prefill_at for pair in pairs], tried)
    copies = [np.tile([getattr(pair, f"{role}_copies") for pair in pairs], tried) for role in ROLES]
    load = np.full(places.size, float(study.workload.concurrency or 0.0))
    loop = settled(prefill, decode, (at, places.ravel()), (copies[0], copies[1]), load)
    gpus = [points.columns.gpus for points in (loop.prefill, loop.decode)]
    price = pair_price(prefill.rows.cluster, gpus[0], decode.rows.cluster, gpus[1])
    limits = study_limits(study)
    standing = Standing.of(study, limits, check_limits(limits, loop.pair), loop.pair, price)
    gain = np.where(standing.worst > 0.0, -BROKEN * standing.worst, standing.gain).reshape(places.shape)
    # beyond what settles of itself it says nothing how many more would be admitted
    alike = gain >= (most := gain.max(axis=0)) - SETTLED_ALIKE * abs(most)
    return np.asarray(np.where(alike, decode.at[places], -1.0).argmax(axis=0))


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
    rungs: Ints
    """Points that the search tried, shape `(loads, pairs)`."""
    ladder: Floats
    """Their loads, of the same shape."""
    edges: Floats
    """The best load so far between those next to it, shape `(3, pairs)`."""
    rate_per_load: Floats
    """Requests per second of all replicas over the load, at the point that each pair was found with."""

    @classmethod
    def of(cls, points: OperatingPoints, at: Sequence[int], copies: Sequence[int], tried: int) -> _Side:
        """Pools at points `at` of a table; a round looks at `tried` loads of each."""
        index = np.array(at)
        row = points.row[index]
        rungs = np.stack([np.flatnonzero(points.row == own) for own in row], axis=1)
        ladder = points.at[rungs]
        replicas = np.array([float(c.layout.replicas) for c in points.rows.layouts])[points.layout[index]]
        return cls(
            points=points,
            row=row,
            copies=np.array(copies),
            whole=replicas if points.rows.role == "decode" else np.zeros(index.size),
            evaluate=Evaluator(points.rows, np.tile(row, tried)),
            rungs=rungs,
            ladder=ladder,
            edges=around(ladder, (ladder == points.at[index]).argmax(axis=0)),
            rate_per_load=points.columns.requests_per_s[index] * np.array(copies) / points.at[index],
        )

    def closer(self, values: Floats, best: Ints) -> _Side:
        """Around the best of the loads that were tried last, which may be at the end of what was looked at so far."""
        return replace(self, edges=around(np.vstack([values, self.ladder]), best))

    def matching(self, requests_per_s: Floats) -> Floats:
        """Utilisations at which a prefill pool serves so many, as far as its limits let it, shape `(loads, pairs)`."""
        own = np.ceil(requests_per_s / self.rate_per_load / UTILISATION_STEP) * UTILISATION_STEP
        return np.clip(own, self.ladder.min(axis=0), self.ladder.max(axis=0))

    def tried(self, also: Floats | None = None) -> tuple[OperatingPoints, Floats]:
        """Points at and around the best loads and at others, and the loads, shape `(loads, pairs)`."""
        below, at, above = self.edges
        shares = np.arange(1, BETWEEN + 2)[:, None] / (BETWEEN + 1.0)
        values = np.vstack([below, below + (at - below) * shares, at + (above - at) * shares])
        whole = np.maximum(self.whole, 1.0)
        values = np.where(self.whole > 0.0, np.rint(values / whole) * whole, values)
        values = values if also is None else np.vstack([values, also])
        row, flat = np.tile(self.row, values.shape[0]), values.ravel()
        points = self.points
        return replace(
            points, row=row, at=flat, columns=self.evaluate(flat).columns, layout=points.rows.row_layout[row]
        ), values


def _refined(study: Study, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs that share both tables of points; those that are found share two others."""
    first = _Side.of(pairs[0].prefill, [p.prefill_at for p in pairs], [p.prefill_copies for p in pairs], 2 * AROUND)
    second = _Side.of(pairs[0].decode, [p.decode_at for p in pairs], [p.decode_copies for p in pairs], AROUND)
    clusters, limits = (first.points.rows.cluster, second.points.rows.cluster), study_limits(study)
    every = np.arange(len(pairs))
    for _ in range(ROUNDS):
        # with more sequences a pair does more only if its prefill pool keeps up, which may be loads away
        decode, d_loads = second.tried()
        prefill, p_loads = first.tried(
            first.matching(decode.columns.requests_per_s.reshape(d_loads.shape) * second.copies)
        )
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
