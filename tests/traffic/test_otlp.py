"""Metrics in OpenTelemetry's JSON, as collectors and SDKs write them: the same half an hour in every form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotune.traffic.read import read_traffic
from costmodel.errors import InputError
from tests.traffic.helpers import START_S, written

PER_S, EACH_S, MOMENTS = 2.0, 60.0, 31
"""Requests per second; time between exports, and how many there are."""
MEANS = {"input": 900.0, "output": 150.0}
BOUNDS, SHARES = {"input": [500.0, 1000.0], "output": [100.0, 200.0]}, (0.25, 0.5, 0.25)


def attribute(key: str, value: str) -> dict[str, Any]:
    """One attribute."""
    return {"key": key, "value": {"stringValue": value}}


def point(kind: str, requests: float, start_s: float, at_s: float) -> dict[str, Any]:
    """One point of a histogram."""
    return {
        "attributes": [attribute("gen_ai.token.type", kind), attribute("gen_ai.request.model", "m")],
        "startTimeUnixNano": str(int(1e9 * start_s)), "timeUnixNano": str(int(1e9 * at_s)),
        "count": str(int(requests)), "sum": MEANS[kind] * requests, "explicitBounds": BOUNDS[kind],
        "bucketCounts": [str(int(share * requests)) for share in SHARES],
    }  # fmt: skip


def document(points: list[dict[str, Any]], temporality: Any, kind: str = "histogram") -> str:
    """What is exported at once."""
    metric = {
        "name": "gen_ai.client.token.usage",
        kind: {"aggregationTemporality": temporality, "dataPoints": points},
    }
    resource = {"attributes": [attribute("service.instance.id", "a")]}
    return json.dumps({"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}]})


def cumulative() -> str:
    """Totals since the server's start, an hour before."""
    rows = []
    for i in range(MOMENTS):
        at_s = START_S + EACH_S * i
        rows.append(document([point(k, 7200 + PER_S * EACH_S * i, START_S - 3600, at_s) for k in MEANS], 2))
    return "\n".join(rows)


def added() -> str:
    """What was added since the export before."""
    rows = []
    for i in range(1, MOMENTS):
        at_s = START_S + EACH_S * i
        points = [point(k, PER_S * EACH_S, at_s - EACH_S, at_s) for k in MEANS]
        rows.append(document(points, "AGGREGATION_TEMPORALITY_DELTA"))
    return "\n".join(rows)


def one_moment() -> str:
    """A single export, half an hour after the start."""
    end_s = START_S + EACH_S * (MOMENTS - 1)
    return document([point(k, PER_S * (end_s - START_S), START_S, end_s) for k in MEANS], 2)


def of_an_sdk() -> str:
    """As Python's SDK prints them: other names, attributes as an object, several lines."""
    rows = []
    for text in cumulative().split("\n"):
        metric = json.loads(text)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]
        points = [
            {
                "attributes": {"gen_ai.token.type": kind}, "time_unix_nano": int(p["timeUnixNano"]),
                "start_time_unix_nano": int(p["startTimeUnixNano"]), "count": int(p["count"]), "sum": p["sum"],
                "bucket_counts": [int(c) for c in p["bucketCounts"]], "explicit_bounds": p["explicitBounds"],
            }
            for kind, p in zip(MEANS, metric["histogram"]["dataPoints"], strict=True)
        ]  # fmt: skip
        held = {"name": metric["name"], "data": {"data_points": points, "aggregation_temporality": 2}}
        rows.append(json.dumps({"resource_metrics": [{"scope_metrics": [{"metrics": [held]}]}]}, indent=4))
    return "\n".join(rows)


def exponential() -> str:
    """Exponential histograms: half of the requests between 512 and 1,024 tokens, or 128 and 256."""
    rows = []
    for i in range(MOMENTS):
        at_s, count = START_S + EACH_S * i, int(7200 + PER_S * EACH_S * i)
        points = [point(k, count, START_S - 3600, at_s) for k in MEANS]
        for one, offset in zip(points, (8, 6), strict=True):
            del one["bucketCounts"], one["explicitBounds"]
            one |= {"scale": 0, "zeroCount": "0"}
            one["positive"] = {"offset": offset, "bucketCounts": [str(count // 2), str(count - count // 2)]}
        rows.append(document(points, 2, "exponentialHistogram"))
    return "\n".join(rows)


@pytest.mark.parametrize("form", [cumulative, added, one_moment, of_an_sdk, exponential])
def test_the_same_traffic_in_every_form(form: Callable[[], str], tmp_path: Path) -> None:
    """Rate, lengths and the time that is covered."""
    log = read_traffic(written(tmp_path, form()))
    assert log.refusal is None
    profile = log.profile()
    assert log.end_s - log.start_s == pytest.approx(EACH_S * (MOMENTS - 1))
    assert profile.rate.mean_per_s == pytest.approx(PER_S)
    assert (profile.prompt_mean, profile.output_mean) == (
        pytest.approx(MEANS["input"], rel=1e-3), pytest.approx(MEANS["output"], rel=1e-3)
    )  # fmt: skip


def test_what_is_no_such_document_is_an_error(tmp_path: Path) -> None:
    """Bounds and counts that do not fit, or a list in place of a metric."""
    for text in (document([{**point("input", 8, 1, 2), "explicitBounds": [5]}], 2), '{"resourceMetrics": [[]]}'):
        with pytest.raises(InputError, match="is no JSON of OpenTelemetry's metrics"):
            read_traffic(written(tmp_path, text))
