"""Metrics in the JSON of OpenTelemetry's protocol, as its collectors and SDKs write them to files.

A point is a total since its server's start, or what was added since the point before: both become counters over time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from autotune.traffic.fields import attributes, number
from autotune.traffic.metric_names import is_read
from autotune.traffic.series import SampledMetrics

MAX_BUCKETS = 2_000
"""Of one point."""
_DELTA = frozenset(("1", "AGGREGATION_TEMPORALITY_DELTA", "DELTA"))
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    at_s: float
    start_s: float | None
    name: str
    labels: Node
    added: bool
    """Whether the value is what was added since the point before."""
    value: float


def looks_like_otlp(text: str) -> bool:
    """Whether the beginning of a source is such metrics."""
    return '"resourceMetrics"' in text[:4096] or '"resource_metrics"' in text[:4096]


def take_otlp(documents: Iterable[Node], out: SampledMetrics, max_points: int) -> bool:
    """Take the points of metrics that are read into `out`; False where there are more than `max_points`.

    A file of one moment has totals since the servers' start.

    Raises:
        TypeError, ValueError, AttributeError: the documents are no such metrics.
    """
    points: list[_Point] = []
    for document in documents:
        points += _points(document)
        if len(points) > max_points:
            return False
    points.sort(key=lambda point: point.at_s)
    alone = len({point.at_s for point in points}) == 1
    totals: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for point in points:
        key = (point.name, tuple(sorted((k, str(v)) for k, v in point.labels.items())))
        first = key not in totals
        totals[key] = totals.get(key, 0.0) + point.value if point.added else point.value
        began = [(point.start_s, 0.0)] if point.start_s is not None and first and (point.added or alone) else []
        out.add(point.name, point.labels, [*began, (point.at_s, totals[key])])
    return True


def _points(document: Node) -> Iterator[_Point]:
    for resource in _list(document, "resourceMetrics"):
        about = attributes(_field(_field(resource, "resource") or {}, "attributes"))
        for scope in _list(resource, "scopeMetrics"):
            for metric in _list(scope, "metrics"):
                yield from _of_metric(metric, about)


def _of_metric(metric: Node, about: Node) -> Iterator[_Point]:
    name = str(_field(metric, "name"))
    if not is_read(name):
        return
    kinds = ("histogram", "exponentialHistogram", "sum", "data")
    table = next((found for kind in kinds if isinstance(found := _field(metric, kind), Mapping)), {})
    added = str(_field(table, "aggregationTemporality")) in _DELTA
    for point in _list(table, "dataPoints"):
        at, start = (number(_field(point, f"{side}UnixNano")) for side in ("time", "startTime"))
        if at is None:
            continue
        labels = {**about, **attributes(_field(point, "attributes"))}
        for part, more, value in _values(point):
            yield _Point(
                at_s=1e-9 * at,
                start_s=1e-9 * start if start else None,
                name=name + part,
                labels={**labels, **more},
                added=added,
                value=value,
            )


def _values(point: Node) -> Iterator[tuple[str, dict[str, str], float]]:
    """What follows a metric's name, further labels, and the value of each series that a point is of."""
    plain = next((v for key in ("asInt", "asDouble", "value") if (v := number(_field(point, key))) is not None), None)
    if plain is not None:
        for part in ("", "_total"):  # counters are named either way
            yield part, {}, plain
        return
    count, total = (number(_field(point, key)) for key in ("count", "sum"))
    if count is None:
        return
    yield "_count", {}, count
    if total is not None:
        yield "_sum", {}, total
    below = 0.0
    for bound, requests in _buckets(point):
        below += requests
        yield "_bucket", {"le": str(bound)}, below


def _buckets(point: Node) -> list[tuple[float, float]]:
    """Upper bounds, and the requests of each bucket."""
    counts = [number(count) or 0.0 for count in _list(point, "bucketCounts")]
    bounds = [number(bound) for bound in _list(point, "explicitBounds")]
    if counts and len(counts) <= MAX_BUCKETS:
        uppers = [bound for bound in bounds if bound is not None]
        return list(zip([*uppers, inf], counts, strict=True))
    positive, scale = _field(point, "positive"), number(_field(point, "scale"))
    if not isinstance(positive, Mapping) or scale is None or not -10 <= scale <= 20:
        return []
    base = 2.0 ** (2.0**-scale)
    offset = int(number(_field(positive, "offset")) or 0)
    held = [number(count) or 0.0 for count in _list(positive, "bucketCounts")][:MAX_BUCKETS]
    zero = number(_field(point, "zeroCount")) or 0.0
    uppers = [base ** min(offset + i + 1, 1000 * 2.0**scale) for i in range(len(held))]
    return [(min(uppers, default=1.0) / base, zero), *zip(uppers, held, strict=True), (inf, 0.0)]


def _field(node: Node, name: str) -> Any:
    """A field as the protocol spells it, or as Python's SDK does."""
    return node[name] if name in node else node.get(_HUMP.sub("_", name).lower())


def _list(node: Node, name: str) -> list[Any]:
    found = _field(node, name)
    return found if isinstance(found, list) else []
