"""What so many replicas of one kind take together: the more share random arrivals, the more each of them takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from costmodel.plan.columns import Floats, Ints

TIGHT = 1.0 - 1e-9
"""Share of a load at which it counts as carried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacities:
    """Requests per second within the limits, by the number of replicas. Arrays have shape `(counts,)`."""

    counts: Ints
    """Ascending from 1; a number between counts as the one before it."""
    each_per_s: Floats
    """What each of so many takes; never less with more of them."""

    @classmethod
    def of(cls, counts: Ints, each_per_s: Floats) -> Self:
        """As found, but for the steps in which rates are found: more replicas never take less each."""
        return cls(counts=counts, each_per_s=np.maximum.accumulate(each_per_s))

    def each(self, replicas: int | Ints) -> Floats:
        """What each of so many replicas takes, of their shape."""
        return np.asarray(self.each_per_s[np.maximum(np.searchsorted(self.counts, replicas, side="right") - 1, 0)])

    def together(self, replicas: int | Ints) -> Floats:
        """What so many replicas take, of their shape."""
        return np.asarray(replicas * self.each(replicas))

    def fewest(self, load_per_s: float) -> int:
        """The fewest replicas that take a load, at least one; `each_per_s` is above 0."""
        needed = np.ceil(load_per_s / self.each_per_s * TIGHT)
        return int(np.maximum(needed, self.counts).min())

    def at_least(self, other: Capacities) -> Capacities:
        """The larger of both, of the same counts."""
        return Capacities(counts=self.counts, each_per_s=np.maximum(self.each_per_s, other.each_per_s))
