"""What a benchmark reports of one run, whichever tool made it, in SI units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costmodel.errors import InputError
from costmodel.plan.columns import Floats

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
    """Whether the file says that the server decoded speculatively."""
    model: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def open_loop(self) -> bool:
        """Whether requests came at a rate of their own."""
        return math.isfinite(self.request_rate_per_s)

    @property
    def mean_e2e_s(self) -> float:
        """Mean time of a request, as measured or as its parts say."""
        measured = self.e2e_s.get("mean", math.nan)
        whole = _of(self.ttft_s) + max(self.osl - 1.0, 0.0) * _of(self.tpot_s)
        return measured if measured > 0 else whole

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


def of_requests(tool: str, rows: Sequence[tuple[float, float, float, float, float]], failed: int) -> Reported:
    """A run by its requests: when each began, had its first token and ended, seconds; prompt and output tokens.

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
