"""Where between the loads of a search a better one may lie."""

from __future__ import annotations

import numpy as np

from autotune.scoring.load_rivals import Goal, Rivals
from costmodel.plan.columns import Bools, Floats, Ints

KNEE, CLOSER_KNEE = 0.01, 0.002
"""By how much a plan would be worth more at a load, had it gone on rising as before, where it is said to bend: among
the loads that a search begins with, and among those of its first step closer."""
NEAR_BEST = 0.005
"""A bend is looked into where a plan may be worth so little less than the best that is known, as a share of it."""


def around(values: Floats, best: Ints) -> Floats:
    """The load at a place of each column between the nearest smaller and larger ones, shape `(3, columns)`.

    At an end of the range nothing is beyond: there the load stands for its own neighbour.
    """
    at = values[best, np.arange(values.shape[1])]
    below = np.where(values < at, values, -np.inf).max(axis=0)
    above = np.where(values > at, values, np.inf).min(axis=0)
    return np.stack([np.where(np.isinf(below), at, below), at, np.where(np.isinf(above), at, above)])


def other_peaks(
    values: Floats, keys: Floats, fresh: Bools, best: Ints, rivals: Rivals | Goal, knee: float
) -> list[tuple[Ints, Ints]]:
    """Loads beside the best one of each row that may lead to a better one, and for which rows they may: three of each.

    One is the next best that its neighbours are worse than: what a plan is worth falls at once where a batch outgrows
    the graphs that are captured, and rises again behind. The other is the last one that keeps every limit: behind a
    hollow a plan may be worth more with each request until a limit cuts it off. The third is the first load behind the
    bend at which what a plan is worth ceases to rise: the peak of a bend is sharp. All peaks may lie between two loads
    of the first look.
    """
    loads, rows = np.arange(values.shape[0])[:, None], np.arange(values.shape[1])
    rank = np.argsort(np.lexsort(keys[::-1], axis=0), axis=0)
    padded = np.vstack([rank, np.full((1, rows.size), rank.size)])
    before = np.maximum.accumulate(np.where(fresh, loads, -1), axis=0)
    before = np.vstack([np.full((1, rows.size), -1), before[:-1]])
    after = np.minimum.accumulate(np.where(fresh, loads, loads.size)[::-1], axis=0)[::-1]
    after = np.vstack([after[1:], np.full((1, rows.size), loads.size)])
    peak = fresh & (rank < padded[before, rows]) & (rank < padded[after, rows]) & (loads != best)
    second = np.where(peak, rank, rank.size).argmin(axis=0)
    kept = fresh & (keys[1] <= 0.0)
    last = np.where(kept, loads, -1).max(axis=0)
    cut = (last >= 0) & (after[last, rows] < loads.size) & (last != best) & ~(peak[second, rows] & (last == second))

    bend = _bends(values, np.where(kept, -keys[2], np.nan), before, after, -keys[2, best, rows], knee)
    behind = np.minimum(after[best, rows], loads.size - 1)
    bend[best, rows] = bend[behind, rows] = bend[second, rows] = bend[last, rows] = False
    third = bend.argmax(axis=0)

    def may_lead(places: Ints) -> Bools:
        more = rivals.most(around(values, places), keys[:, places, rows]) > -keys[2, best, rows]
        return np.asarray(more | (keys[1, best, rows] > 0.0))

    return [
        (second, np.flatnonzero(peak[second, rows] & may_lead(second))),
        (last, np.flatnonzero(cut & may_lead(last))),
        (third, np.flatnonzero(bend[third, rows])),
    ]


def _bends(values: Floats, gain: Floats, before: Ints, after: Ints, best: Floats, knee: float) -> Bools:
    """Loads before which what a row is worth ceases to rise as it did, near to the best of the row.

    Args:
        values: loads, shape `(loads, rows)`, as all but `best`.
        gain: what a row is worth there; NaN where it breaks a limit or was not looked at.
        before: place of the load before each, -1 if there is none.
        after: place of the load behind each, `len(values)` if there is none.
        best: what each row is worth at its best load.
    """
    rows = np.arange(values.shape[1])
    ends = np.vstack([values, np.full((1, rows.size), np.nan)]), np.vstack([gain, np.full((1, rows.size), np.nan)])
    (at, below, above), (here, left, right) = (
        (end[: len(values)], end[before, rows], end[after, rows]) for end in ends
    )
    rise = (here - left) / (at - below)
    earlier = np.vstack([rise, np.full((1, rows.size), np.nan)])[before, rows]
    bent = left + earlier * (at - below) > here + knee * np.abs(here)
    fall = np.minimum(np.nan_to_num((right - here) / (above - at)), 0.0)
    return np.asarray(bent & (here - fall * (at - below) >= best - NEAR_BEST * np.abs(best)))
