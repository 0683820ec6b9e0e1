"""The highest request rate at which plans keep every limit, as they are scored at a rate.

Requests that come at random meet more than those of a fixed number in flight that serves as many (`at_random`): the
most that a plan serves within the limits in the closed loop is the most that the rate can be, and less of it is asked
in turn.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autotune.scoring.best_knobs import KnobGridAtLoad
from autotune.scoring.knob_grid import KnobGrid
from autotune.scoring.solve_concurrency import solve_concurrency
from autotune.study import Study
from costmodel.plan.columns import Bools, Floats, Ints

CLOSE_FRAC = 1.0 / 512.0
"""How close a rate is found, as a share of it."""
LEAST_FRAC = 1.0 / 64.0
"""Share of the most below which rates are found only as close as there."""
MOST_BETWEEN = 8
"""Rates of one row that are asked at once, at most."""
LEAST_RATE_PER_S = 1e-9
RATES_AT_ONCE = 500
"""Of all rows, kinds of requests counted apart: beyond, a call takes in proportion."""


def highest_rates(
    grid: KnobGrid, owner: Ints, most_per_s: Floats, least_per_s: Floats | None = None
) -> tuple[Floats, Ints]:
    """The highest requests per second over all replicas that some row of each owner keeps every limit at, and the row.

    What is found was asked: a rate is 0 where none was kept. Both of shape `(owners,)`. Rows with the same most go
    together: those with the largest of their owner first, so that others are only asked for more than they keep.

    Args:
        grid: of a study with a request rate, which is not looked at.
        owner: whose row each is, ascending from 0, shape `(num_rows,)`.
        most_per_s: rates of the rows that are not exceeded, over 0, same shape.
        least_per_s: rates that some row of an owner is known to keep, shape `(owners,)`; None: nothing is known.
    """
    grid = replace(grid, studies=tuple(_at_no_rate(study) for study in grid.studies))
    found = np.zeros(int(owner[-1]) + 1) if least_per_s is None else least_per_s.copy()
    inside, outside = np.zeros_like(most_per_s), most_per_s.copy()
    largest = np.zeros_like(found)
    np.maximum.at(largest, owner, most_per_s)
    first = most_per_s >= largest[owner]
    for turn in (first, ~first):
        rows = np.flatnonzero(turn & (most_per_s > found[owner]))
        if turn is not first:
            rows = rows[_kept(grid, rows, found[owner[rows]])]
        inside[rows] = found[owner[rows]]
        whole = rows[_kept(grid, rows, most_per_s[rows])]
        inside[whole] = most_per_s[whole]
        np.maximum.at(found, owner[rows], inside[rows])
        while (rows := rows[_open(inside[rows], outside[rows], most_per_s[rows], found[owner[rows]])]).size:
            inside[rows], outside[rows] = _closer(grid, rows, inside[rows], outside[rows])
            np.maximum.at(found, owner[rows], inside[rows])
    order = np.lexsort((-inside, owner))
    return found, order[np.unique(owner[order], return_index=True)[1]]


def _open(inside: Floats, outside: Floats, most: Floats, found: Floats) -> Bools:
    """Which rows may keep the limits at more than what their owners are known to, shape `(rows,)`, as all arguments."""
    close = CLOSE_FRAC * np.maximum(outside, LEAST_FRAC * most)
    return np.asarray((outside - inside > close) & (outside > found))


def _closer(grid: KnobGrid, rows: Ints, inside: Floats, outside: Floats) -> tuple[Floats, Floats]:
    """Rates nearer to each other, of which rows keep the limits at the first and not at the second."""
    at_once = RATES_AT_ONCE // (rows.size * max(len(grid.study.workload.points), 1))
    between = min(max(at_once, 1), MOST_BETWEEN)
    edges = inside + (outside - inside) * np.arange(between + 2)[:, None] / (between + 1.0)
    held = np.ones((between + 1, rows.size), dtype=bool)
    held[1:] = _kept(grid, np.tile(rows, between), edges[1:-1].ravel()).reshape(between, rows.size)
    last, columns = between - held[::-1].argmax(axis=0), np.arange(rows.size)
    return edges[last, columns], edges[last + 1, columns]


def _kept(grid: KnobGrid, rows: Ints, rates_per_s: Floats) -> Bools:
    """Whether rows serve all of a rate of their own and keep every other limit with it, shape `(rows,)`."""
    kept = rates_per_s <= 0.0
    asked = np.flatnonzero(~kept)
    if not asked.size:
        return kept
    taken = replace(grid.take(rows[asked]), offered_per_s=rates_per_s[asked])
    scored = KnobGridAtLoad(taken, solve_concurrency(taken)).scored
    kept[asked] = taken.carries(scored.estimate) & scored.check.kept()
    return kept


def _at_no_rate(study: Study) -> Study:
    """The study with a rate that everything carries: what binds rows are rates of their own."""
    return replace(study, workload=replace(study.workload, request_rate_per_s=LEAST_RATE_PER_S))
