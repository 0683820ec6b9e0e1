"""What a benchmark reports of one run, whichever tool made it, in SI units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costmodel.errors import InputError
from costmodel.plan.columns import Floats

Record = Mapping[str, Any]
MAX_REQUESTS = 1_000_000
STATISTICS = ("mean", "p50", "p90", "p95", "p99")
_SPELT = {"mean": ("mean", "avg", "average"), "p50": ("p50", "median", "50")}
LESS_THAN_ASKED = 0.8
"""Share of the requests in flight that were asked for below which they were not what ran."""
SECONDS = {
    "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3,
    "us": 1e-6, "microseconds": 1e-6, "ns": 1e-9, "nanoseconds": 1e-9, "s/token": 1.0, "ms/token": 1e-3,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One run. NaN: the file does not have it."""

    tool: str
    completed: float
    isl: float
    """Mean prompt tokens."""
    osl: float
    ttft_s: Mapping[str, float]
    """By statistic, of `STATISTICS`; what there is not is not in it."""
    tpot_s: Mapping[str, float]
    e2e_s: Mapping[str, float] = field(default_factory=dict)
    duration_s: float = math.nan
    failed: float = 0.0
    asked_in_flight: float = math.nan
    """Requests in flight that the tool was told to keep."""
    seen_in_flight: float = math.nan
    """Requests in flight on average, as the tool measured it."""
    request_rate_per_s: float = math.nan
    """Of arrivals that wait for no answer; NaN: a closed loop, or all at once."""
    requests_per_s: float = math.nan
    output_tokens_per_s: float = math.nan
    total_tokens_per_s: float = math.nan
    per_gpu: bool = False
    """Whether the two are of one GPU."""
    gpus: float = math.nan
    """That were measured, as the file says."""
    arrival_cv: float = 1.0
    """Coefficient of variation of the gaps between arrivals."""
    same_lengths: bool = False
    drafted: bool = False
    """Whether the server decoded speculatively, as the file says, or the study that it was measured for."""
    model: str | None = None
    """Which was served, as the file names it; None, of these four: it does not say."""
    gpu: str | None = None
    engine: str | None = None
    precision: str | None = None
    """How weights were stored."""
    notes: tuple[str, ...] = ()

    @property
    def open_loop(self) -> bool:
        """Whether requests came at a rate of their own."""
        return math.isfinite(self.request_rate_per_s)

    def held_back(self, in_flight: float) -> bool:
        """Whether requests that came at a rate waited for others to end, as no more than a cap were let through.

        Then what was in flight is the cap, or nearly, and the loop is closed.
        """
        asked = self.asked_in_flight
        return self.open_loop and self.completed > asked > 0 and in_flight >= LESS_THAN_ASKED * asked

    @property
    def mean_e2e_s(self) -> float:
        """Mean time of a request, as measured or as its parts say."""
        measured = self.e2e_s.get("mean", math.nan)
        return measured if measured > 0 else self.parts_s

    @property
    def parts_s(self) -> float:
        """Time of the mean request as its first token and the others take it; medians where there are no means."""
        return _of(self.ttft_s) + max(self.osl - 1.0, 0.0) * _of(self.tpot_s)

    def in_flight(self, requests_per_s: float) -> tuple[float, str | None]:
        """Requests in flight as it really was, and what is to be said of it.

        By Little's law over the whole run where the tool did not keep what it was told to, or was told nothing.
        """
        law = requests_per_s * self.mean_e2e_s
        really = self.seen_in_flight if self.seen_in_flight > 0 else law
        asked = self.asked_in_flight
        if not asked > 0:
            return really, None
        few = self.completed <= asked
        if really > 0 and (few or really < LESS_THAN_ASKED * asked or self.open_loop):
            if really >= LESS_THAN_ASKED * asked and not few:
                return really, None
            made = f"{self.completed:,.0f} requests were made" if few else "it was not reached"
            return really, f"{asked:,.0f} requests in flight were asked for and {made}: {really:,.3g} on average"
        return asked, None

    @property
    def latencies(self) -> dict[tuple[str, str], float]:
        """Seconds by latency and statistic."""
        found = {"ttft": self.ttft_s, "tpot": self.tpot_s, "e2e": self.e2e_s}
        return {(name, s): value for name, by in found.items() for s, value in by.items() if value > 0}


