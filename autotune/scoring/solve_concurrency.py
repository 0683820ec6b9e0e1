"""Solving for concurrency: the knob whose effect is known, found for all rows at once.

More requests in flight lengthen TTFT and TPOT and take memory; they raise throughput until prompts crowd out decode
steps. So what keeps every limit is a range of loads, and what can be expected of a plan rises to one best load in it
and falls behind, but for small steps and for batches that outgrow what an engine has captured. The search looks at
loads over the whole range first and then ever closer around the best of them, and around others that may lead to a
higher peak, down to single requests: what it compares is the order that plans are ranked by (`Standing`), so the load
is the best under the rule itself. `tests/tuning/test_brute_force.py` holds it against every load.

A call of the cost model takes nearly as long for one row as for a thousand. So the numbers that the next steps of a
search may come to are all asked for in one call, and the steps then follow from the answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Self

import numpy as np

from autotune.scoring.bisection import MOST_PER_REPLICA, ROWS_AT_ONCE, Question, Test, bisect, grow
from autotune.scoring.knob_grid import KnobGrid
from autotune.scoring.limits import check_limits, study_limits
from autotune.scoring.load_peaks import CLOSER_KNEE, KNEE, around, other_peaks
from autotune.scoring.load_rivals import Goal, Rivals
from autotune.scoring.plan_result import ScoredRows
from autotune.study import IntRange, Study
from costmodel.plan.columns import Bools, Floats, Ints


def solve_concurrency(grid: KnobGrid, owner: Ints | None = None) -> Floats:
    """Requests in flight over all replicas for every row, shape `(num_rows,)`: those under which the row stands best.

    A row that breaks a limit at every load is taken where it is the least off; of equal loads the least is taken.
    With `owner`, whose row each is (ascending from 0), only the best row of each owner is at its best load: others are
    left at a load of theirs once it is sure that they stay behind.
    """
    study, rows = grid.study, grid.variant.size
    if study.workload.concurrency is not None:
        return np.full(rows, float(study.workload.concurrency))
    asked = study.search.concurrency
    if grid.offered_per_s is None and asked is not None and not isinstance(asked, IntRange):
        table = np.repeat(np.sort(np.array(asked, dtype=np.float64))[:, None], rows, axis=1)
        return table[_Search(grid).best_of(table), np.arange(rows)]
    replicas = grid.batch.layout.replicas
    low, high = bounds(study, replicas)
    room = _room(grid, low, high)
    if grid.offered_per_s is not None:
        solved = _fewest(grid, low, room)
    else:
        solved = _best(_Search(grid), low, room, Rivals(study, owner))[0]
    return in_range(study, solved * replicas)


def most_within_limits(grid: KnobGrid) -> Floats:
    """The most requests in flight over all replicas that keep the limits which more of them only ever break."""
    study, replicas = grid.study, grid.batch.layout.replicas
    worse = tuple(limit for limit in study_limits(study) if limit.kind.more_in_flight == "worse")

    def keeps(grid: KnobGrid, concurrency: Floats) -> Bools:
        estimate = grid.evaluate(concurrency)
        check = check_limits(worse, estimate)
        likely = check.p_meets >= study.search.min_p_meets
        return np.asarray((estimate.kv_wait_s <= 0.0) & likely & check.kept())

    return in_range(study, _most(grid, *bounds(study, replicas), keeps) * replicas)


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


def _room(grid: KnobGrid, low: Floats, high: Floats) -> Floats:
    """Largest whole number per replica that all have KV cache and a seat; `low` where not even that many have.

    Requests in flight take little memory beside their own cache, so what is admitted at one number is nearly the
    answer, and no less than it where all of them are admitted.
    """
    inside, outside, tried = low.copy(), high + 1.0, low.copy()
    rows = np.arange(low.size)
    for turn in count():
        if not rows.size:
            return inside
        taken = grid.take(rows)
        admitted = taken.admitted(tried * taken.batch.layout.replicas)
        fits = tried <= admitted
        inside[rows[fits]] = tried[fits]
        outside[rows] = np.where(fits, np.minimum(outside[rows], admitted + 1.0), np.maximum(tried, low[rows] + 1.0))
        wide = outside[rows] - inside[rows] > 1.0
        rows, admitted = rows[wide], admitted[wide]
        # every fourth step halves what is left, so that they are few however the memory changes
        wanted = np.floor((inside[rows] + outside[rows]) / 2.0) if turn % 4 == 3 else admitted
        tried = np.clip(wanted, inside[rows] + 1.0, outside[rows] - 1.0)
    raise AssertionError("unreachable")


def _most(grid: KnobGrid, low: Floats, high: Floats, keeps: Test) -> Floats:
    """Largest whole number per replica that `keeps`; `low` where not even that does."""
    question = Question(grid, keeps)
    return bisect(question, low, grow(question, low, high))[0]


def _fewest(grid: KnobGrid, low: Floats, room: Floats) -> Floats:
    """Smallest whole number per replica that serves the rate of each row; where none does, the most with KV room.

    Where the most serve less than the rate, fewer may serve more: then it is reached below the load that serves most.
    """
    reach = room.copy()
    short = np.flatnonzero(~grid.carries(grid.evaluate(room * grid.batch.layout.replicas)))
    if short.size:
        wanted = grid.wanted_per_s[short]
        peak, keys = _best(_Search(grid.take(short), by_rate=True), low[short], room[short], Goal(wanted))
        enough = -keys[2] >= wanted
        reach[short[enough]] = peak[enough]
    short_of = Question(grid, lambda g, c: ~g.carries(g.evaluate(c)))
    # from the least on, so that room for more changes nothing where the rate comes and goes with small steps
    return bisect(short_of, low - 1.0, np.minimum(grow(short_of, low, reach), reach))[1]


MOST_OFF = 1e300
"""What an infinite excess or loss counts as, so that a load which was looked at is better than one which was not."""
FIRST_LOOK = np.append(1.0, np.floor(2.0 ** np.arange(1.0, np.log2(MOST_PER_REPLICA) + 0.5, 0.5) + 0.5))
"""Loads that a search begins with, between the least and the most: the same whatever those are, so that room for more
requests and a limit that asks for less lose nothing that was found with less."""
HIGH = 0.1
"""Beside loads at which a row is worth so little less than at its best, as a share, others are looked at too."""
BEHIND = 1.05
"""A load just behind another: what decodes is a little less than what is in flight."""


class _Search:
    """How rows of a grid stand at loads, for finding the best of them."""

    def __init__(self, grid: KnobGrid, *, by_rate: bool = False) -> None:
        """`by_rate`: look for the most requests per second, whatever the limits and the objective are."""
        self.grid, self.by_rate = grid, by_rate
        self.most_rows = ROWS_AT_ONCE // max(len(grid.study.workload.points), 1)

    def keys(self, rows: Ints, values: Floats, wanted: Bools) -> Floats:
        """How far off rows stand at requests in flight per replica, most weighty first, all smaller is better.

        Args:
            rows: of the grid, shape `(rows,)`.
            values: shape `(loads, rows)`.
            wanted: which of them to look at, same shape; the others stand infinitely bad.

        Returns:
            Shape `(3, loads, rows)`: the excess over the limit that is broken most, but for the probability of keeping
            them all; then with it; then the loss.
        """
        out = np.full((3, *values.shape), np.inf)
        if not wanted.any():
            return out
        asked = np.broadcast_to(rows, values.shape)[wanted]
        grid = self.grid.take(asked)
        concurrency = in_range(grid.study, values[wanted] * grid.batch.layout.replicas)
        if self.by_rate:
            out[:, wanted] = 0.0
            out[2, wanted] = -grid.evaluate(concurrency).requests_per_s
            return out
        standing = ScoredRows.of(grid.study, grid.evaluate(concurrency), grid.price_per_hour).standing
        found = np.stack([standing.broken, standing.worst, np.where(standing.worst > 0.0, 0.0, -standing.gain)])
        out[:, wanted] = np.clip(found, -MOST_OFF, MOST_OFF)
        return out

    def best_of(self, values: Floats) -> Ints:
        """Which load of each row is the best, shape `(rows,)`; `values` over all replicas, ascending by row."""
        rows = np.arange(values.shape[1])
        keys = self.keys(rows, values / self.grid.batch.layout.replicas, np.ones(values.shape, dtype=bool))
        return _first_best(keys)


def _first_best(keys: Floats) -> Ints:
    """The first of the best loads of each row, shape `(rows,)`; `keys` as of `_Search.keys`."""
    good = np.ones(keys.shape[1:], dtype=bool)
    for key in keys:
        least = np.where(good, key, np.inf).min(axis=0)
        good &= key <= least
    return good.argmax(axis=0)


def _best(search: _Search, low: Floats, high: Floats, rivals: Rivals | Goal) -> tuple[Floats, Floats]:
    """The whole number per replica between the bounds under which each row stands best, shape `(rows,)`, and its keys.

    Rows that `rivals` give up are left at a load of theirs; keys as of `_Search.keys`, shape `(3, rows)`.
    """
    behind = np.broadcast_to(np.ceil(_behind_a_chunk(search.grid)), low.shape)
    within = FIRST_LOOK[: np.searchsorted(FIRST_LOOK, high.max()), None]
    values = np.vstack([low, np.broadcast_to(within, (within.size, low.size)), behind, high])
    values = np.sort(np.clip(values, low, high), axis=0)
    fresh = np.diff(values, axis=0, prepend=(low - 1.0)[None]) > 0.0
    keys = search.keys(np.arange(low.size), values, fresh)
    values, fresh, keys = _second_look(search, values, fresh, keys, rivals)
    peaks, done = _Peaks.of(np.arange(low.size), values, keys, fresh, rivals, KNEE), list[_Peaks]()
    for turn in count():
        wide = peaks.wide & ~rivals.lost(peaks.row, peaks.edges, peaks.keys)
        done.append(peaks.take(np.flatnonzero(~wide)))
        peaks = peaks.take(np.flatnonzero(wide))
        if not peaks.row.size:
            break
        values, keys, fresh = peaks.closer(search)
        peaks = _Peaks.of(peaks.row, values, keys, fresh, rivals, CLOSER_KNEE if turn == 0 else None)
    row, loads = (np.concatenate(parts) for parts in zip(*((part.row, part.edges[1]) for part in done), strict=True))
    keys = np.concatenate([part.keys for part in done], axis=1)
    order = np.lexsort((loads, *keys[::-1], row))
    first = order[np.unique(row[order], return_index=True)[1]]
    return loads[first], keys[:, first]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peaks:
    """Loads that a search closes in on, between their neighbours."""

    row: Ints
    """Whose load each is, shape `(peaks,)`."""
    edges: Floats
    """As of `around`, shape `(3, peaks)`."""
    keys: Floats
    """As of `_Search.keys` at the load in the middle, shape `(3, peaks)`."""

    @classmethod
    def of(
        cls, row: Ints, values: Floats, keys: Floats, fresh: Bools, rivals: Rivals | Goal, knee: float | None
    ) -> Self:
        """The best load of each column of `values`; with a `knee` others too that may lead to a better (`other_peaks`).

        `row` is that of each column; `fresh` says which of the values were looked at, `keys` what was found.
        """
        best = _first_best(keys)
        others = other_peaks(values, keys, fresh, best, rivals, knee) if knee is not None else []
        columns = np.concatenate([np.arange(best.size), *(worth for _, worth in others)])
        places = np.concatenate([best, *(place[worth] for place, worth in others)])
        return cls(row=row[columns], edges=around(values[:, columns], places), keys=keys[:, places, columns])

    @property
    def wide(self) -> Bools:
        """Which have loads between them and a neighbour."""
        return np.asarray(np.diff(self.edges, axis=0).max(axis=0) > 1.0)

    def take(self, which: Ints) -> Self:
        """Some of them."""
        return type(self)(row=self.row[which], edges=self.edges[:, which], keys=self.keys[:, which])

    def closer(self, search: _Search) -> tuple[Floats, Floats, Bools]:
        """Loads between the neighbours, a column for each peak, their keys, and which are known; neighbours are not."""
        between = max(min(search.most_rows // (2 * self.row.size), 8), 1)
        shares = np.arange(1, between + 1)[:, None] / (between + 1.0)
        edges = self.edges
        parts = [np.floor(edges[i] + (edges[i + 1] - edges[i]) * shares) for i in (0, 1)]
        values = np.concatenate([edges[:1], parts[0], edges[1:2], parts[1], edges[2:]])
        fresh = np.diff(values, axis=0, prepend=-1.0) > 0.0
        fresh[[0, between + 1, -1]] = False
        keys = search.keys(self.row, values, fresh)
        keys[:, between + 1] = self.keys
        fresh[between + 1] = True
        return values, keys, fresh


def _second_look(
    search: _Search, values: Floats, fresh: Bools, keys: Floats, rivals: Rivals | Goal
) -> tuple[Floats, Bools, Floats]:
    """The loads of a first look, which of them are new, and their keys, with others beside those that are nearly best.

    Not for rows that stay behind others of their owner, nor for those that break a limit at all of them.
    """
    rows = np.arange(values.shape[1])
    best = _first_best(keys)
    known = keys[:, best, rows]
    going = ~rivals.lost(rows, around(values, best), known) & (known[1] <= 0.0)
    # a load that stands there again is worth what it is at its first place
    first = np.maximum.accumulate(np.where(fresh, np.arange(len(values))[:, None], 0), axis=0)
    gain = np.where(keys[1] <= 0.0, -keys[2], -np.inf)[first, rows]
    high = gain >= -known[2] - HIGH * np.abs(known[2])
    between = np.floor(np.sqrt(values[:-1] * values[1:]) + 0.5)
    wanted = going & (high[:-1] | high[1:]) & (between > values[:-1]) & (between < values[1:])
    together = np.concatenate([values, np.where(wanted, between, values[:-1])])
    keys = np.concatenate([keys, search.keys(rows, between, wanted)], axis=1)
    order = np.argsort(together, axis=0, kind="stable")
    values = np.take_along_axis(together, order, axis=0)
    return values, np.diff(values, axis=0, prepend=-1.0) > 0.0, np.take_along_axis(keys, order[None], axis=1)


def _behind_a_chunk(grid: KnobGrid) -> Floats:
    """Requests in flight per replica just behind those at which a prompt no longer fits one step, shape `(rows,)`.

    Decode tokens take their part of the token budget. Two steps of half a prompt may be quicker than one of a whole,
    where they fit the captured graphs: a plan may then be worth more behind this load than for long before it.
    """
    layout = grid.batch.layout
    room = grid.batched_tokens - grid.asked(lambda study: study.workload.isl.mean) * (1.0 - grid.prefix_hit_frac)
    return np.asarray(BEHIND * room * layout.pp * layout.attn_dp)
