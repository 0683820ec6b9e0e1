"""A server's metrics as traffic: a scrape in Prometheus' text format, results of its query API, OpenTelemetry's JSON.

Servers count requests by prompt and output tokens in histograms, so that lengths are known by bucket and not together:
they are taken as independent. Servers without such histograms count tokens and requests, which gives their means.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import inf
from time import time
from typing import Any

import numpy as np

from autotune.engines import ServerMetrics, listed
from autotune.traffic.metric_names import MODEL_LABELS, STARTED, known_metrics
from autotune.traffic.options import ReadOptions, chosen_model
from autotune.traffic.otlp import looks_like_otlp, take_otlp
from autotune.traffic.profile import WorkloadProfile, profile_of_lengths
from autotune.traffic.rates import Rate, levels, rate_of_counts
from autotune.traffic.series import Histogram, Labels, SampledMetrics
from costmodel.errors import InputError
from costmodel.plan.columns import Floats

MAX_METRICS_BYTES = 64 << 20
MAX_SCRAPE_LINES, MAX_SERIES = 40_000, 100_000
"""Of one scrape and of all answers: what is read in two seconds. A server has about a thousand lines."""
MAX_POINTS = 100_000
MIN_SCRAPES = 3
"""Fewer do not tell bursts from a steady rate."""
SHOWN_MODELS = 6


def looks_like_metrics(first: bytes) -> bool:
    """Whether the beginning of a source is metrics in text or a query's answer."""
    head = first.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith((b"{", b"[")):
        if b'"resultType":"streams"' in head[:256].replace(b" ", b""):
            return False  # Loki's, which are lines of logs
        return (
            b'"resultType"' in head
            or looks_like_otlp(head[:4096].decode("utf-8", "replace"))
            or (head[:64].replace(b" ", b"").startswith(b'{"status":"') and b'"data"' in head)
            or head[:64].replace(b" ", b"").startswith(b'{"metric":{')
        )
    if head.startswith((b"# HELP", b"# TYPE", b"# EOF", b"# UNIT", b"python_", b"process_")):
        return True
    line = head.split(b"\n", 1)[0].decode("utf-8", "replace")
    name, brace, _ = line.partition("{")
    return bool(brace) and name.replace(":", "_").isidentifier() and line.rstrip()[-1:].isdigit()


def servers_with_metrics() -> str:
    """The programs whose metrics are read, as a sentence lists them."""
    return listed([names.title for names in known_metrics()], "or")


def profile_of_metrics(
    name: str, content: bytes, *, window_s: float | None, now_s: float | None, options: ReadOptions
) -> WorkloadProfile | str:
    """The profile that a server's metrics tell, or why they tell none.

    Args:
        name: of the source, for messages.
        content: all of it.
        window_s: of results over a range, the part that counts; None: all.
        now_s: its end, Unix time; None: the last sample, of one scrape the clock's.
        options: which series count (`match`), and the model in question.

    Raises:
        InputError: neither text format nor a query's answer, or it is of several models and none is chosen.
    """
    text = content.decode("utf-8", "replace").lstrip("\ufeff")
    if looks_like_otlp(text):
        metrics = _otlp(name, text)
    else:
        metrics = _answers(name, text) if text.lstrip().startswith(("{", "[")) else _scrape(name, text, now_s)
    metrics.keep(options.match)
    metrics.keep_served()
    times = metrics.times()
    if not times:
        return "no samples" if not options.match else "no samples that --match takes"
    names = next((n for n in known_metrics() if _counted(metrics, n) is not None), None)
    if names is None:
        return (
            "requests by prompt and output tokens are not among the metrics: histograms or counters of "
            f"{servers_with_metrics()}"
        )
    assumptions = _of_one_model(metrics, names, options)
    if len(times) == 1:
        # one moment of counters: all since the server's start
        metrics.times_known = False
        started = [v for samples in metrics.series.get(STARTED, {}).values() for v in samples.values()]
        if not started:
            return f"one scrape without {STARTED} says no rate: give results of a query over a range"
        start, end = min(started), times[0] if now_s is None else now_s
        assumptions.append(
            f"traffic since the server's start, {(end - start) / 3600.0:.3g} h ago: one scrape knows no window"
        )
    else:
        end = times[-1] if now_s is None else now_s
        start = times[0] if window_s is None else max(end - window_s, times[0])
        if window_s is not None and start > end - window_s + 0.05 * window_s:
            share = (end - start) / window_s
            assumptions.append(f"the samples cover {share:.1%} of the window: the rate is that of the time covered")
    if not end > start:
        return "the samples span no time"
    return _profile(metrics, names, (start, end), assumptions)


