"""What of a window a log covers: a log that begins later, ends earlier or has a gap says nothing of that time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from costmodel.plan.columns import Floats

LEAST_GAP_S = 600.0
LONGER_THAN_MEAN = 100.0
"""A gap is longer than `LEAST_GAP_S` and so many times the usual time between requests: by chance alone, at a steady
rate, that is less likely than e^-100. A service that rests at night at the same scale is taken as not logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """The part of a window that a log covers."""

    start_s: float
    end_s: float
    gaps_s: tuple[tuple[float, float], ...] = ()
    """Beginning and end of each time between the two in which nothing was logged, ascending."""

    @property
    def gap_s(self) -> float:
        """Length of all gaps."""
        return sum(end - start for start, end in self.gaps_s)

    @property
    def seconds(self) -> float:
        """Time that is covered."""
        return self.end_s - self.start_s - self.gap_s

    def share(self, start_s: float, end_s: float) -> float:
        """Of a window."""
        return min(self.seconds / (end_s - start_s), 1.0) if end_s > start_s else 1.0

    def since(self, start_s: float) -> Covered:
        """What is left after a time."""
        start = max(self.start_s, start_s)
        gaps = tuple((max(a, start), b) for a, b in self.gaps_s if b > start)
        if gaps and gaps[0][0] <= start:
            start, gaps = gaps[0][1], gaps[1:]
        return replace(self, start_s=start, gaps_s=gaps)


def covered_time(times_s: Floats, start_s: float, end_s: float, *, goes_back: bool) -> Covered:
    """What of a window from `start_s` to `end_s` the requests at `times_s` (ascending, shape `(num_requests,)`) cover.

    `goes_back`: whether the log has requests before the window, so that it covers the window's beginning.
    """
    between = np.diff(times_s)
    usual_s = float(between.mean()) if between.size else 0.0
    for _ in range(3):  # long gaps make the mean long: without them it is what is usual
        least_s = max(LEAST_GAP_S, LONGER_THAN_MEAN * usual_s)
        kept = between[between <= least_s]
        if kept.size == 0:
            break
        usual_s = float(kept.mean())
    least_s = max(LEAST_GAP_S, LONGER_THAN_MEAN * usual_s)
    first, last = float(times_s[0]), float(times_s[-1])
    begin = start_s if goes_back and first - start_s <= least_s else first
    finish = end_s if end_s - last <= least_s else last
    gaps = tuple((float(times_s[i]), float(times_s[i + 1])) for i in np.flatnonzero(between > least_s))
    return Covered(start_s=begin, end_s=finish, gaps_s=gaps)


def without_gaps(times_s: Floats, gaps_s: tuple[tuple[float, float], ...]) -> Floats:
    """Times moved together as if the gaps had not been, shape of `times_s`."""
    if not gaps_s:
        return times_s
    ends = np.array([end for _, end in gaps_s])
    lengths = np.concatenate(([0.0], np.cumsum([end - start for start, end in gaps_s])))
    return times_s - lengths[np.searchsorted(ends, times_s, side="right")]