def _of(by: Mapping[str, float]) -> float:
    return by.get("mean", by.get("p50", math.nan))


def says_drafted(record: Mapping[str, Any]) -> bool:
    """Whether vLLM's or SGLang's client counted tokens that a draft had right."""
    return number(record, "accept_length") > 1.0 or any(name.startswith("spec_decode_") for name in record)


def number(record: Any, *names: str) -> float:
    """The first field of these names that holds a number; NaN: none does."""
    for name in names:
        value = record.get(name) if isinstance(record, Mapping) else None
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return math.nan


def statistics(table: Any, *, unit_s: float = 1.0) -> dict[str, float]:
    """Mean and percentiles of a table such as `{"avg": 5, "p50": 4, "unit": "ms"}`; `unit_s` where it says no unit."""
    if not isinstance(table, Mapping):
        return {}
    within = table.get("successful")
    if isinstance(within, Mapping):  # GuideLLM: those that failed stand beside them
        table = within
    unit = table.get("unit", table.get("units"))
    factor = SECONDS.get(str(unit).lower(), unit_s) if unit is not None else unit_s
    percentiles = table.get("percentiles")
    found = {}
    for statistic in STATISTICS:
        names = _SPELT.get(statistic, (statistic, f"{statistic}.0", statistic[1:]))
        value = number(table, *names)
        value = number(percentiles, *names) if math.isnan(value) else value
        if not math.isnan(value):
            found[statistic] = value * factor
    return found


def mean_of(table: Any) -> float:
    """The mean of such a table of counts."""
    return statistics(table).get("mean", math.nan)


Row = tuple[float, float, float, float, float]
"""When a request began, had its first token and ended, seconds; prompt and output tokens."""


def of_requests(tool: str, rows: Sequence[Row], failed: int) -> Reported:
    """A run by its requests.

    Raises:
        InputError: there is none.
    """
    begin, first, end, prompts, outputs = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    if begin.size == 0:
        raise InputError.single(tool, "must hold requests that were served, got none")
    many = outputs > 1
    per_token = (end - first)[many] / (outputs - 1.0)[many]
    duration = float(end.max() - begin.min())
    return Reported(
        tool=tool,
        completed=float(begin.size),
        failed=float(failed),
        isl=float(prompts.mean()),
        osl=float(outputs.mean()),
        ttft_s=_statistics_of(first - begin),
        tpot_s=_statistics_of(per_token),
        e2e_s=_statistics_of(end - begin),
        duration_s=duration,
        seen_in_flight=float((end - begin).sum()) / duration if duration > 0 else math.nan,
        same_lengths=bool(np.ptp(prompts) == 0 and np.ptp(outputs) == 0),
    )


def _statistics_of(values: Floats) -> dict[str, float]:
    held = values[np.isfinite(values)]
    if held.size == 0:
        return {}
    found = np.percentile(held, [50, 90, 95, 99])
    return {"mean": float(held.mean()), **dict(zip(STATISTICS[1:], found.tolist(), strict=True))}


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


def of_details(record: Record) -> dict[str, dict[str, float]]:
    """Statistics of the requests one by one, which detailed results hold (`--save-detailed`, `--output-details`)."""
    first, gaps, outputs = (record.get(name) for name in ("ttfts", "itls", "output_lens"))
    if not (isinstance(first, list) and isinstance(gaps, list) and isinstance(outputs, list)):
        return {}
    rows = []
    for ttft, between, tokens in zip(first[:MAX_REQUESTS], gaps, outputs, strict=False):
        served = isinstance(ttft, int | float) and isinstance(between, list) and isinstance(tokens, int) and tokens >= 1
        if served and ttft > 0 and all(isinstance(gap, int | float) for gap in between):
            rows.append((0.0, float(ttft), float(ttft) + float(sum(between)), 1.0, float(tokens)))
    if not rows:
        return {}
    found = of_requests("details", rows, 0)
    return {"ttft": dict(found.ttft_s), "tpot": dict(found.tpot_s), "e2e": dict(found.e2e_s)}
