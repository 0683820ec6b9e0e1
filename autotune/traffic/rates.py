"""How fast requests come: mean, peak and burstiness, each with what is not known of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, sqrt

import numpy as np

from costmodel.plan.columns import Floats

BINS_S = (60.0, 30.0, 15.0, 10.0, 5.0, 1.0)
"""Bin lengths, the longest that gives `MIN_BINS` is taken."""
MIN_BINS = 20
LEVELS = 20
"""Of the rate over the window's time."""
Z = 1.959963984540054
"""Quantile of the normal distribution at 0.975: intervals hold with 95 %."""
UNKNOWN_SPREAD = 20.0
"""Natural logarithm of the largest factor by which a mean rate is said to be off, chosen to keep its interval finite:
counts as uneven as that say nothing of the rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Requests per second over a window."""

    mean_per_s: float
    mean_interval_per_s: tuple[float, float]
    """95 %: of the mean of a longer stretch of the same traffic, burstiness counted in."""
    peak_per_s: float
    """Of the fullest bin."""
    burstiness: float
    """Index of dispersion: variance over mean of requests per bin. 1: Poisson."""
    burstiness_interval: tuple[float, float]
    """95 %, the counts taken as gamma-distributed."""
    bin_s: float
    num_bins: int
    levels_per_s: tuple[float, ...] = ()
    """Ascending: the mean rate of each twentieth of the window's time, bins ordered by theirs. Empty: not known."""


def rate_of_times(times_s: Floats, *, start_s: float, end_s: float, requests_each: float = 1.0) -> Rate:
    """Rate of requests at `times_s` (any order) between two times.

    Args:
        times_s: shape `(num_requests,)`, all within the window.
        start_s: of the window.
        end_s: of the window, later than its start.
        requests_each: how many requests each time stands for, where a log was thinned.
    """
    span = end_s - start_s
    bin_s = next((length for length in BINS_S if span >= MIN_BINS * length), span / MIN_BINS)
    num_bins = max(int(span / bin_s), 1)
    index = np.floor((times_s - start_s) / bin_s).astype(np.int64)
    # what lies beyond the last whole bin counts for the mean alone
    counts = np.bincount(index[(index >= 0) & (index < num_bins)], minlength=num_bins).astype(np.float64)
    mean = float(counts.mean())
    thinned = float(counts.var(ddof=1)) / mean if num_bins > 1 and mean > 0.0 else 1.0
    return rate_of_counts(
        total=times_s.size * requests_each,
        span_s=span,
        peak_per_s=float(counts.max()) * requests_each / bin_s,
        # of counts thinned to a share p the index of dispersion is 1 + p (index - 1)
        burstiness=max(1.0 + (thinned - 1.0) * requests_each, 0.0),
        bin_s=bin_s,
        num_bins=num_bins,
        requests_each=requests_each,
        levels_per_s=levels(counts * requests_each / bin_s),
    )


def levels(per_s: Floats, weights: Floats | None = None) -> tuple[float, ...]:
    """Mean rates of `LEVELS` equal shares of the time, ascending; their mean is that of all.

    Args:
        per_s: rate of each bin, shape `(num_bins,)`.
        weights: lengths of the bins, the same shape; None: all are as long.
    """
    order = np.argsort(per_s, kind="stable")
    spans = np.ones(per_s.size) if weights is None else weights[order]
    time = np.concatenate(([0.0], np.cumsum(spans)))
    requests = np.concatenate(([0.0], np.cumsum(per_s[order] * spans)))
    at = np.interp(np.linspace(0.0, time[-1], LEVELS + 1), time, requests)
    return tuple((np.diff(at) * LEVELS / time[-1]).tolist())


def rate_of_counts(  # noqa: PLR0913  # one for each figure of a rate
    *,
    total: float,
    span_s: float,
    peak_per_s: float,
    burstiness: float,
    bin_s: float,
    num_bins: int,
    requests_each: float = 1.0,
    levels_per_s: tuple[float, ...] = (),
) -> Rate:
    """Intervals from totals: log-normal for the mean, with variance `burstiness / total` of its logarithm.

    Of a thinned log only the counts of what is left are known; their index's interval is carried to the whole.
    """
    mean = total / span_s
    spread = min(Z * sqrt(max(burstiness, 1.0) / max(total, 1.0)), UNKNOWN_SPREAD)
    low, high = _dispersion_interval(1.0 + (burstiness - 1.0) / requests_each, num_bins)
    return Rate(
        mean_per_s=mean,
        mean_interval_per_s=(mean * exp(-spread), mean * exp(spread)),
        peak_per_s=max(peak_per_s, mean),
        burstiness=burstiness,
        burstiness_interval=(max(1.0 + (low - 1.0) * requests_each, 0.0), max(1.0 + (high - 1.0) * requests_each, 0.0)),
        bin_s=bin_s,
        num_bins=num_bins,
        levels_per_s=levels_per_s,
    )


def _dispersion_interval(value: float, num_bins: int) -> tuple[float, float]:
    """From chi-square of `num_bins - 1` degrees, its quantiles by Wilson and Hilferty (1931)."""
    degrees = max(num_bins - 1, 1)
    part = 2.0 / (9.0 * degrees)
    low, high = (degrees * max(1.0 - part + z * sqrt(part), 1e-3) ** 3 for z in (-Z, Z))
    return value * degrees / high, value * degrees / low
