"""A server's metrics as traffic: one scrape in Prometheus' text format, or results of Prometheus' query API.

Engines (those with `Engine.metrics`) count requests by prompt and output tokens in histograms, so that lengths are
known by bucket and not together: they are taken as independent, and spread evenly in logarithm within a bucket, scaled
to the measured mean.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, isfinite
from time import time
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from autotune.engines import ENGINES, ServerMetrics, listed
from autotune.traffic.profile import WorkloadProfile, profile_of_lengths
from autotune.traffic.rates import Rate, levels, rate_of_counts
from costmodel.errors import InputError
from costmodel.plan.columns import Floats

MAX_METRICS_BYTES = 64 << 20
STARTED = "process_start_time_seconds"
SPREAD = 4
"""Lengths that stand for a bucket."""
MIN_SCRAPES = 3
"""Fewer do not tell bursts from a steady rate."""

Labels = tuple[tuple[str, str], ...]
Series = list[tuple[float, float]]


@dataclass(slots=True)
class _Metrics:
    """Samples by name and labels, each a list of (Unix time, value)."""

    series: dict[str, dict[Labels, Series]] = field(default_factory=lambda: defaultdict(dict))
    times_known: bool = True

    def add(self, name: str, labels: Mapping[str, Any], samples: Iterable[tuple[float, float]]) -> None:
        key = tuple(sorted((str(k), str(v)) for k, v in labels.items() if k != "__name__"))
        self.series[name].setdefault(key, []).extend((t, v) for t, v in samples if isfinite(t) and isfinite(v))

    def times(self) -> list[float]:
        """Of all samples, ascending."""
        return sorted({t for by_labels in self.series.values() for series in by_labels.values() for t, _ in series})

    def increase(self, name: str, start_s: float, end_s: float, **labels: str) -> float:
        """How much a counter grew, summed over servers; a counter that falls was started anew."""
        wanted = set(labels.items())
        return sum(
            _grown([v for t, v in sorted(series) if start_s <= t <= end_s], whole=not self.times_known)
            for key, series in self.series.get(name, {}).items()
            if wanted <= set(key)
        )


def _grown(values: Sequence[float], *, whole: bool) -> float:
    if whole:
        return values[-1] if values else 0.0
    return sum(after - before if after >= before else after for before, after in pairwise(values))


def looks_like_metrics(first: bytes) -> bool:
    """Whether the beginning of a source is metrics in text or a query's answer."""
    head = first.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith((b"{", b"[")):
        return b'"resultType"' in head or (
            head[:64].replace(b" ", b"").startswith(b'{"status":"') and b'"data"' in head
        )
    own = [names.prefix.encode() for names in _known()]
    return head.startswith((b"# HELP", b"# TYPE", b"# EOF", b"python_", b"process_", *own))


def servers_with_metrics() -> str:
    """The engines whose metrics are read, as a sentence lists them."""
    return listed([engine.title for engine in ENGINES.values() if engine.metrics is not None], "or")


def _known() -> list[ServerMetrics]:
    return [engine.metrics for engine in ENGINES.values() if engine.metrics is not None]


def profile_of_metrics(
    name: str, content: bytes, *, window_s: float | None, now_s: float | None
) -> WorkloadProfile | str:
    """The profile that a server's metrics tell, or why they tell none.

    Args:
        name: of the source, for messages.
        content: all of it.
        window_s: of results over a range, the part that counts; None: all.
        now_s: its end, Unix time; None: the last sample, of one scrape the clock's.

    Raises:
        InputError: neither text format nor a query's answer.
    """
    text = content.decode("utf-8", "replace").lstrip("\ufeff")
    metrics = _answers(name, text) if text.lstrip().startswith(("{", "[")) else _scrape(name, text, now_s)
    times = metrics.times()
    if not times:
        return "no samples"
    lacking = {n: [b for b in _length_buckets(n) if b not in metrics.series] for n in _known()}
    names = min(lacking, key=lambda n: len(lacking[n]))
    if lacking[names]:
        return f"{' and '.join(lacking[names])} are not among the metrics"
    if len(times) == 1:
        # one moment of counters: all since the server's start
        metrics.times_known = False
        started = [v for series in metrics.series.get(STARTED, {}).values() for _, v in series]
        if not started:
            return f"one scrape without {STARTED} says no rate: give results of a query over a range"
        start, end = min(started), times[0] if now_s is None else now_s
        assumptions = [
            f"traffic since the server's start, {(end - start) / 3600.0:.3g} h ago: one scrape knows no window"
        ]
    else:
        end = times[-1] if now_s is None else now_s
        start = times[0] if window_s is None else max(end - window_s, times[0])
        assumptions = []
    if not end > start:
        return "the samples span no time"
    return _profile(metrics, names, start, end, assumptions)


def _length_buckets(names: ServerMetrics) -> tuple[str, str]:
    return f"{names.prompt_tokens}_bucket", f"{names.output_tokens}_bucket"