def _counted(metrics: SampledMetrics, names: ServerMetrics) -> str | None:
    """`lengths` where histograms of both are there, `means` where counters are; None: neither."""
    has = metrics.series
    if any(f"{n}_bucket" in has for n in names.prompt) and any(f"{n}_bucket" in has for n in names.output):
        return "lengths"
    counters = (names.prompt_total, names.output_total, names.requests_total)
    return "means" if all(any(n in has for n in counter) for counter in counters) else None


def _of_one_model(metrics: SampledMetrics, names: ServerMetrics, options: ReadOptions) -> list[str]:
    """Leave only one model's series, which is said.

    Raises:
        InputError: there are several, and neither `match` nor the model in question chooses one.
    """
    counted = [*(f"{n}_bucket" for n in (*names.prompt, *names.output)), *names.prompt_total, *names.output_total]
    for label in MODEL_LABELS:
        found = sorted(metrics.values_of(label, counted))
        if len(found) < 2:
            continue
        chosen = chosen_model(found, options.model)
        if chosen is None:
            shown = ", ".join(found[:SHOWN_MODELS])
            raise InputError.single(
                "--match", f"is required: the metrics are of {len(found)} models ({shown}), as in {label}={found[0]}"
            )
        metrics.keep({label: chosen})
        return [f"metrics of {chosen} alone, of {len(found)} models: the one that the study is about"]
    return []


Span = tuple[float, float]


def _profile(
    metrics: SampledMetrics, names: ServerMetrics, span: Span, assumptions: list[str]
) -> WorkloadProfile | str:
    since = (span[0] if metrics.times_known else -inf, span[1])
    computing, metrics, apart = _apart(metrics, names, since)
    if _counted(metrics, names) == "lengths":
        prompt_histograms = _histograms(metrics, names.prompt, names.prompt_labels)
        lengths = [
            _lengths(h, since) for h in (prompt_histograms, _histograms(metrics, names.output, names.output_labels))
        ]
        known = "prompt and output lengths are taken as independent, spread within their histograms' buckets"
    else:
        prompt_histograms = []
        lengths = _means(metrics, names, since)
        known = "only mean lengths are known, from counters: all requests are taken to be of them"
    (prompts, prompt_requests), (outputs, output_requests) = lengths
    if prompt_requests.sum() <= 0.0 or output_requests.sum() <= 0.0:
        return "no request finished in the window"
    joint = np.outer(prompt_requests, output_requests / output_requests.sum())
    rate, more = _rate(metrics, names, prompt_histograms, span, float(prompt_requests.sum()))
    hits, queries = (computing.increase(counters, *since) for counters in (names.cache_hits, names.cache_queries))
    has_cache = any(name in metrics.series for name in names.cache_hits) and queries > 0.0
    served = []
    for ttft in names.ttft_s:
        first_tokens, measured = (metrics.increase((f"{ttft}_{part}",), *since) for part in ("count", "sum"))
        if first_tokens > 0.0:
            served = [f"served with a mean TTFT of {measured / first_tokens:.3g} s, by {ttft}"]
    return profile_of_lengths(
        np.repeat(prompts, outputs.size),
        np.tile(outputs, prompts.size),
        joint.ravel(),
        rate=rate,
        start_s=span[0],
        end_s=span[1],
        shared_prefix_frac=min(hits / queries, 1.0) if has_cache else None,
        assumptions=(*assumptions, *apart, *more, known, *served),
    )


def _apart(
    metrics: SampledMetrics, names: ServerMetrics, since: Span
) -> tuple[SampledMetrics, SampledMetrics, list[str]]:
    """The metrics of the servers that compute prompts, those of the servers that answer, and what is to be said of it.

    Servers for prefill are known by their outputs, of one token each at most. Those for decode count their requests as
    well, and look for prefixes that are not to be found there.
    """
    means = {} if names.output_labels else _mean_outputs(metrics, names, since)
    prefill = {labels for labels, mean in means.items() if mean <= 1.0}
    decode = means.keys() - prefill
    if not prefill or not decode:
        return metrics, metrics, []
    counted = [f"{name}_{part}" for name in (*names.prompt, *names.output) for part in ("bucket", "sum", "count")]
    counted += [*names.prompt_total, *names.output_total, *names.requests_total]
    said = f"{len(prefill)} of {len(means)} servers answer with one token: they prefill for the others, which count"
    return (
        metrics.without((*names.cache_hits, *names.cache_queries), decode),
        metrics.without(counted, prefill),
        [said],
    )


