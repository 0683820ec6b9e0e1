"""Solving for concurrency: the knob whose effect is known, found by bisection for all rows at once.

More requests in flight never shorten TTFT or TPOT, never free memory, and never lower throughput as long as
every request has KV room; so the most that keeps those constraints is the best for throughput, and the
fewest that reaches a wanted rate is the best for latency.

A call of the cost model takes nearly as long for one row as for a thousand. So the numbers that the next steps of a
bisection may come to are all asked for in one call, and the steps then follow from the answers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from autotune.metrics import METRICS
from autotune.scoring.knob_grid import KnobGrid
from autotune.scoring.limits import check_limits, study_limits
from autotune.study import IntRange, Study
from costmodel.estimate.result import Estimate
from costmodel.plan.columns import Floats, Ints

Bools = NDArray[np.bool_]
MOST_PER_REPLICA = 1 << 20
ROWS_AT_ONCE = 6_000
"""Rows of one call that looks ahead, about, kinds of requests counted apart: beyond, a call takes in proportion."""


def solve_concurrency(grid: KnobGrid) -> Floats:
    """Requests in flight over all replicas for every row, shape `(num_rows,)`."""
    study = grid.study
    if study.workload.concurrency is not None:
        return np.full(grid.variant.shape[0], float(study.workload.concurrency))
    replicas, limits = grid.batch.layout.replicas, study_limits(study)
    low, high = bounds(study, replicas)
    rate = study.workload.request_rate_per_s
    if rate is not None:
        return in_range(study, _fewest(grid, low, high, lambda e: e.requests_per_s >= rate * (1.0 - 1e-9)) * replicas)
    if METRICS[study.objective.metric].fewer_in_flight:
        better = np.array([limit.kind.more_in_flight == "better" for limit in limits])
        return in_range(
            study,
            _fewest(grid, low, high, lambda e: (check_limits(limits, e).excess[better] <= 0.0).all(axis=0)) * replicas,
        )
    worse = tuple(limit for limit in limits if limit.kind.more_in_flight == "worse")

    def keeps(estimate: Estimate) -> Bools:
        check = check_limits(worse, estimate)
        # the share of `min_p_meets` that only falls with more in flight; without it a plan whose probability
        # needs far fewer would be called infeasible
        likely = check.p_meets >= study.search.min_p_meets
        return np.asarray((estimate.kv_wait_s <= 0.0) & likely & check.kept())

    return in_range(study, _most(grid, low, high, keeps) * replicas)


def in_range(study: Study, concurrency: Floats) -> Floats:
    """No more than the study's range allows, where it is narrower than a plan's replicas."""
    asked = study.search.concurrency
    return np.minimum(concurrency, float(asked.max)) if isinstance(asked, IntRange) else concurrency


def bounds(study: Study, replicas: Floats) -> tuple[Floats, Floats]:
    """Least and most requests in flight per replica, whole numbers (see `in_range`)."""
    asked = study.search.concurrency
    if not isinstance(asked, IntRange):
        return np.ones_like(replicas), np.full_like(replicas, MOST_PER_REPLICA)
    low = np.maximum(np.ceil(asked.min / replicas), 1.0)
    return low, np.maximum(np.floor(asked.max / replicas), low)


def _most(grid: KnobGrid, low: Floats, high: Floats, keeps: Callable[[Estimate], Bools]) -> Floats:
    """Largest whole number per replica that `keeps`; `low` where not even that does."""
    question = _Question(grid, keeps)
    return _bisect(question, low, _grow(question, low, high))[0]


def _fewest(grid: KnobGrid, low: Floats, high: Floats, enough: Callable[[Estimate], Bools]) -> Floats:
    """Smallest whole number per replica that is `enough`; the most with KV room where none is."""
    room = _most(grid, low, high, lambda e: np.asarray(e.kv_wait_s <= 0.0))
    return _bisect(_Question(grid, lambda e: ~enough(e)), low - 1.0, room)[1]


class _Question:
    """Whether something holds of an estimate, for some rows of a grid at several loads in one call."""

    def __init__(self, grid: KnobGrid, test: Callable[[Estimate], Bools]) -> None:
        self.grid, self.test = grid, test
        self.most_rows = ROWS_AT_ONCE // max(len(grid.study.workload.points), 1)

    def holds(self, rows: Ints, values: Floats, wanted: Bools, *, otherwise: bool) -> Bools:
        """The answers for a table of requests in flight per replica, a column per row, asked where they are wanted."""
        out = np.full(values.shape, otherwise)
        if wanted.any():
            asked = np.broadcast_to(rows, values.shape)[wanted]
            out[wanted] = self.test(
                self.grid.take(asked).evaluate(values[wanted] * self.grid.batch.layout.replicas[asked])
            )
        return out


def _grow(question: _Question, low: Floats, high: Floats) -> Floats:
    """An upper bound that does not hold, by fourfold steps, so that small answers are found in few steps."""
    reach = low.copy()
    rows = np.arange(reach.size)
    while rows.size:
        steps = max(question.most_rows // rows.size, 1)
        steps = min(steps, 1 + int(np.log2(MOST_PER_REPLICA)) // 2)
        values = reach[rows] * 4.0 ** np.arange(steps)[:, None]
        ends = (values > high[rows]) | ~question.holds(rows, values, values <= high[rows], otherwise=False)
        ended = ends.any(axis=0)
        found = np.where(ended, values[ends.argmax(axis=0), np.arange(rows.size)], values[-1] * 4.0)
        reach[rows] = np.minimum(found, high[rows] + 1.0)
        rows = rows[~ended]
    return np.maximum(reach, low + 1.0)


def _bisect(question: _Question, inside: Floats, outside: Floats) -> tuple[Floats, Floats]:
    """Neighbouring whole numbers per replica, of which the first holds and the second does not; shape `(num_rows,)`.

    Args:
        question: what holds up to some number of each row.
        inside: numbers at which it does, or that count as if.
        outside: larger ones at which it does not, or that count as if.
    """
    inside, outside = inside.copy(), outside.copy()
    while (rows := np.flatnonzero(outside - inside > 1.0)).size:
        edges = np.stack([inside[rows], outside[rows]])
        levels = max(int(np.log2(question.most_rows / rows.size + 1.0)), 1)
        for _ in range(min(levels, int(np.ceil(np.log2((edges[1] - edges[0]).max()))))):
            middles = np.floor((edges[:-1] + edges[1:]) / 2.0)
            edges = np.insert(edges, np.arange(1, len(edges)), middles, axis=0)
        # a middle that is no number of its own leaves its interval as it is
        known = question.holds(rows, edges[1:-1], edges[1:-1] > edges[:-2], otherwise=True)
        first, last = np.zeros(rows.size, dtype=np.int64), np.full(rows.size, len(edges) - 1)
        columns = np.arange(rows.size)
        while last[0] - first[0] > 1:
            middle = (first + last) // 2
            held = known[middle - 1, columns]
            first, last = np.where(held, middle, first), np.where(held, last, middle)
        inside[rows], outside[rows] = edges[first, columns], edges[last, columns]
    return inside, outside
