"""Every disaggregated plan of a study: all pairs of layouts over all splits of the GPUs, the best of them kept.

Most operating points are joined with nothing, as no best plan can contain them. A plan joins one
point of a prefill pool with one of a decode pool. By `costmodel.disaggregated.pairing` and the limits:

    requests/s = min(rate_p, rate_d)                     TPOT = latency_d
    TTFT       = latency_p + max(wire_p, wire_d) (1 - overlap) + entry_d,     entry_d = start + JOIN_STEPS latency_d

With the pools' GPUs given, every objective is non-decreasing in the rates and non-increasing in each of latency,
longest prompt's extra, wire and log_sd of either side, and so is the worst excess over the limits:

- Throughputs are the rate times constants. Where the study limits requests in flight to `C`, the rate is also at most
  C / (time in both pools and the transfer), which shorter times raise. (Where it fixes them, a slower decode pool can
  shorten the wait in front: nothing is pruned then.)
- P(meets) = Phi((ln limit - ln median) / sd) per limit, falling in the median; and falling in sd wherever the median
  keeps the limit, which is where a plan is feasible. Of throughput, sd is the larger of the two pools'.
- Memory limits are the pools' own: only points that keep them are joined, or, where none does, the excess is one more
  coordinate. A minimum of GPU utilisation and of throughput by stage each add the coordinate that they look at.

So, writing V(a, d) for a plan's place in the ranking: if point `a` is at least as good as `b` in every coordinate, then
V(a, d) >= V(b, d) for every `d`, and the plan (b, d) cannot come before (a, d). If points of `k` other layouts are at
least as good as `b`, then `k` other plans come before (b, d) or tie with it, whatever `d` is: the `k` best plans (up to
ties) are among the points that fewer than `k` other layouts dominate, the k-skyband (Papadias et al., 2005). The same
holds for the decode side, and for both sides one after the other. Points of one layout that another point of the same
layout dominates go first: a plan is a pair of layouts with its best knobs.

By the same monotonicity, V(a, ideal) with a partner that does everything at once bounds V(a, d) for every `d`: points
whose bound lies below the `k`-th best plan found so far are joined with nothing (`search`), and splits are tried in the
order of their bounds.
"""

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
from autotune.engines.names import engines_of
from autotune.scoring.dominance import skyband
from autotune.scoring.limits import check_limits, study_limits
from autotune.scoring.objective import Standing
from autotune.study import Study
from costmodel.disaggregated.pairing import Demand, ideal_pool, pair_service
from costmodel.estimate.result import Service
from costmodel.hardware import Cluster
from costmodel.plan.columns import Floats, Ints

KEPT = 50
"""Disaggregated plans that a result holds: the best ones, in exact order."""
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
    feasible: bool
    key: float
    """Place among all feasible pairs or among all others, higher is better."""

    @property
    def layouts(self) -> tuple[object, ...]:
        """What makes two pairs the same plan: both sides' GPU type and layout."""
        sides = ((self.prefill, self.prefill_at), (self.decode, self.decode_at))
        return (self.prefill.rows.engine, *((p.rows.cluster.gpu.name, p.layout_at(i)) for p, i in sides))

    def shares_tables(self, other: Pair) -> bool:
        """Whether both pairs are of the same two tables of points."""
        return self.prefill is other.prefill and self.decode is other.decode


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

    Exact up to ties: what is left out is dominated (see the head of this file).

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
    for feasible in (True, False):
        found = _best_of_split(study, prefill, mine, decode, theirs, 1, -np.inf, feasible=feasible)
        if found:
            return found[0]
    raise ValueError("a pair of layouts must have points to join, got none")


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
            pair = pair_service(*pools, pool_load(self.study, np.ones(1)), link, asked)
            price = pair_price(self.points.rows.cluster, own.gpus, self.partner, np.array([float(others)]))
            key = _key(self.study, pair, price, feasible=self.feasible) if index.size else np.zeros(0)
            self._bounds[gpus, others] = key
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
            worst = np.maximum(worst, limit.excess(getattr(side.columns, limit.kind.metric)) / limit.size)
    return worst


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
                        feasible=feasible,
                        key=won,
                    )
                )
        begin = end
    return out


def _key(study: Study, pair: Service, price_per_hour: Floats, *, feasible: bool) -> Floats:
    """What ranks pairs, higher is better: feasible ones by their gain, the others out of it; or all by their excess."""
    limits = study_limits(study)
    standing = Standing.of(study, limits, check_limits(limits, pair), pair, price_per_hour)
    return np.where(standing.worst <= 0.0, standing.gain, -np.inf) if feasible else -standing.worst


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
    pair = pair_service(prefill, decode, load, link, demand(study))
    price = pair_price(first.rows.cluster, prefill.gpus, second.rows.cluster, decode.gpus)
    key = _key(study, pair, price, feasible=feasible).reshape(shape)
    if study.workload.concurrency is None:
        return key, key
    return pair.requests_per_s.reshape(shape), key
