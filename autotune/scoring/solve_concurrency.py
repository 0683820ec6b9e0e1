"""Solving for concurrency: the knob whose effect is known, found by bisection for all rows at once.

More requests in flight never shorten TTFT or TPOT, never free memory, and never lower throughput as long as
every request has KV room; so the most that keeps those constraints is the best for throughput, and the
fewest that reaches a wanted rate is the best for latency.
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
from costmodel.plan.columns import Floats

Bools = NDArray[np.bool_]
MOST_PER_REPLICA = 1 << 20


def solve_concurrency(grid: KnobGrid) -> Floats:
    """Requests in flight over all replicas for every row, shape `(num_rows,)`."""
    study = grid.study
    if study.workload.concurrency is not None:
        return np.full(grid.variant.shape[0], float(study.workload.concurrency))
    replicas, limits = grid.batch.layout.replicas, study_limits(study)
    low, high = bounds(study, replicas)
    rate = study.workload.request_rate_per_s
    if rate is not None:
        return in_range(study, _fewest(grid, replicas, low, high, lambda e: e.requests_per_s >= rate * (1.0 - 1e-9)))
    if METRICS[study.objective.metric].fewer_in_flight:
        better = np.array([limit.kind.more_in_flight == "better" for limit in limits])
        return in_range(
            study,
            _fewest(grid, replicas, low, high, lambda e: (check_limits(limits, e).excess[better] <= 0.0).all(axis=0)),
        )
    worse = tuple(limit for limit in limits if limit.kind.more_in_flight == "worse")

    def keeps(estimate: Estimate) -> Bools:
        check = check_limits(worse, estimate)
        # the share of `min_p_meets` that only falls with more in flight; without it a plan whose probability
        # needs far fewer would be called infeasible
        likely = check.p_meets >= study.search.min_p_meets
        return np.asarray((estimate.kv_wait_s <= 0.0) & likely & check.kept())

    return in_range(study, _most(grid, replicas, low, high, keeps))


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


def _most(grid: KnobGrid, replicas: Floats, low: Floats, high: Floats, keeps: Callable[[Estimate], Bools]) -> Floats:
    """Largest whole number per replica that `keeps`; `low` where not even that does."""
    good, bad = low.copy(), _grow(grid, replicas, low, high, keeps)
    while np.any(bad - good > 1.0):
        middle = np.floor((good + bad) / 2.0)
        kept = keeps(grid.evaluate(middle * replicas))
        good, bad = np.where(kept, middle, good), np.where(kept, bad, np.maximum(middle, good + 1.0))
    return good * replicas


def _grow(grid: KnobGrid, replicas: Floats, low: Floats, high: Floats, keeps: Callable[[Estimate], Bools]) -> Floats:
    """An upper bound that does not keep, by fourfold steps, so that small answers are found in few steps."""
    reach = low.copy()
    open_rows = np.ones(reach.shape, dtype=bool)
    while open_rows.any():
        open_rows &= keeps(grid.evaluate(reach * replicas))
        grown = np.minimum(reach * 4.0, high + 1.0)
        open_rows &= reach <= high
        reach = np.where(open_rows, grown, reach)
        open_rows &= reach <= high
    return np.maximum(reach, low + 1.0)


def _fewest(grid: KnobGrid, replicas: Floats, low: Floats, high: Floats, enough: Callable[[Estimate], Bools]) -> Floats:
    """Smallest whole number per replica that is `enough`; the most with KV room where none is."""
    room = np.maximum(_most(grid, replicas, low, high, lambda e: np.asarray(e.kv_wait_s <= 0.0)) / replicas, low)
    short, plenty = low - 1.0, room.copy()
    while np.any(plenty - short > 1.0):
        middle = np.maximum(np.floor((short + plenty) / 2.0), low)
        reached = enough(grid.evaluate(middle * replicas))
        plenty, short = (
            np.where(reached, middle, plenty),
            np.where(reached, short, np.minimum(middle, plenty - 1.0)),
        )
    return plenty * replicas
