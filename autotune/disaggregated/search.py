"""Every disaggregated plan of a study: all pairs of layouts over all splits of the GPUs, the best of them kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from autotune.disaggregated.operating_points import (
    Dtypes,
    Points,
    demand,
    pair_price,
    points,
    pool_layouts,
    pool_load,
    pool_rows,
    transfer_link,
)
from autotune.disaggregated.skyband import skyband
from autotune.engines import engines_of
from autotune.scoring.best_knobs import order_key
from autotune.scoring.limits import study_limits
from autotune.study import Study
from costmodel.disaggregated.pairing import Demand, ideal_pool, joined
from costmodel.hardware import Cluster
from costmodel.plan.columns import Floats, Ints

KEPT = 50
"""Disaggregated plans that a result holds: the best ones, in exact order."""
FEASIBLE = 5.0
"""Ranking keys above it are those of feasible plans (`order_key`)."""
FIRST_LAYOUTS = 2
"""Layouts that may dominate a point in the first round, whose plans bound what the second one joins."""
JOIN_ROWS = 400_000
"""Pairs of points joined at once, for memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One disaggregated plan: a point of each pool."""

    prefill: Points
    prefill_at: int
    decode: Points
    decode_at: int
    key: float
    """Place in the ranking, higher is better (`autotune.scoring.best_knobs.order_key`)."""

    @property
    def layouts(self) -> tuple[object, ...]:
        """What makes two pairs the same plan: both sides' GPU type and layout."""
        sides = ((self.prefill, self.prefill_at), (self.decode, self.decode_at))
        return (self.prefill.rows.engine, *((p.rows.cluster.gpu.name, _layout(p, i)) for p, i in sides))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The best disaggregated plans, and how many were looked at."""

    pairs: tuple[Pair, ...]
    """Best first, at most as many as were asked for; one per pair of layouts."""
    plans: int
    """Pairs of layouts, over all splits and engines."""
    joined: int
    """Pairs of operating points that were evaluated."""
    skipped_points: int
    """Operating points that were joined with nothing: no plan to be kept can contain them."""
    all_points: int


def search_pools(study: Study, *, keep: int = KEPT, prune: bool = True) -> Found:
    """The `keep` best disaggregated plans of a study, or the nearest where none keeps every limit.

    Exact up to ties: what is left out is dominated (`autotune.disaggregated.skyband`).

    Args:
        study: the question.
        keep: plans to find.
        prune: False joins every point with every other, for tests.
    """
    found = _search(study, keep, prune=prune, feasible=True)
    return found if found.pairs else _search(study, keep, prune=prune, feasible=False)


def _search(study: Study, keep: int, *, prune: bool, feasible: bool) -> Found:
    best: dict[tuple[object, ...], Pair] = {}
    evaluated = skipped = everything = 0
    for prefill, decode, splits in _sides(study):
        sides = [
            _Side(study, side, partner.rows.cluster, feasible=feasible)
            for side, partner in ((prefill, decode), (decode, prefill))
        ]
        everything += prefill.row.size + decode.row.size
        # what only few layouts dominate goes first, so that the bounds are good before the rest is looked at
        banded = prune and study.workload.concurrency is None
        rounds = (min(FIRST_LAYOUTS, keep), keep) if banded else (keep,)
        ordered = _by_promise(sides, splits) if prune else splits
        for band, (p_gpus, d_gpus) in product(rounds, ordered):
            least = sorted((p.key for p in best.values()), reverse=True)[keep - 1] if len(best) >= keep else -np.inf
            mine = sides[0].worth_joining(p_gpus, d_gpus, band, least, prune=prune)
            theirs = sides[1].worth_joining(d_gpus, p_gpus, band, least, prune=prune)
            if not mine.size or not theirs.size:
                continue
            evaluated += mine.size * theirs.size
            for pair in _best_of_split(study, prefill, mine, decode, theirs, keep, least, feasible=feasible):
                old = best.get(pair.layouts)
                if old is None or pair.key > old.key:
                    best[pair.layouts] = pair
        skipped += sum(s.skipped for s in sides)
    kept = sorted(best.values(), key=lambda p: -p.key)[:keep]
    return Found(
        pairs=tuple(kept), plans=count_plans(study), joined=evaluated, skipped_points=skipped, all_points=everything
    )


def _sides(study: Study) -> Iterator[tuple[Points, Points, list[tuple[int, int]]]]:
    """Points of both roles and the splits to try, by engine, dtypes and GPU types."""
    search = study.search
    for engine in engines_of(study.engine):
        for weight, kv in product(search.weight_dtype, search.kv_dtype):
            known: dict[tuple[str, str], Points] = {}
            for first, second, splits in _clusters(study):
                for role, cluster in (("prefill", first), ("decode", second)):
                    if (role, cluster.gpu.name) not in known:
                        layouts = pool_layouts(study, engine, _sizes(study, cluster))
                        rows = pool_rows(study, role, cluster, Dtypes(weight=weight, kv=kv), layouts, engine)
                        known[role, cluster.gpu.name] = points(rows)
                yield known["prefill", first.gpu.name], known["decode", second.gpu.name], splits


def _clusters(study: Study) -> Iterator[tuple[Cluster, Cluster, list[tuple[int, int]]]]:
    """GPUs of the prefill pool, of the decode pool, and how many of them each takes.

    Of one type: every split that uses all of them. Of two types: all of the one and all of the other.
    """
    clusters, step = (study.cluster, *study.axes.other_gpus), study.axes.pool_gpus_multiple_of
    for first, second in product(clusters, repeat=2):
        if first is not second:
            yield first, second, [(first.gpus, second.gpus)]
            continue
        cuts = range(step, first.gpus, step)
        yield first, second, [(n, first.gpus - n) for n in cuts if (first.gpus - n) % step == 0]


def _sizes(study: Study, cluster: Cluster) -> list[int]:
    """Pool sizes that splits ask of a type of GPUs."""
    found = {
        n
        for a, b, splits in _clusters(study)
        for split in splits
        for c, n in zip((a, b), split, strict=True)
        if c is cluster
    }
    return sorted(found)


def count_plans(study: Study) -> int:
    """Pairs of layouts over all splits and engines; storage dtypes are knobs."""
    total = 0
    for engine in engines_of(study.engine):
        counts = {
            c.gpu.name: {n: len(pool_layouts(study, engine, [n])) for n in _sizes(study, c)}
            for c in (study.cluster, *study.axes.other_gpus)
        }
        for first, second, splits in _clusters(study):
            total += sum(counts[first.gpu.name][p] * counts[second.gpu.name][d] for p, d in splits)
    return total


def best_pair(study: Study, prefill: Points, decode: Points) -> Pair:
    """The best pair of points of one layout each, feasible or not."""
    mine, theirs = np.arange(prefill.row.size), np.arange(decode.row.size)
    return _best_of_split(study, prefill, mine, decode, theirs, 1, -np.inf, feasible=False)[0]


class _Side:
    """The points of one role, by pool size, with what can rule them out."""

    def __init__(self, study: Study, points_: Points, partner: Cluster, *, feasible: bool) -> None:
        self.study, self.points, self.partner, self.feasible = study, points_, partner, feasible
        self.excess = _memory_excess(study, points_)
        gpus = np.array([c.layout.gpus for c in points_.rows.layouts], dtype=np.int64)
        of_point = gpus[points_.layout]
        allowed = (self.excess <= 0.0) | (not feasible)
        self.at = {n: np.flatnonzero(allowed & (of_point == n)) for n in np.unique(gpus).tolist()}
        self.joined: set[int] = set()
        self._bounds: dict[tuple[int, int], Floats] = {}

    @property
    def skipped(self) -> int:
        """Points that were joined with nothing."""
        return self.points.row.size - len(self.joined)

    def bounds(self, gpus: int, others: int) -> Floats:
        """Ranking key of each point of a pool size with a partner of `others` GPUs that does everything at once.

        No real partner is better in any coordinate, so that no plan with the point comes before this.
        """
        if (gpus, others) not in self._bounds:
            index = self.at.get(gpus, np.zeros(0, dtype=np.int64))
            own = self.points.columns.take(index)
            partner = ideal_pool(float(others), index.size)
            pools = (own, partner) if self.points.rows.role == "prefill" else (partner, own)
            gpu = self.points.rows.cluster.gpu
            link = transfer_link(self.study, gpu, gpu)
            asked = demand(self.study)
            if asked.in_flight is not None:  # the wait in front of both pools depends on both
                asked = Demand(most_in_flight=asked.in_flight)
            pair = joined(*pools, pool_load(self.study, np.ones(1)), link, asked)
            price = pair_price(self.points.rows.cluster, own.gpus, self.partner, np.array([float(others)]))
            key = order_key(self.study, study_limits(self.study), pair, price)[0] if index.size else np.zeros(0)
            self._bounds[gpus, others] = np.where(key >= FEASIBLE, key, -np.inf) if self.feasible else key
        return self._bounds[gpus, others]

    def worth_joining(self, gpus: int, others: int, keep: int, least: float, *, prune: bool) -> Ints:
        """Points of a pool size that can be part of one of the `keep` best plans, of which `least` is the worst."""
        index = self.at.get(gpus, np.zeros(0, dtype=np.int64))
        if prune and index.size:
            bounds, layout = self.bounds(gpus, others), self.points.layout[index]
            if self.study.workload.concurrency is None:
                index = index[(bounds >= least) & (bounds > -np.inf)]
                index = index[skyband(self._coordinates(index), self.points.layout[index], keep)]
            else:  # where the pair settles is not ours to choose: all points of a layout, or none
                starts = np.flatnonzero(np.r_[True, layout[1:] != layout[:-1]])
                most = np.repeat(np.maximum.reduceat(bounds, starts), np.diff([*starts, index.size]))
                index = index[(most >= least) & (most > -np.inf)]
        self.joined.update(index.tolist())
        return index

    def _coordinates(self, index: Ints) -> Floats:
        """What a plan can be better by, larger is better, shape `(points, coordinates)`."""
        c, own = self.study.constraints, self.points.columns
        columns = [own.requests_per_s, -own.latency_s, -own.longest_extra_s, -own.log_sd, -own.wire_s, -self.excess]
        if c.min_stage_tokens_per_s_per_gpu is not None:
            columns.append(-own.stage_gpus)
        if c.min_gpu_util_frac is not None:
            columns.append(own.busy_s)
        return np.stack([column[index] for column in columns], axis=1)


def _by_promise(sides: list[_Side], splits: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Splits by the best that their pools could do, so that the good ones rule out the others."""

    def promise(split: tuple[int, int]) -> float:
        found = [s.bounds(*at) for s, at in zip(sides, (split, split[::-1]), strict=True)]
        return min(float(b.max()) if b.size else -np.inf for b in found)

    return sorted(splits, key=lambda split: (-promise(split), split))


