"""Every disaggregated plan of a study: all pairs of layouts over all splits of the GPUs, the best of them kept.

Most operating points are joined with nothing, as no best plan can contain them. A plan joins one
point of a prefill pool with one of a decode pool. By `costmodel.disaggregated.pairing` and the limits:

    requests/s = min(rate_p, rate_d)                     TPOT = latency_d
    TTFT       = latency_p + max(wire_p, wire_d) (1 - overlap) + entry_d,     entry_d = start + hand-over(latency_d)

Where a front sends some prompts straight to the decode pool these are means over all requests, `entry_d` has what those
prompts take there, and the longest prompt still goes through both pools. With the pools' GPUs given, every objective is
non-decreasing in the rates and non-increasing in each of latency, entry, longest prompt's time, wire and log_sd of
either side, and so is the worst excess over the limits:

- Throughputs are the rate times constants. Where the study limits requests in flight to `C`, the rate is also at most
  C / (time in both pools and the transfer), which shorter times raise. (Where it fixes them, a slower decode pool can
  shorten the wait in front: nothing is pruned then.)
- P(meets) = Phi((ln limit - ln median) / sd) per limit, falling in the median; and falling in sd wherever the median
  keeps the limit, which is where a plan is feasible. Of throughput, sd is the larger of the two pools'. At a rate it
  is also at most Phi((ln most - ln rate) / sd) of either pool, rising in the most that it can do: one more coordinate.
- Memory limits are the pools' own: only points that keep them are joined, or, where none does, the excess is one more
  coordinate. A minimum of GPU utilisation and of throughput by stage each add the coordinate that they look at.

So, writing V(a, d) for a plan's place in the ranking: if point `a` is at least as good as `b` in every coordinate, then
V(a, d) >= V(b, d) for every `d`, and the plan (b, d) cannot come before (a, d). If points of `k` other layouts are at
least as good as `b`, then `k` other plans come before (b, d) or tie with it, whatever `d` is: the `k` best plans (up to
ties) are among the points that fewer than `k` other layouts dominate, the k-skyband (Papadias et al., 2005). The same
holds for the decode side, and for both sides one after the other. Points of one layout that another point of the same
layout dominates go first: a plan is a pair of layouts with its best knobs.

By the same monotonicity, V(a, ideal) with a partner that is in every coordinate as good as the best of its size bounds
V(a, d) for every `d`, and V(ideal, ideal) all plans of a split. Splits are tried in the order of their bounds; points
and splits whose bound lies below the `k`-th best plan found so far are joined with nothing.

Replicas of a pool do not touch each other, so that pools of `n` GPUs are those of one replica on a divisor of `n`, so
many times: each layout of a replica is evaluated once, whatever the split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from autotune.disaggregated.local_prefill import pool_engines
from autotune.disaggregated.operating_points import OperatingPoints, operating_points
from autotune.disaggregated.pairs import Pair, best_pairs, choices, chosen_points, near
from autotune.disaggregated.pool_rows import Dtypes, pool_layouts, pool_rows, replica_layouts
from autotune.disaggregated.role_candidates import RoleCandidates, bounds
from autotune.disaggregated.splits import count_plans, pool_sizes, pool_splits
from autotune.space.pool_plan import ROLES
from autotune.study import Study, dtype_choices
from costmodel.disaggregated.pool_point import PoolColumns
from costmodel.plan.columns import Floats

KEPT = 50
"""Disaggregated plans that a result holds: the best ones, in exact order."""
OPENED = 2
"""Splits whose most promising points are joined first, so that the bounds are good before the rest is looked at."""
Split = tuple[int, int]
"""GPUs of the prefill pool and of the decode pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSearchResult:
    """The best disaggregated plans, and how many were looked at."""

    pairs: tuple[Pair, ...]
    """Best first, at most as many as were asked for; one per pair of layouts."""
    others: tuple[Pair, ...]
    """The same pairs of layouts with all dtypes and token budgets that may turn out the best of them."""
    plans: int
    """Pairs of layouts, over all splits and engines."""
    joined: int
    """Pairs of operating points that were evaluated."""


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
    sides = list(pool_sides(study))
    found = _search(study, sides, keep, prune=prune, feasible=True, progress=progress)
    if not found.pairs:
        found = _search(study, sides, keep, prune=prune, feasible=False, progress=progress)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSides:
    """Points of both roles of one engine, with the same dtypes, and the splits to try."""

    prefill: OperatingPoints
    decode: OperatingPoints
    splits: list[Split]


