"""Requests one by one, as AIPerf and inference-perf write them: a run of them all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.validation.reported import SECONDS, Reported, number, of_requests

Record = Mapping[str, Any]
MAX_REQUESTS = 1_000_000


def is_request(value: Record) -> bool:
    """Whether an object is one request of a log that a client wrote."""
    info = value.get("info")
    per_token = isinstance(info, Mapping) and ("output_token_times" in info or "input_tokens" in info)
    return ("metrics" in value and isinstance(value.get("metadata"), Mapping)) or (per_token and "start_time" in value)


def run_of_requests(values: Sequence[Record]) -> Reported:
    """AIPerf's records, or inference-perf's requests, one by one, without those that warm up."""
    values = [value for value in values if _within_table(value, "metadata", "benchmark_phase") != "warmup"]
    rows, failed = [], 0
    for value in values[:MAX_REQUESTS]:
        row = _aiperf_request(value) if "metrics" in value else _inference_perf_request(value)
        failed += row is None
        rows += [] if row is None else [row]
    tool = "AIPerf's records" if any("metrics" in value for value in values) else "inference-perf's requests"
    return of_requests(tool, rows, failed)


def _within_table(value: Record, table: str, name: str) -> Any:
    inner = value.get(table)
    return inner.get(name) if isinstance(inner, Mapping) else None


Row = tuple[float, float, float, float, float]
"""Start, first token, end; prompt and output tokens."""


def _aiperf_request(value: Record) -> Row | None:
    metrics, meta = value["metrics"], value["metadata"]
    if value.get("error") or meta.get("was_cancelled") or not isinstance(metrics, Mapping):
        return None
    start, end = (1e-9 * number(meta, f"request_{side}_ns") for side in ("start", "end"))
    ttft = metrics.get("time_to_first_token")
    unit_s = SECONDS.get(str(_within_table(metrics, "time_to_first_token", "unit")).lower(), 1e-3)
    isl, osl = (metrics.get(f"{side}_sequence_length") for side in ("input", "output"))
    first = start + unit_s * number(ttft, "value")
    return _row(start, first, end, number(isl, "value"), number(osl, "value"))


def _inference_perf_request(value: Record) -> Row | None:
    info = value["info"]
    times = info.get("output_token_times")
    first = times[0] if isinstance(times, list) and times and isinstance(times[0], int | float) else math.nan
    if value.get("error") or value.get("exception"):
        return None
    isl, osl = number(info, "input_tokens"), number(info, "output_tokens")
    return _row(number(value, "start_time"), float(first), number(value, "end_time"), isl, osl)


def _row(*values: float) -> Row | None:
    usable = all(math.isfinite(v) for v in values) and values[2] >= values[1] >= values[0] and min(values[3:]) >= 1
    return (values[0], values[1], values[2], values[3], values[4]) if usable else None