def _memory_excess(study: Study, side: Points) -> Floats:
    """Worst relative excess over the limits on the pool's own memory, shape `(points,)`."""
    worst = np.zeros(side.row.size)
    for limit in study_limits(study):
        if limit.code in ("kv_capacity", "memory_util_frac"):
            excess = np.maximum(limit.excess(side.columns), 0.0)  # type: ignore[arg-type]  # a pool has these two
            worst = np.maximum(worst, excess / max(abs(limit.limit), 1e-12))
    return worst


def _layout(side: Points, index: int) -> int:
    return id(side.rows.layouts[int(side.layout[index])].layout)


def _best_of_split(
    study: Study, first: Points, mine: Ints, second: Points, theirs: Ints, keep: int, least: float, *, feasible: bool
) -> list[Pair]:
    """The best pair of points of each of the best pairs of layouts, no worse than `least`."""
    rows_p, rows_d = first.layout[mine], second.layout[theirs]
    starts_p = np.flatnonzero(np.r_[True, rows_p[1:] != rows_p[:-1]])
    starts_d = np.flatnonzero(np.r_[True, rows_d[1:] != rows_d[:-1]])
    ends = [*starts_p[1:].tolist(), mine.size]
    out: list[Pair] = []
    begin = 0
    while begin < starts_p.size:
        # whole layouts of the prefill side, as many as fit
        end = begin + 1
        while end < starts_p.size and (ends[end] - starts_p[begin]) * theirs.size <= JOIN_ROWS:
            end += 1
        low, high = int(starts_p[begin]), ends[end - 1]
        chosen = _choice(study, first, mine[low:high], second, theirs, feasible=feasible)
        value, key = chosen
        table = np.maximum.reduceat(np.maximum.reduceat(value, starts_p[begin:end] - low, axis=0), starts_d, axis=1)
        order = np.argsort(-table, axis=None, kind="stable")[:keep]
        for flat in order.tolist():
            i, j = divmod(flat, starts_d.size)
            if not np.isfinite(table[i, j]):
                break
            rows = slice(int(starts_p[begin + i]) - low, ends[begin + i] - low)
            columns = slice(int(starts_d[j]), int(starts_d[j + 1]) if j + 1 < starts_d.size else theirs.size)
            block = value[rows, columns]
            at = divmod(int(block.argmax()), block.shape[1])
            won = float(key[rows, columns][at])
            if won >= least:
                out.append(
                    Pair(
                        prefill=first,
                        prefill_at=int(mine[low + rows.start + at[0]]),
                        decode=second,
                        decode_at=int(theirs[columns.start + at[1]]),
                        key=won,
                    )
                )
        begin = end
    return out


def _choice(
    study: Study, first: Points, mine: Ints, second: Points, theirs: Ints, *, feasible: bool
) -> tuple[Floats, Floats]:
    """What chooses the points of a pair of layouts, and what ranks the pair; shape `(mine, theirs)`.

    The same, unless the study fixes the requests in flight: then a pair runs at the point that they settle it into.
    """
    shape = (mine.size, theirs.size)
    i, j = np.repeat(mine, theirs.size), np.tile(theirs, mine.size)
    prefill, decode = first.columns.take(i), second.columns.take(j)
    load = pool_load(study, np.ones(1))
    link = transfer_link(study, first.rows.cluster.gpu, second.rows.cluster.gpu)
    pair = joined(prefill, decode, load, link, demand(study))
    price = pair_price(first.rows.cluster, prefill.gpus, second.rows.cluster, decode.gpus)
    key = order_key(study, study_limits(study), pair, price)[0].reshape(shape)
    if feasible:
        key = np.where(key >= FEASIBLE, key, -np.inf)
    if study.workload.concurrency is None:
        return key, key
    return pair.requests_per_s.reshape(shape), key
