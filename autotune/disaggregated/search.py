"""Every disaggregated plan of a study: all pairs of layouts over all splits of the GPUs, the best of them kept.

Most operating points are joined with nothing, as no best plan can contain them. A plan joins one
point of a prefill pool with one of a decode pool. By `costmodel.disaggregated.pairing` and the limits:

    requests/s = min(rate_p, rate_d)                     TPOT = latency_d
    TTFT       = latency_p + max(wire_p, wire_d) (1 - overlap) + entry_d,     entry_d = start + hand-over(latency_d)

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

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from autotune.disaggregated.allowed_pairs import barred, pair_coordinates
from autotune.disaggregated.operating_points import (
    Dtypes,
    OperatingPoints,
    demand,
    operating_points,
    pair_price,
    pool_layouts,
    pool_load,
    pool_rows,
    served_together,
    transfer_link,
)
from autotune.disaggregated.splits import count_plans, pool_sizes, pool_splits
from autotune.engines import ENGINES, engines_of
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
FIRST_SETTLED = 8
"""Layouts of a split that are joined in the first round where the study fixes the requests in flight: those that could
do most, more where several could do as much."""
ALIKE = 1e-9
"""Relative distance within which two pairs of points count as ranking alike."""
JOIN_ROWS = 400_000
"""Pairs of points joined at once, for memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One disaggregated plan: a point of each pool."""

    prefill: OperatingPoints
    prefill_at: int
    decode: OperatingPoints
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
class PoolSearchResult:
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


def search_pools(
    study: Study, *, keep: int = KEPT, prune: bool = True, progress: Callable[[int, int], None] | None = None
) -> PoolSearchResult:
    """The `keep` best disaggregated plans of a study, or the nearest where none keeps every limit.

    Exact up to ties: what is left out is dominated (see the head of this file).

    Args:
        study: the question.
        keep: plans to find.
        prune: False joins every point with every other, for tests.
        progress: called with (splits of the GPUs looked at, splits in all), from none anew for each engine and dtype.
    """
    found = _search(study, keep, prune=prune, feasible=True, progress=progress)
    return found if found.pairs else _search(study, keep, prune=prune, feasible=False, progress=progress)


def _search(
    study: Study, keep: int, *, prune: bool, feasible: bool, progress: Callable[[int, int], None] | None
) -> PoolSearchResult:
    best: dict[tuple[object, ...], Pair] = {}
    joined = skipped = everything = 0
    for prefill, decode, splits in _sides(study):
        first = RoleCandidates(study, prefill, decode.rows.cluster, feasible=feasible)
        second = RoleCandidates(study, decode, prefill.rows.cluster, feasible=feasible)
        everything += prefill.row.size + decode.row.size
        # the most promising goes first, so that the bounds are good before the rest is looked at
        rounds = (True, False) if prune else (False,)
        ordered = _best_first(first, second, splits) if prune else splits
        for done, (opening, (p_gpus, d_gpus)) in enumerate(product(rounds, ordered)):
            if progress is not None:
                progress(done, len(rounds) * len(ordered))
            least = sorted((p.key for p in best.values()), reverse=True)[keep - 1] if len(best) >= keep else -np.inf
            p_index = first.undominated(p_gpus, d_gpus, keep, least, prune=prune, opening=opening)
            d_index = second.undominated(d_gpus, p_gpus, keep, least, prune=prune, opening=opening)
            if not p_index.size or not d_index.size:
                continue
            joined += p_index.size * d_index.size
            for pair in _best_of_split(study, prefill, p_index, decode, d_index, keep, least, feasible=feasible):
                old = best.get(pair.layouts)
                if old is None or pair.key > old.key:
                    best[pair.layouts] = pair
        skipped += first.skipped + second.skipped
    return PoolSearchResult(
        pairs=tuple(chosen_points(study, p) for p in sorted(best.values(), key=lambda p: -p.key)[:keep]),
        plans=count_plans(study),
        joined=joined,
        skipped_points=skipped,
        all_points=everything,
    )


def _sides(study: Study) -> Iterator[tuple[OperatingPoints, OperatingPoints, list[tuple[int, int]]]]:
    """Points of both roles and the splits to try, by engine, dtypes and GPU types."""
    search = study.search
    for engine in engines_of(study.engine):
        for weight, kv in product(search.weight_dtype, search.kv_dtype):
            known: dict[tuple[str, str], OperatingPoints] = {}
            for first, second, splits in pool_splits(study):
                if not all(pool_layouts(study, engine, pool_sizes(study, cluster)) for cluster in (first, second)):
                    continue  # so few GPUs hold no two pools, or the engine runs no pool of these sizes
                for role, cluster in (("prefill", first), ("decode", second)):
                    if (role, cluster.gpu.name) not in known:
                        layouts = pool_layouts(study, engine, pool_sizes(study, cluster))
                        rows = pool_rows(study, role, cluster, Dtypes(weight=weight, kv=kv), layouts, engine)
                        known[role, cluster.gpu.name] = operating_points(rows)
                yield known["prefill", first.gpu.name], known["decode", second.gpu.name], splits


def best_pair(study: Study, prefill: OperatingPoints, decode: OperatingPoints) -> Pair:
    """The best pair of points of one layout each, feasible or not."""
    for feasible in (True, False):
        p_index, d_index = np.arange(prefill.row.size), np.arange(decode.row.size)
        found = _best_of_split(study, prefill, p_index, decode, d_index, 1, -np.inf, feasible=feasible)
        if found:
            return chosen_points(study, found[0])
    raise ValueError("a pair of layouts must have points to join, got none")


def chosen_points(study: Study, pair: Pair) -> Pair:
    """The points at which a pair of layouts runs: of those that rank alike, the ones that answer soonest.

    All points of both layouts are looked at, whatever was pruned, so that a plan is the same however it was found.
    """
    p_index, d_index = (
        np.flatnonzero(points.layout == points.layout[at])
        for points, at in ((pair.prefill, pair.prefill_at), (pair.decode, pair.decode_at))
    )
    settles, key, e2e_s = _join(study, pair.prefill, p_index, pair.decode, d_index, feasible=pair.feasible)
    best = settles.max()
    alike = settles >= best - ALIKE * abs(best)
    row, column = divmod(int(np.where(alike, e2e_s, np.inf).argmin()), d_index.size)
    return replace(pair, prefill_at=int(p_index[row]), decode_at=int(d_index[column]), key=float(key[row, column]))


class RoleCandidates:
    """The points of one role, by pool size, with what can rule them out."""

    def __init__(self, study: Study, points: OperatingPoints, partner: Cluster, *, feasible: bool) -> None:
        """`partner` are the GPUs of the other pool; `feasible` leaves only points that plans within the limits have."""
        self.study, self.points, self.partner, self.feasible = study, points, partner, feasible
        self.excess = _memory_excess(study, points)
        gpus = np.array([c.layout.gpus for c in points.rows.layouts], dtype=np.int64)
        of_point = gpus[points.layout]
        allowed = (self.excess <= 0.0) | (not feasible)
        self.by_gpus = {n: np.flatnonzero(allowed & (of_point == n)) for n in np.unique(gpus).tolist()}
        self._degrees = pair_coordinates(points)
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
            index = self.by_gpus.get(gpus, np.zeros(0, dtype=np.int64))
            own, ideal = self.points.columns.take(index), ideal_pool(float(others), index.size)
            cluster, asked = self.points.rows.cluster, demand(self.study)
            if asked.in_flight is not None:  # the wait in front of both pools depends on both
                asked = Demand(most_in_flight=asked.in_flight)
            pools = (own, ideal) if self.points.rows.role == "prefill" else (ideal, own)
            link = transfer_link(self.study, cluster.gpu, cluster.gpu)
            pair = pair_service(*pools, pool_load(self.study, np.ones(1)), link, asked)
            price = pair_price(cluster, own.gpus, self.partner, ideal.gpus)
            self._bounds[gpus, others] = _key(self.study, pair, price, feasible=self.feasible)
        return self._bounds[gpus, others]

    def undominated(
        self, gpus: int, others: int, keep: int, least: float, *, prune: bool, opening: bool
    ) -> Ints:  # what is kept of which split, and two switches
        """Points of a pool size that can be part of one of the `keep` best plans, of which `least` is the worst.

        `opening` leaves only the most promising of them.
        """
        index = self.by_gpus.get(gpus, np.zeros(0, dtype=np.int64))
        if prune and index.size:
            bounds, layout = self.bounds(gpus, others), self.points.layout[index]
            if self.study.workload.concurrency is None:
                index = index[(bounds >= least) & (bounds > -np.inf)]
                band = min(FIRST_LAYOUTS, keep) if opening else keep
                index = index[skyband(self._coordinates(index), self.points.layout[index], band)]
            else:  # where the pair settles is not ours to choose: all points of a layout, or none
                starts = _firsts(layout)
                most = np.maximum.reduceat(bounds, starts)
                good = (most >= least) & (most > -np.inf)
                if opening:  # enough that their pairs are as many plans as are kept
                    good &= most >= np.sort(most)[-min(FIRST_SETTLED, most.size)]
                index = index[np.repeat(good, np.diff([*starts, index.size]))]
        self.joined.update(index.tolist())
        return index

    def _coordinates(self, index: Ints) -> Floats:
        """What a plan can be better by, larger is better, shape `(points, coordinates)`."""
        c, own = self.study.constraints, self.points.columns
        smaller = [own.latency_s, own.longest_extra_s, own.log_sd, own.wire_s, self.excess]
        larger = [own.requests_per_s]
        if c.min_stage_tokens_per_s_per_gpu is not None:
            smaller.append(own.stage_gpus)
        if c.min_gpu_util_frac is not None:
            larger.append(own.busy_s)
        columns = [*(column[index] for column in larger), *(-column[index] for column in smaller)]
        return np.stack([*columns, *(degree[index] for degree in self._degrees)], axis=1)


def _best_first(first: RoleCandidates, second: RoleCandidates, splits: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Splits by the best that their pools could do, so that the good ones rule out the others."""

    def promise(split: tuple[int, int]) -> float:
        found = [first.bounds(*split), second.bounds(*split[::-1])]
        return min(float(b.max()) if b.size else -np.inf for b in found)

    return sorted(splits, key=lambda split: (-promise(split), split))


