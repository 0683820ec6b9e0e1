"""Which rows of a search for loads need no closer look: they stay behind others, or reach what is asked."""

from __future__ import annotations

import numpy as np

from autotune.metrics import METRICS, RATE_SD
from autotune.scoring.limits import JOINT_PROBABILITY, study_limits
from autotune.study import Study
from costmodel.plan.columns import Bools, Floats, Ints

SMALL_STEPS = 1.05
"""By how much a plan may be worth more than its rise with the load allows: steps and chunks are whole ones. A statement
of `python -m tests.properties` holds whole requests to it."""


class Rivals:
    """Which rows of a search stay behind another of their owner, whatever is found between the loads next to theirs.

    More requests in flight never make one of them quicker, but for small steps: so a plan's throughput rises by no
    more than they do, and limits that only take harm from them are kept no better. Nothing is said of other limits and
    of objectives that are no throughput or its price.
    """

    def __init__(self, study: Study, owner: Ints | None) -> None:
        by_rate = METRICS[study.objective.metric].log_sd == RATE_SD
        harmed = all(x.kind.more_in_flight == "worse" or x.code == JOINT_PROBABILITY for x in study_limits(study))
        self.bounded = by_rate and harmed
        self.owner = owner if self.bounded else None
        self.gain = np.full(0 if owner is None else int(owner[-1]) + 1, -np.inf)
        """The best that some row of each owner is known to be worth within every limit."""

    def most(self, edges: Floats, keys: Floats) -> Floats:
        """What rows may be worth within every limit between the loads next to theirs; infinite: nothing is known."""
        if not self.bounded:
            return np.full(edges.shape[1], np.inf)
        gain = np.where(keys[1] <= 0.0, -keys[2], -np.inf)
        more = _rise(edges)
        return np.asarray(np.maximum(gain * more, gain / more))

    def lost(self, rows: Ints, edges: Floats, keys: Floats) -> Bools:
        """Shape `(rows,)`, of rows at their best loads so far; `edges` as of `around`, `keys` as of `_Search.keys`."""
        if self.owner is None:
            return np.zeros(rows.size, dtype=bool)
        np.maximum.at(self.gain, self.owner[rows], np.where(keys[1] <= 0.0, -keys[2], -np.inf))
        return np.asarray(self.most(edges, keys) < self.gain[self.owner[rows]])


class Goal:
    """Rates to reach: a row is done with where it serves as many requests, and given up where it never can."""

    def __init__(self, wanted_per_s: Floats) -> None:
        """`wanted_per_s`: of each row of the search, shape `(num_rows,)`."""
        self.wanted_per_s = wanted_per_s

    def most(self, edges: Floats, keys: Floats) -> Floats:
        """Requests per second that rows may serve between the loads next to theirs; arguments as of `Rivals.most`."""
        return np.asarray(-keys[2] * _rise(edges))

    def lost(self, rows: Ints, edges: Floats, keys: Floats) -> Bools:
        """Of which rows nothing more has to be known, shape `(rows,)`; arguments as of `Rivals.lost`."""
        wanted = self.wanted_per_s[rows]
        return np.asarray((-keys[2] >= wanted) | (self.most(edges, keys) < wanted))


def _rise(edges: Floats) -> Floats:
    """By how much the throughput at a load may be exceeded between the loads next to it; `edges` as of `around`."""
    return np.asarray(SMALL_STEPS * np.maximum(edges[2] / edges[1], edges[1] / edges[0]))
