"""Operating points of pools that no best plan can contain.

A plan joins one point of a prefill pool with one of a decode pool. By `costmodel.disaggregated.pairing` and the limits:

    requests/s = min(rate_p, rate_d)                     TPOT = latency_d
    TTFT       = latency_p + max(wire_p, wire_d) (1 - overlap) + entry_d,     entry_d = start + JOIN_STEPS latency_d

With the pools' GPUs given, every objective is non-decreasing in the rates and non-increasing in each of latency,
longest prompt's extra, wire and log_sd of either side, and so is the worst excess over the limits:

- Throughputs are the rate times constants. Where the study limits requests in flight to `C`, the rate is also at most
  C / (time in both pools and the transfer), which shorter times raise. (Where it fixes them, a slower decode pool can
  shorten the wait in front: nothing is pruned then.)
- P(meets) = Phi((ln limit - ln median) / sd) per limit, falling in the median; and falling in sd wherever the median
  keeps the limit, which is where a plan is feasible. Of throughput, sd is the larger of the two pools' (`joined`).
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

import numpy as np
from numpy.typing import NDArray

from costmodel.plan.columns import Floats, Ints

Bools = NDArray[np.bool_]
BLOCK = 256
"""Points compared with all others at once: keeps the table in the processor's cache."""


def skyband(coordinates: Floats, owner: Ints, layouts: int) -> Bools:
    """Points that points of fewer than `layouts` other owners dominate, and no point of their own.

    Args:
        coordinates: shape `(points, coordinates)`, larger is better.
        owner: layout of each point, ascending, shape `(points,)`.
        layouts: the `k` of the proof above.
    """
    keep = np.ones(owner.size, dtype=bool)
    if not owner.size:
        return keep
    starts = _firsts(owner)
    for first, last in zip(starts, [*starts[1:], owner.size], strict=True):
        own = coordinates[first:last]
        keep[first:last] = ~_dominated(own, own, diagonal=0).any(axis=1)
    alive = np.flatnonzero(keep)
    points, owners = coordinates[alive], owner[alive]
    starts = _firsts(owners)
    if starts.size <= layouts:
        return keep
    for begin in range(0, alive.size, BLOCK):
        block = slice(begin, begin + BLOCK)
        by = _dominated(points[block], points, diagonal=begin)
        by &= owners[block, None] != owners[None, :]
        keep[alive[block]] = np.logical_or.reduceat(by, starts, axis=1).sum(axis=1) < layouts
    return keep


def _firsts(owner: Ints) -> Ints:
    return np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])


def _dominated(points: Floats, others: Floats, *, diagonal: int) -> Bools:
    """Whether `others[j]` is at least as good as `points[i]`, and better in one coordinate or before it in order.

    `points[0]` is `others[diagonal]`. Shape `(points, others)`.
    """
    at_least = np.ones((len(points), len(others)), dtype=bool)
    better = np.zeros_like(at_least)
    for column in range(points.shape[1]):
        mine, theirs = points[:, column, None], others[None, :, column]
        at_least &= theirs >= mine
        better |= theirs > mine
    earlier = np.arange(len(others))[None, :] < (np.arange(len(points)) + diagonal)[:, None]
    return at_least & (better | earlier)