def _memory_excess(study: Study, points: OperatingPoints) -> Floats:
    """Worst relative excess over the limits on the pool's own memory, shape `(points,)`."""
    worst = np.zeros(points.row.size)
    for limit in study_limits(study):
        if limit.code in ("kv_capacity", "memory_util_frac"):
            worst = np.maximum(worst, limit.excess(getattr(points.columns, limit.kind.metric)) / limit.size)
    return worst


def _firsts(layout: Ints) -> Ints:
    """Where the points of each layout begin."""
    return np.flatnonzero(np.r_[True, layout[1:] != layout[:-1]])


def _best_of_split(
    study: Study,
    prefill: OperatingPoints,
    p_index: Ints,
    decode: OperatingPoints,
    d_index: Ints,
    keep: int,
    least: float,
    *,
    feasible: bool,
) -> list[Pair]:  # both tables, the points of each that are joined, and what is kept
    """The best pair of points of each of the best pairs of layouts, no worse than `least`."""
    p_starts, d_starts = _firsts(prefill.layout[p_index]), _firsts(decode.layout[d_index])
    p_ends, d_ends = [*p_starts[1:].tolist(), p_index.size], [*d_starts[1:].tolist(), d_index.size]
    out: list[Pair] = []
    begin = 0
    while begin < p_starts.size:
        # whole layouts of the prefill side, as many as fit
        end = begin + 1
        while end < p_starts.size and (p_ends[end] - p_starts[begin]) * d_index.size <= JOIN_ROWS:
            end += 1
        low, high = int(p_starts[begin]), p_ends[end - 1]
        settles, key, _ = _join(study, prefill, p_index[low:high], decode, d_index, feasible=feasible)
        best = np.maximum.reduceat(np.maximum.reduceat(settles, p_starts[begin:end] - low, axis=0), d_starts, axis=1)
        for flat in np.argsort(-best, axis=None, kind="stable")[:keep].tolist():
            i, j = divmod(flat, d_starts.size)
            if not np.isfinite(best[i, j]):
                break
            rows = slice(int(p_starts[begin + i]) - low, p_ends[begin + i] - low)
            columns = slice(int(d_starts[j]), d_ends[j])
            block = settles[rows, columns]
            row, column = divmod(int(block.argmax()), block.shape[1])
            own = float(key[rows, columns][row, column])
            if own >= least:
                p_at, d_at = int(p_index[low + rows.start + row]), int(d_index[columns.start + column])
                pair = Pair(prefill=prefill, prefill_at=p_at, decode=decode, decode_at=d_at, feasible=feasible, key=own)
                out.append(pair)
        begin = end
    return out


