"""Bisection over whole numbers, for all rows of a grid at once: up to which number of requests something holds.

Several steps of a bisection are answered by one call of the cost model, which takes nearly as long for one row as for
a thousand.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autotune.scoring.knob_grid import KnobGrid
from costmodel.plan.columns import Bools, Floats, Ints

Test = Callable[[KnobGrid, Floats], Bools]
"""What is asked of rows with so many requests in flight over all replicas."""
MOST_PER_REPLICA = 1 << 20
ROWS_AT_ONCE = 6_000
"""Rows of one call that looks ahead, about, kinds of requests counted apart: beyond, a call takes in proportion."""


class Question:
    """Whether something holds of an estimate, for some rows of a grid at several loads in one call."""

    def __init__(self, grid: KnobGrid, test: Test) -> None:
        self.grid, self.test = grid, test
        self.most_rows = ROWS_AT_ONCE // max(len(grid.study.workload.points), 1)

    def holds(self, rows: Ints, values: Floats, wanted: Bools, *, otherwise: bool) -> Bools:
        """The answers for a table of requests in flight per replica, a column per row, asked where they are wanted."""
        out = np.full(values.shape, otherwise)
        if wanted.any():
            asked = np.broadcast_to(rows, values.shape)[wanted]
            out[wanted] = self.test(self.grid.take(asked), values[wanted] * self.grid.batch.layout.replicas[asked])
        return out


def grow(question: Question, low: Floats, high: Floats) -> Floats:
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


def bisect(question: Question, inside: Floats, outside: Floats) -> tuple[Floats, Floats]:
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
