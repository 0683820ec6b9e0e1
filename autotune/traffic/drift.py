"""Whether two windows of traffic differ: lengths by a two-sample distance, rates and burstiness by ratios.

Lengths: the two-dimensional Kolmogorov-Smirnov distance (Peacock 1983): the largest difference between the shares of
requests in a quadrant of the (prompt, output) plane, over all corners and the four orientations; 0 to 1. It is held
against the distances that a random split of the pooled requests gives (a permutation test on the cells of the grid).
Requests that come in bursts are not independent, so that each window counts as `requests / burstiness` of them.
Traffic of a real service differs from hour to hour without need for another plan: beside being more than chance, a
difference must be large enough to matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import exp, hypot, log, sqrt
from typing import Any

import numpy as np

from autotune.traffic.grid import MAX_CELL, Grid
from autotune.traffic.profile import WorkloadProfile
from autotune.traffic.rates import Z
from costmodel.plan.columns import Floats

SPLITS = 200
SEED = 11
LEVEL = 0.99
"""Share of random splits that stay below the bound."""
MOST_DRAWN = 20_000
"""Requests per window in the random splits, at most: a bound for fewer is only larger, thus on the safe side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPolicy:
    """What differences matter."""

    min_distance: float = 0.15
    """Of lengths, 0 to 1: share of requests that must have moved."""
    min_rate_ratio: float = 1.25
    """Of request rates, either way."""
    min_burstiness_ratio: float = 3.0
    min_prefix_difference: float = 0.1
    """Of the shared-prefix fraction."""


MATTERS = DriftPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthDrift:
    """Distance between the joint length distributions."""

    distance: float
    bound: float
    """What chance alone stays below in `LEVEL` of random splits."""
    drifted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioDrift:
    """New over old."""

    ratio: float
    interval: tuple[float, float]
    """95 %."""
    drifted: bool
    """Whether the whole interval lies beyond what matters."""

    @classmethod
    def of(cls, ratio: float, interval: tuple[float, float], matters: float) -> RatioDrift:
        """A ratio that matters from `matters` on, either way."""
        return cls(ratio=ratio, interval=interval, drifted=interval[0] > matters or interval[1] < 1.0 / matters)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficDrift:
    """Whether a window differs from the one that a plan was chosen for, and in what."""

    lengths: LengthDrift
    rate: RatioDrift
    burstiness: RatioDrift
    shared_prefix_difference: float | None
    """New less old; None: one of the logs has none."""
    drifted: bool
    reason: str

    def to_json(self) -> Mapping[str, Any]:
        """JSON content."""
        return asdict(self)


def traffic_drift(new: WorkloadProfile, old: WorkloadProfile, policy: DriftPolicy = MATTERS) -> TrafficDrift:
    """Compare a window with an earlier one."""
    lengths = _lengths(new, old, policy)
    rate = _ratio(
        new.rate.mean_per_s,
        old.rate.mean_per_s,
        sqrt(sum(max(p.rate.burstiness, 1.0) / max(p.num_requests, 1) for p in (new, old))),
        policy.min_rate_ratio,
    )
    burstiness = _burstiness(new, old, policy)
    known = (new.shared_prefix_frac, old.shared_prefix_frac)
    difference = None if known[0] is None or known[1] is None else known[0] - known[1]
    found: list[str] = []
    if lengths.drifted:
        found.append(
            f"lengths moved by {lengths.distance:.2f} of the requests (chance: below {lengths.bound:.2f}), "
            f"mean prompt {old.prompt_mean:,.0f} -> {new.prompt_mean:,.0f}, "
            f"output {old.output_mean:,.0f} -> {new.output_mean:,.0f} tokens"
        )
    if rate.drifted:
        found.append(f"rate x {rate.ratio:.2f} ({rate.interval[0]:.2f} to {rate.interval[1]:.2f})")
    if burstiness.drifted:
        found.append(f"burstiness x {burstiness.ratio:.2f}")
    if difference is not None and abs(difference) > policy.min_prefix_difference:
        found.append(f"shared prefixes {difference:+.0%} of prompt tokens")
    calm = f"no drift: lengths differ by {lengths.distance:.2f} of the requests, rate x {rate.ratio:.2f}"
    return TrafficDrift(
        lengths=lengths,
        rate=rate,
        burstiness=burstiness,
        shared_prefix_difference=difference,
        drifted=bool(found),
        reason="; ".join(found) or calm,
    )