def _mean_outputs(metrics: SampledMetrics, names: ServerMetrics, since: Span) -> dict[Labels, float]:
    """Mean output tokens of each server's requests, by histograms, else by counters; of those that had requests."""
    histograms = _histograms(metrics, names.output, ())
    if histograms:
        return {h.labels: mean for h in histograms if (mean := h.mean(*since)) is not None}
    requests = metrics.growths(names.requests_total, *since)
    out = {}
    for server, tokens in metrics.growths(names.output_total, *since).items():
        answered = sum(count for labels, count in requests.items() if set(server) <= set(labels))  # by why they ended
        if answered > 0.0:
            out[server] = tokens / answered
    return out


def _histograms(metrics: SampledMetrics, names: tuple[str, ...], labels: Labels) -> list[Histogram]:
    found = (list(metrics.histograms(name, labels)) for name in names)
    return next((histograms for histograms in found if histograms), [])


def _lengths(histograms: list[Histogram], since: Span) -> tuple[Floats, Floats]:
    """Lengths and how many requests have them; each server's histogram by its own bounds."""
    each = [histogram.lengths(*since) for histogram in histograms]
    return np.concatenate([np.empty(0), *(v for v, _ in each)]), np.concatenate([np.empty(0), *(w for _, w in each)])


def _means(metrics: SampledMetrics, names: ServerMetrics, since: Span) -> list[tuple[Floats, Floats]]:
    requests = metrics.increase(names.requests_total, *since)
    totals = [metrics.increase(counter, *since) for counter in (names.prompt_total, names.output_total)]
    return [(np.array([max(total / max(requests, 1e-9), 1.0)]), np.array([requests])) for total in totals]


def _rate(
    metrics: SampledMetrics, names: ServerMetrics, histograms: list[Histogram], span: Span, total: float
) -> tuple[Rate, list[str]]:
    start, end = span
    times = np.array([t for t in metrics.times() if start <= t <= end] if metrics.times_known else [])
    if histograms:
        each = [histogram.requests(start, end) for histogram in histograms]
        at, grown = (np.concatenate(column) for column in zip(*each, strict=True))
    else:
        at, grown = metrics.growth(names.requests_total, start, end)
    steps = np.diff(times)
    if len(steps) < MIN_SCRAPES:
        rate = rate_of_counts(
            total=total, span_s=end - start, peak_per_s=0.0, burstiness=1.0, bin_s=end - start, num_bins=1
        )
        return rate, ["too few samples for a peak or bursts: the mean rate is taken as the peak, arrivals as Poisson"]
    counts = np.bincount(np.searchsorted(times, at), weights=grown, minlength=times.size)[1:]
    spans = steps
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


def _scrape(name: str, text: str, now_s: float | None) -> SampledMetrics:
    from prometheus_client.parser import text_string_to_metric_families  # brings an HTTP server along

    lines = text.count("\n")
    if lines > MAX_SCRAPE_LINES:
        raise InputError.single(
            name,
            f"must be a scrape of at most {MAX_SCRAPE_LINES:,} lines, has {lines:,}: leave the metrics that are read, "
            f"those of {servers_with_metrics()}",
        )
    out = SampledMetrics()
    at = time() if now_s is None else now_s
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                moment = at if sample.timestamp is None else float(sample.timestamp)
                out.add(sample.name, sample.labels, [(moment, float(sample.value))])
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise InputError.single(name, f"is not Prometheus' text format: {error}") from error
    return out


def _otlp(name: str, text: str) -> SampledMetrics:
    out = SampledMetrics()
    try:
        if take_otlp(_documents(text), out, MAX_POINTS):
            return out
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError.single(name, f"is no JSON of OpenTelemetry's metrics: {error!r}") from error
    raise InputError.single(name, f"must hold at most {MAX_POINTS:,} points of metrics: leave those that are read")


def _answers(name: str, text: str) -> SampledMetrics:
    out, series = SampledMetrics(), 0
    try:
        for answer in _documents(text):
            if answer.get("status") == "error":
                raise InputError.single(name, f"holds a query's error: {answer.get('error')}")
            if "metric" in answer and "timestamps" in answer:  # VictoriaMetrics' export, a series
                series += 1
                times = [1e-3 * float(t) for t in answer["timestamps"]]
                out.add(answer["metric"]["__name__"], answer["metric"], zip(times, answer["values"], strict=True))
                continue
            data = answer.get("data", answer)
            series += len(data["result"])
            if series > MAX_SERIES:
                raise InputError.single(name, f"must hold at most {MAX_SERIES:,} series: ask for sums over pods")
            for found in data["result"]:
                labels = found["metric"]
                samples = found["values"] if data["resultType"] == "matrix" else [found["value"]]
                out.add(str(labels["__name__"]), labels, [(float(t), float(v)) for t, v in samples])
    except InputError:
        raise
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