def _key(study: Study, pair: Service, price_per_hour: Floats, *, feasible: bool) -> Floats:
    """What ranks pairs, higher is better: feasible ones by their gain, the others out of it; or all by their excess."""
    limits = study_limits(study)
    standing = Standing.of(study, limits, check_limits(limits, pair), pair, price_per_hour)
    return np.where(standing.worst <= 0.0, standing.gain, -np.inf) if feasible else -standing.worst


def _join(
    study: Study, prefill: OperatingPoints, p_index: Ints, decode: OperatingPoints, d_index: Ints, *, feasible: bool
) -> tuple[Floats, Floats, Floats]:
    """What chooses the points of a pair of layouts, what ranks the pair, and the time of a request.

    Each of shape `(len(p_index), len(d_index))`. The first two are the same, unless the study fixes the requests in
    flight: then a pair runs at the point that they settle it into.
    """
    shape = (p_index.size, d_index.size)
    first = prefill.columns.take(np.repeat(p_index, d_index.size))
    second = decode.columns.take(np.tile(d_index, p_index.size))
    pair, price = served_together(study, prefill.rows.cluster, first, decode.rows.cluster, second)
    key = _key(study, pair, price, feasible=feasible).reshape(shape)
    settles = key if study.workload.concurrency is None else pair.requests_per_s.reshape(shape)
    if ENGINES[prefill.rows.engine].pair_rules:
        forbidden = barred(prefill, p_index, decode, d_index)
        settles, key = (np.where(forbidden, -np.inf, values) for values in (settles, key))
    return settles, key, pair.e2e_s.reshape(shape)
