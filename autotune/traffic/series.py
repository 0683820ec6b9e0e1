"""Counters and histograms over time: how much each grew, whatever was started anew meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np

from autotune.traffic.metric_names import STATUS_LABELS, plain_name
from autotune.traffic.names import has_failed, is_other
from costmodel.plan.columns import Floats

SPREAD = 4
"""Lengths that stand for a bucket."""
MOST_DRAWN, BISECTIONS = 5.0, 50
MOST_COUNTED = 2.0**53
"""Counters are floating-point numbers: beyond it they do not grow by one."""

Labels = tuple[tuple[str, str], ...]
Samples = dict[float, float]
"""Unix time -> value."""


@dataclass(slots=True)
class SampledMetrics:
    """Samples by plain name and labels."""

    series: dict[str, dict[Labels, Samples]] = field(default_factory=lambda: defaultdict(dict))
    times_known: bool = True
    """False: one moment of counters, which stands for all since the server's start."""
    _first: float | None = None

    def add(self, name: str, labels: Mapping[str, Any], samples: Iterable[tuple[float, float]]) -> None:
        """Take samples of one series; what is no number, or too large to count with, is left out."""
        key = tuple(sorted((_label(k), str(v)) for k, v in labels.items() if k != "__name__"))
        held = self.series[plain_name(name)].setdefault(key, {})
        held.update((t, v) for t, v in samples if isfinite(t) and abs(v) < MOST_COUNTED)

    def times(self) -> list[float]:
        """Of all samples, ascending."""
        return sorted({t for by_labels in self.series.values() for samples in by_labels.values() for t in samples})

    def keep(self, wanted: Mapping[str, str]) -> None:
        """Only series that have a label's value, or have no such label."""
        for name, by_labels in self.series.items():
            self.series[name] = {
                key: samples
                for key, samples in by_labels.items()
                if all(dict(key).get(_label(label), value) == value for label, value in wanted.items())
            }

    def keep_served(self) -> None:
        """Only series of requests for text that were served, by what labels say of outcome and operation."""
        for name, by_labels in self.series.items():
            self.series[name] = {key: samples for key, samples in by_labels.items() if not _is_else(dict(key))}

    def without(self, names: Iterable[str], servers: Collection[Labels]) -> SampledMetrics:
        """Without some metrics of some servers, which are named by labels that all of their series have."""
        names = frozenset(names)
        kept = {
            name: {k: s for k, s in of.items() if name not in names or not any(set(x) <= set(k) for x in servers)}
            for name, of in self.series.items()
        }
        return SampledMetrics(series=kept, times_known=self.times_known, _first=self._first_s())

    def values_of(self, label: str, names: Iterable[str]) -> set[str]:
        """Values of a label in the series of some metrics."""
        return {
            value for name in names for key in self.series.get(name, {}) for k, value in key if k == label and value
        }

    def increase(self, names: Iterable[str], start_s: float, end_s: float) -> float:
        """How much a counter grew, summed over servers. Of several names the first that there is counts."""
        return float(self.growth(names, start_s, end_s)[1].sum())

    def growths(self, names: Iterable[str], start_s: float, end_s: float) -> dict[Labels, float]:
        """As `increase`, by series."""
        found = next((series for name in names if (series := self.series.get(name))), {})
        return {key: float(self.steps(s, _falls(s), start_s, end_s)[1].sum()) for key, s in found.items()}

    def growth(self, names: Iterable[str], start_s: float, end_s: float) -> tuple[Floats, Floats]:
        """As `increase`, by the times at which it was sampled: both of shape `(num_samples,)`."""
        for name in names:
            found = [
                self.steps(samples, _falls(samples), start_s, end_s) for samples in self.series.get(name, {}).values()
            ]
            if found:
                return np.concatenate([t for t, _ in found]), np.concatenate([g for _, g in found])
        return np.empty(0), np.empty(0)

    def histograms(self, name: str, labels: Labels = ()) -> Iterator[Histogram]:
        """The histograms of one metric, one per server and set of labels; of series with one of `labels`, if given."""
        groups: dict[Labels, dict[float, Samples]] = defaultdict(dict)
        for key, samples in self.series.get(f"{name}_bucket", {}).items():
            if labels and not set(labels) & set(key):
                continue
            try:
                bound = float(dict(key).get("le", ""))
            except ValueError:
                continue
            if bound > 0.0:
                groups[tuple(pair for pair in key if pair[0] != "le")][bound] = samples
        for key, buckets in groups.items():
            total, count = (self.series.get(f"{name}_{part}", {}).get(key, {}) for part in ("sum", "count"))
            anew = frozenset().union(*(_falls(samples) for samples in (*buckets.values(), total, count)))
            yield Histogram(metrics=self, labels=key, buckets=buckets, total=total, count=count, anew=anew)

    def steps(self, samples: Samples, anew: frozenset[float], start_s: float, end_s: float) -> tuple[Floats, Floats]:
        """Times of one counter in a window, and its growth up to each; `anew`: when its server was new."""
        times = sorted(t for t in samples if start_s <= t <= end_s)
        if not times:
            return np.empty(0), np.empty(0)
        if not self.times_known:
            return np.array(times[-1:]), np.array([samples[times[-1]]])
        values = np.array([samples[t] for t in times])
        # a series that begins within the window is of a server that did
        began = times[0] == min(samples) and times[0] > max(self._first_s(), start_s)
        grown = np.diff(values, prepend=0.0 if began else values[0])
        fresh = np.array([t in anew for t in times])
        fresh[0] = False
        return np.array(times), np.maximum(np.where(fresh, values, grown), 0.0)

    def _first_s(self) -> float:
        if self._first is None:
            self._first = min(min(s) for by_labels in self.series.values() for s in by_labels.values() if s)
        return self._first


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """A histogram of one server over time."""

    metrics: SampledMetrics
    labels: Labels
    """Of its server, and whatever else it is told apart by."""
    buckets: Mapping[float, Samples]
    """Upper bound -> requests up to it."""
    total: Samples
    """Sum of what was counted."""
    count: Samples
    anew: frozenset[float]
    """When its server had been started anew."""

    def requests(self, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        """Times in a window, and the requests up to each since the one before."""
        return self.metrics.steps(self.count or self.buckets[max(self.buckets)], self.anew, start_s, end_s)

    def _increase(self, samples: Samples, start_s: float, end_s: float) -> float:
        return float(self.metrics.steps(samples, self.anew, start_s, end_s)[1].sum())

    def mean(self, start_s: float, end_s: float) -> float | None:
        """Mean of what was counted in a window; None: nothing was, or it is not known."""
        count = self._increase(self.count, start_s, end_s)
        return self._increase(self.total, start_s, end_s) / count if count > 0.0 and self.total else None

    def lengths(self, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        """Lengths of a window's requests and how many have them, spread within buckets so that the mean is right."""
        bounds = sorted(self.buckets)
        counts = np.array([self._increase(self.buckets[b], start_s, end_s) for b in bounds])
        counts = np.maximum(np.diff(counts, prepend=0.0), 0.0)
        held = counts > 0.0
        finite = [b for b in bounds if isfinite(b)]
        # beyond the last bound nothing is known but that it is longer
        uppers = np.array([max(b if isfinite(b) else 2.0 * (finite[-1] if finite else 1.0), 1.0) for b in bounds])
        lowers = np.maximum(np.concatenate(([1.0], uppers[:-1])), 1.0)
        lowers, uppers, counts = lowers[held], uppers[held], counts[held]
        total = self._increase(self.total, start_s, end_s)
        mean = total / float(counts.sum()) if counts.size and total > 0.0 else None
        return _spread(lowers, uppers, counts, mean).ravel(), np.repeat(counts / SPREAD, SPREAD)


def _spread(lowers: Floats, uppers: Floats, counts: Floats, mean: float | None) -> Floats:
    """`SPREAD` lengths for each bucket, shape `(num_buckets, SPREAD)`, whose mean is `mean`; None: not known.

    They are spread in logarithm, evenly or drawn towards one end of their buckets: the exponent that gives the mean is
    found by bisection. A mean that no lengths within the buckets have is reached by scaling all.
    """
    places = (np.arange(SPREAD) + 0.5) / SPREAD

    def lengths(exponent: float) -> Floats:
        return lowers[:, None] * (uppers / lowers)[:, None] ** places**exponent

    def mean_of(exponent: float) -> float:
        return float(lengths(exponent).mean(axis=1) @ counts) / float(counts.sum())

    if mean is None or counts.size == 0:
        return lengths(1.0)
    low, high = -MOST_DRAWN, MOST_DRAWN  # of the exponent's logarithm
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if mean_of(np.exp(middle)) > mean else (low, middle)
    found = lengths(float(np.exp(0.5 * (low + high))))
    return np.maximum(found * (mean * float(counts.sum()) / float(found.mean(axis=1) @ counts)), 1.0)


def _falls(samples: Samples) -> frozenset[float]:
    """When a counter is less than it was."""
    times = sorted(samples)
    return frozenset(after for before, after in pairwise(times) if samples[after] < samples[before])


def _is_else(labels: Mapping[str, str]) -> bool:
    """Whether labels are of requests that failed, or asked for embeddings and their like."""
    status = next((labels[name] for name in STATUS_LABELS if name in labels), None)
    return has_failed(status, labels.get("error_type")) or is_other(labels.get("gen_ai_operation_name"), None)


def _label(name: str) -> str:
    return name.replace(".", "_")