class _Best:
    """The best plans found so far."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self._pairs: dict[tuple[object, ...], Pair] = {}

    @property
    def pairs(self) -> list[Pair]:
        """Best first, no more than are kept."""
        return sorted(self._pairs.values(), key=lambda p: -p.key)[: self.keep]

    @property
    def least(self) -> float:
        """What a plan must come to: the key of the last that is kept."""
        return -np.inf if len(self._pairs) < self.keep else self.pairs[-1].key

    def add(self, pair: Pair) -> None:
        """Keep the better of the plans with the same layouts."""
        old = self._pairs.get(pair.layouts)
        if old is None or pair.key > old.key:
            self._pairs[pair.layouts] = pair


def _search(
    study: Study,
    sides: list[PoolSides],
    keep: int,
    *,
    prune: bool,
    feasible: bool,
    progress: Callable[[int, int], None] | None,
) -> PoolSearchResult:  # what is searched, what is kept, and two switches
    best = _Best(keep)
    joined = 0
    for side in sides:
        first, second = (RoleCandidates(study, points, feasible=feasible) for points in (side.prefill, side.decode))
        promises = _promises(study, first, second, side.splits, feasible=feasible)
        steps = [(False, split) for split in promises]
        if prune:
            steps = [*((True, split) for split in list(promises)[:OPENED]), *steps]
        for done, (opening, split) in enumerate(steps):
            if progress is not None:
                progress(done, len(steps))
            if prune and promises[split] < best.least:
                continue
            p, d = first.of_size(split[0]), second.of_size(split[1])
            if prune:
                with_ideal = _point_bounds(study, first, second, split, feasible=feasible)
                if opening:
                    p, d = first.most_promising(p, with_ideal[0]), second.most_promising(d, with_ideal[1])
                else:
                    p = first.undominated(p, with_ideal[0], keep, best.least)
                    d = second.undominated(d, with_ideal[1], keep, best.least)
            if not p.index.size or not d.index.size:
                continue
            joined += p.index.size * d.index.size
            for pair in best_pairs(study, p, d, keep, best.least, feasible=feasible):
                best.add(pair)
    pairs = tuple(chosen_points(study, p) for p in best.pairs)
    return PoolSearchResult(
        pairs=pairs,
        others=tuple(other for p in pairs for other in _other_knobs(study, p, sides)),
        plans=count_plans(study),
        joined=joined,
    )


def _other_knobs(study: Study, pair: Pair, sides: list[PoolSides]) -> Iterator[Pair]:
    """A pair of layouts with the dtypes and token budgets that may be better for it than those it was found with."""
    for side in sides:
        tables = ((pair.prefill, pair.prefill_at, side.prefill), (pair.decode, pair.decode_at, side.decode))
        if all(a.rows.engine == b.rows.engine and a.rows.cluster is b.rows.cluster for a, _, b in tables):
            # layouts are numbered alike in all tables of an engine and a cluster
            at = [int((b.layout == a.layout[own]).argmax()) for a, own, b in tables]
            other = replace(pair, prefill=side.prefill, prefill_at=at[0], decode=side.decode, decode_at=at[1])
            yield from choices(study, other, near(pair.key))


def _promises(
    study: Study, first: RoleCandidates, second: RoleCandidates, splits: list[Split], *, feasible: bool
) -> dict[Split, float]:
    """The best that both pools of each split could do, best first, of splits with points on both sides."""
    known = [split for split in splits if first.has(split[0]) and second.has(split[1])]
    if not known:
        return {}
    p = PoolColumns.joined([first.ideal(gpus) for gpus, _ in known])
    d = PoolColumns.joined([second.ideal(gpus) for _, gpus in known])
    found = bounds(study, (first.cluster, p), (second.cluster, d), feasible=feasible)
    ordered = sorted(zip(known, found.tolist(), strict=True), key=lambda item: (-item[1], item[0]))
    return dict(ordered)


def _point_bounds(
    study: Study, first: RoleCandidates, second: RoleCandidates, split: Split, *, feasible: bool
) -> tuple[Floats, Floats]:
    """Of each point of either side of a split, what no plan with it comes before."""
    p, d = first.of_size(split[0]).columns, second.of_size(split[1]).columns
    p_best, d_best = (
        side.ideal(gpus).take(np.zeros(size, dtype=np.int64))
        for side, gpus, size in ((first, split[0], d.gpus.size), (second, split[1], p.gpus.size))
    )
    return (
        bounds(study, (first.cluster, p), (second.cluster, d_best), feasible=feasible),
        bounds(study, (first.cluster, p_best), (second.cluster, d), feasible=feasible),
    )


def pool_sides(study: Study) -> Iterator[PoolSides]:
    """Points of both roles and the splits to try, by engine, dtypes and GPU types."""
    search, whole = study.search, study.workload.request_rate_per_s is not None
    layouts_of = pool_layouts if whole else replica_layouts  # a rate is asked of all replicas of a pool together
    for engine in pool_engines(study):
        for weight, kv in product(search.weight_dtype, search.kv_dtype):
            dtypes = Dtypes(weight=weight, kv=kv)
            known: dict[tuple[str, str], OperatingPoints] = {}
            for first, second, splits in pool_splits(study):
                if (weight, kv) not in dtype_choices(study, engine, first.gpu, second.gpu):
                    continue
                layouts = [
                    layouts_of(study, engine, role, pool_sizes(study, cluster))
                    for role, cluster in zip(ROLES, (first, second), strict=True)
                ]
                if not all(layouts):
                    continue  # so few GPUs hold no two pools, or the engine runs no pool of these sizes
                for role, cluster, own in zip(ROLES, (first, second), layouts, strict=True):
                    if (role, cluster.gpu.name) not in known:
                        rows = pool_rows(study, role, cluster, dtypes, own, engine)
                        known[role, cluster.gpu.name] = operating_points(rows)
                points = [known[role, cluster.gpu.name] for role, cluster in zip(ROLES, (first, second), strict=True)]
                yield PoolSides(prefill=points[0], decode=points[1], splits=splits)