def _lengths(new: WorkloadProfile, old: WorkloadProfile, policy: DriftPolicy) -> LengthDrift:
    cells, counts = _pooled(new.grid, old.grid)
    sizes = [max(int(min(p.num_requests / max(p.rate.burstiness, 1.0), MOST_DRAWN)), 1) for p in (new, old)]
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(_distances(cells, shares[:1], shares[1:])[0])
    random = np.random.default_rng(SEED)
    pooled = (shares * np.array(sizes)[:, None]).sum(axis=0) / sum(sizes)
    split = [random.multinomial(size, pooled, size=SPLITS) / size for size in sizes]
    bound = float(np.quantile(_distances(cells, split[0], split[1]), LEVEL))
    return LengthDrift(distance=distance, bound=bound, drifted=distance > bound and distance > policy.min_distance)


def _pooled(first: Grid, second: Grid) -> tuple[tuple[int, ...], Floats]:
    """Cells of both, and counts of shape `(2, num_cells)`."""
    width = MAX_CELL + 1
    keys = [
        np.array(g.prompt_cell, dtype=np.int64) * width + np.array(g.output_cell, dtype=np.int64)
        for g in (first, second)
    ]
    cells = np.union1d(*keys)
    counts = np.zeros((2, cells.size))
    for row, (key, grid) in enumerate(zip(keys, (first, second), strict=True)):
        counts[row, np.searchsorted(cells, key)] = grid.count
    return tuple(cells.tolist()), counts


def _distances(cells: tuple[int, ...], first: Floats, second: Floats) -> Floats:
    """Distances between rows of shares, both of shape `(rows, num_cells)`; shape `(rows,)`."""
    keys = np.array(cells)
    rows, at_row = np.unique(keys // (MAX_CELL + 1), return_inverse=True)
    columns, at_column = np.unique(keys % (MAX_CELL + 1), return_inverse=True)
    dense = np.zeros((first.shape[0], rows.size, columns.size))
    dense[:, at_row, at_column] = first - second
    below = dense.cumsum(axis=1).cumsum(axis=2)
    left, down, whole = below[:, :, -1:], below[:, -1:, :], below[:, -1:, -1:]
    quadrants = (below, left - below, down - below, whole - left - down + below)
    return np.asarray(np.max([np.abs(q).max(axis=(1, 2)) for q in quadrants], axis=0))


def _burstiness(new: WorkloadProfile, old: WorkloadProfile, policy: DriftPolicy) -> RatioDrift:
    """Ratio of the indices of dispersion, its interval from theirs (MOVER, Donner and Zou 2012, on logarithms).

    Requests that come more evenly than at random load a cluster as those at random do: below 1 counts as 1.
    """
    (center, low, high), (old_center, old_low, old_high) = (
        tuple(log(max(value, 1.0)) for value in (p.rate.burstiness, *p.rate.burstiness_interval)) for p in (new, old)
    )
    ratio = center - old_center
    least = exp(ratio - hypot(center - low, old_high - old_center))
    most = exp(ratio + hypot(high - center, old_center - old_low))
    return RatioDrift.of(exp(ratio), (least, most), policy.min_burstiness_ratio)


def _ratio(new: float, old: float, log_sd: float, matters: float) -> RatioDrift:
    least = 1e-12
    center = log(max(new, least) / max(old, least))
    low, high = exp(max(center - Z * log_sd, -50.0)), exp(min(center + Z * log_sd, 50.0))
    return RatioDrift.of(exp(max(min(center, 50.0), -50.0)), (low, high), matters)