def _profile(
    metrics: _Metrics, names: ServerMetrics, start: float, end: float, assumptions: list[str]
) -> WorkloadProfile | str:
    low = start if metrics.times_known else -inf
    lengths = [_lengths(metrics, metric, low, end) for metric in (names.prompt_tokens, names.output_tokens)]
    if any(weights.sum() <= 0.0 for _, weights in lengths):
        return "no request finished in the window"
    (prompts, prompt_requests), (outputs, output_requests) = lengths
    total = float(prompt_requests.sum())
    joint = np.outer(prompt_requests, output_requests / output_requests.sum())
    rate, more = _rate(metrics, names.prompt_tokens, start, end, total)
    cache = (names.cache_hits, names.cache_queries)
    hits, queries = (sum(metrics.increase(name, low, end) for name in counters) for counters in cache)
    ttft, first_tokens = names.ttft_s, metrics.increase(f"{names.ttft_s}_count", low, end)
    measured = metrics.increase(f"{ttft}_sum", low, end)
    served = [f"served with a mean TTFT of {measured / first_tokens:.3g} s, by {ttft}"] if first_tokens > 0.0 else []
    return profile_of_lengths(
        np.repeat(prompts, outputs.size),
        np.tile(outputs, prompts.size),
        joint.ravel(),
        rate=rate,
        start_s=start,
        end_s=end,
        shared_prefix_frac=min(hits / queries, 1.0) if queries > 0.0 else None,
        assumptions=(
            *assumptions,
            *more,
            "prompt and output lengths are taken as independent, spread within their histograms' buckets",
            *served,
        ),
    )


def _lengths(metrics: _Metrics, name: str, start: float, end: float) -> tuple[Floats, Floats]:
    """Lengths and how many requests have them, from a histogram."""
    by_bound: dict[float, float] = defaultdict(float)
    for labels in metrics.series[f"{name}_bucket"]:
        written = dict(labels).get("le", "")
        try:
            edge = float(written)
        except ValueError:
            continue
        if edge > 0.0 and edge not in by_bound:
            by_bound[edge] = metrics.increase(f"{name}_bucket", start, end, le=written)
    bounds = sorted(by_bound)
    counts = np.maximum(np.diff([0.0, *(by_bound[b] for b in bounds)]), 0.0)
    finite = [b for b in bounds if isfinite(b)]
    values, weights = [], []
    lower = 1.0
    for bound, count in zip(bounds, counts, strict=True):
        # beyond the last bound nothing is known but that it is longer
        upper = max(bound if isfinite(bound) else 2.0 * (finite[-1] if finite else 1.0), lower)
        steps = (np.arange(SPREAD) + 0.5) / SPREAD
        values.append(lower * (upper / lower) ** steps)
        weights.append(np.full(SPREAD, count / SPREAD))
        lower = upper
    lengths, requests = np.concatenate(values or [np.ones(1)]), np.concatenate(weights or [np.zeros(1)])
    total, requested = metrics.increase(f"{name}_sum", start, end), float(requests.sum())
    if total > 0.0 and requested > 0.0:
        lengths = np.maximum(lengths * (total / float(lengths @ requests)), 1.0)
    held = requests > 0.0
    return lengths[held], requests[held]


def _rate(metrics: _Metrics, counted: str, start: float, end: float, total: float) -> tuple[Rate, list[str]]:
    name = f"{counted}_count" if f"{counted}_count" in metrics.series else f"{counted}_bucket"
    labels = {} if name.endswith("_count") else {"le": "+Inf"}
    times = [t for t in metrics.times() if start <= t <= end] if metrics.times_known else []
    steps = [(b - a, metrics.increase(name, a, b, **labels)) for a, b in pairwise(times)]
    if len(steps) < MIN_SCRAPES:
        rate = rate_of_counts(
            total=total, span_s=end - start, peak_per_s=0.0, burstiness=1.0, bin_s=end - start, num_bins=1
        )
        return rate, ["too few samples for a peak or bursts: the mean rate is taken as the peak, arrivals as Poisson"]
    spans, counts = (np.array(column) for column in zip(*steps, strict=True))
    mean = float(counts.sum() / spans.sum())
    # index of dispersion of counts whose bins may differ in length
    dispersion = float((((counts - mean * spans) ** 2) / np.maximum(mean * spans, 1e-300)).sum() / (len(steps) - 1))
    rate = rate_of_counts(
        total=total,
        span_s=float(spans.sum()),
        peak_per_s=float((counts / spans).max()),
        burstiness=dispersion if mean > 0.0 else 1.0,
        bin_s=float(np.median(spans)),
        num_bins=len(steps),
        levels_per_s=levels(counts / spans, spans),
    )
    return rate, []


def _scrape(name: str, text: str, now_s: float | None) -> _Metrics:
    out = _Metrics()
    at = time() if now_s is None else now_s
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                out.add(sample.name, sample.labels, [(at, float(sample.value))])
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise InputError.single(name, f"is not Prometheus' text format: {error}") from error
    return out


def _answers(name: str, text: str) -> _Metrics:
    out = _Metrics()
    try:
        for answer in _documents(text):
            if answer.get("status") == "error":
                raise InputError.single(name, f"holds a query's error: {answer.get('error')}")
            data = answer["data"]
            for found in data["result"]:
                labels = found["metric"]
                samples = found["values"] if data["resultType"] == "matrix" else [found["value"]]
                out.add(str(labels["__name__"]), labels, [(float(t), float(v)) for t, v in samples])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError.single(
            name, f"is no answer of Prometheus' query API with metric names (resultType vector or matrix): {error!r}"
        ) from error
    return out


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """Answers in one document, in a list, or one after the other."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        content, at = decoder.raw_decode(text, at)
        yield from content if isinstance(content, list) else [content]
        while at < len(text) and text[at].isspace():
            at += 1
