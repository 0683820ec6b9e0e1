"""Which points no others are better than: the front of several goals, and bands of points behind it.

Coordinates are such that larger is better. A point dominates another where it is at least as good in every coordinate
and better in one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from costmodel.plan.columns import Floats, Ints

Bools = NDArray[np.bool_]
NOISE = 1e-12
"""By how much of them coordinates may differ that are equal but for the order in which they were computed."""
BLOCK = 256
"""Points compared with all others at once: keeps the table in the processor's cache."""


def nondominated(coordinates: Floats) -> Bools:
    """The points that no other dominates, shape `(points,)`; `coordinates` are of shape `(points, coordinates)`.

    Coordinates that differ by the noise of rounding count as equal: plans that serve one rate serve alike.

    In falling lexicographic order whatever dominates a point comes before it, so one pass over blocks is enough.
    """
    coordinates = _places(coordinates)
    keep = np.zeros(len(coordinates), dtype=bool)
    order = np.lexsort(-coordinates.T[::-1])
    front = np.zeros((0, coordinates.shape[1]))
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        for others in (front, None):
            at_least, better = _compared(coordinates[block], coordinates[block] if others is None else others)
            block = block[~(at_least & better).any(axis=1)]
        keep[block] = True
        front = np.vstack([front, coordinates[block]])
    return keep


def _places(coordinates: Floats) -> Floats:
    """Of each point its place in every coordinate, the least first; points that stand within `NOISE` share theirs."""
    order = np.argsort(coordinates, axis=0, kind="stable")
    ascending, places = np.take_along_axis(coordinates, order, axis=0), np.zeros_like(coordinates)
    low, high = ascending[:-1], ascending[1:]
    with np.errstate(invalid="ignore", over="ignore"):  # what is not known is infinitely bad, twice of it as bad
        apart = high - low > NOISE * np.minimum(np.abs(low), np.abs(high))
    np.put_along_axis(places, order[1:], np.cumsum(apart, axis=0), axis=0)
    return places


def skyband(coordinates: Floats, owner: Ints, owners: int) -> Bools:
    """The points that points of fewer than `owners` other owners dominate, and no point of their own.

    Of points that are equal, the first counts as the better one.

    Args:
        coordinates: shape `(points, coordinates)`.
        owner: of each point, ascending, shape `(points,)`.
        owners: how many may dominate a point that is kept, less one: the `k` of a k-skyband (Papadias et al., 2005).
    """
    keep = np.ones(owner.size, dtype=bool)
    if not owner.size:
        return keep
    starts = _firsts(owner)
    for first, last in zip(starts, [*starts[1:], owner.size], strict=True):
        own = coordinates[first:last]
        keep[first:last] = ~_dominated(own, own, diagonal=0).any(axis=1)
    alive = np.flatnonzero(keep)
    points, of_alive = coordinates[alive], owner[alive]
    starts = _firsts(of_alive)
    if starts.size <= owners:
        return keep
    for begin in range(0, alive.size, BLOCK):
        block = slice(begin, begin + BLOCK)
        by = _dominated(points[block], points, diagonal=begin)
        by &= of_alive[block, None] != of_alive[None, :]
        keep[alive[block]] = np.logical_or.reduceat(by, starts, axis=1).sum(axis=1) < owners
    return keep


def _firsts(owner: Ints) -> Ints:
    return np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])


def _dominated(points: Floats, others: Floats, *, diagonal: int) -> Bools:
    """Whether `others[j]` dominates `points[i]`, or equals it and comes before it, shape `(points, others)`.

    `points[0]` is `others[diagonal]`.
    """
    at_least, better = _compared(points, others)
    earlier = np.arange(len(others))[None, :] < (np.arange(len(points)) + diagonal)[:, None]
    return at_least & (better | earlier)


def _compared(points: Floats, others: Floats) -> tuple[Bools, Bools]:
    """Whether `others[j]` is at least as good as `points[i]` in every coordinate, and whether better in any."""
    at_least = np.ones((len(points), len(others)), dtype=bool)
    better = np.zeros_like(at_least)
    for column in range(points.shape[1]):
        own, theirs = points[:, column, None], others[None, :, column]
        at_least &= theirs >= own
        better |= theirs > own
    return at_least, better
