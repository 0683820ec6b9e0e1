"""Reading files of measured runs with percentiles: CSV, columns by name, of which any but three may be empty.

gpu, engine, model                      which server; required, with pp, attn_tp, attn_dp, moe_tp, moe_ep, precision,
                                        gemm_dtype, moe_dtype, kv_dtype, engine_version
request_rate_per_s, arrivals            arrivals that do not wait: `constant`, `poisson`, or a coefficient of variation
concurrency                             requests in flight in a closed loop, where there is no rate
duration_s, requests                    how long, how many
isl_mean, isl_p5, isl_p50, isl_p95      prompt lengths, and osl_… output lengths, tokens
shared_prefix_tokens, distinct_prefixes tokens that all prompts begin with; prompts after which they repeat
max_num_batched_tokens, max_num_seqs, enable_prefix_caching   what the engine was started with
ttft_…_ms, e2e_…_ms, tpot_mean_ms       what was measured: mean, p50, p90, p95, p99; ttft_ms, e2e_ms, tpot_ms are means
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from costmodel.engine import EngineTraits
from costmodel.hardware import Gpu
from costmodel.measured import runs_csv
from costmodel.measured.csv_columns import Columns, read_columns
from costmodel.measured.csv_fields import (
    LAYOUT_COLUMNS,
    SERVER_COLUMNS,
    Row,
    Server,
    read_servers,
)
from costmodel.measured.implausible import counted_short
from costmodel.measured.load_runs import REPORTED, Lengths, LoadRun
from costmodel.measured.runs import BATCHED_TOKENS, MAX_NUM_SEQS

REQUIRED = ("gpu", "engine", "model")
MARKS = ("isl_mean", "isl_p50", "request_rate_per_s", "arrivals")
"""Columns by which a file is known as such a one, where it does not have what was measured."""
QUANTILES = {"p5": 0.05, "p50": 0.5, "p95": 0.95}
ARRIVAL_CV = {"constant": 0.0, "uniform": 0.0, "poisson": 1.0}
REQUESTS = 2000
"""Of a run that says neither how many nor for how long."""
MOST_REQUESTS = 200_000
MEASURED = tuple(f"{latency}_{statistic}_ms" for latency, statistic in REPORTED)
OF_MEANS = ("ttft_ms", "tpot_ms", "e2e_ms")
"""The same without a statistic: means."""
LOAD = ("request_rate_per_s", "arrivals", "concurrency", "duration_s", "requests")
SETTINGS = ("shared_prefix_tokens", "distinct_prefixes", "max_num_batched_tokens", "max_num_seqs")
COLUMNS = Columns(
    required=REQUIRED,
    known=(
        *SERVER_COLUMNS,
        *LAYOUT_COLUMNS,
        *LOAD,
        *(f"{name}{end}" for name in ("isl", "osl") for end in ("", "_mean", *(f"_{key}" for key in QUANTILES))),
        *SETTINGS,
        "enable_prefix_caching",
        *MEASURED,
        *OF_MEANS,
    ),
    measured=(*MEASURED, *OF_MEANS),
)
USUAL_TOKENS = {"isl": 1024.0, "osl": 128.0}
"""Lengths that are assumed, and listed as assumed, where a file has none."""


def has_percentiles(path: Path) -> bool:
    """Whether a file's columns are those of runs with percentiles. Raises `InputError` where it cannot be read.

    A file of means may have a column of the rate too: what was measured says of which kind it is.
    """
    found = set(read_columns(path))
    if found & set(MEASURED):
        return True
    of_means = found >= set(runs_csv.REQUIRED) and bool(found & set(runs_csv.MEASURED))
    return not of_means and bool(found & set(MARKS))


def read_load_runs(
    path: Path,
    engines: Mapping[str, EngineTraits],
    models: Path | None = None,
    own_gpus: Mapping[str, Gpu] = MappingProxyType({}),
) -> tuple[LoadRun, ...]:
    """Read a file of such runs; arguments and errors as those of `read_runs`."""
    return read_servers(path, COLUMNS, engines, models, _run, own_gpus)


def _run(row: Row, server: Server | None) -> LoadRun | None:
    layout = None if server is None else row.layout(server.arch)
    if server is None or layout is None:
        return None
    before = len(row.problems)
    assumptions: list[str] = []
    rate = row.setting("request_rate_per_s")
    concurrency = row.whole_setting("concurrency")
    if not rate and not concurrency and row.text("requests") and row.text("duration_s"):
        count, lasted_s = (row.number(name) for name in ("requests", "duration_s"))
        rate = count / lasted_s
        assumptions.append("a rate of the requests over the duration")
    if not rate and not concurrency:
        row.problem("must have request_rate_per_s or concurrency")
    prompt, output = (_lengths(row, name, assumptions) for name in ("isl", "osl"))
    cv = _arrival_cv(row, assumptions) if rate else 1.0
    prefix, distinct = (row.whole_setting(name) for name in ("shared_prefix_tokens", "distinct_prefixes"))
    if row.text("enable_prefix_caching").lower() in ("0", "false", "no"):
        prefix = distinct = None
    elif prefix is None and distinct is None:
        assumptions.append("no prompt shares a prefix with another")
    tokens, seats = (row.whole_setting(n) for n in ("max_num_batched_tokens", "max_num_seqs"))
    if tokens is None:
        assumptions.append(f"steps of at most {BATCHED_TOKENS:,.0f} tokens")
    if seats is None:
        assumptions.append(f"at most {MAX_NUM_SEQS:,.0f} sequences at once")
    measured = {key: value for key in REPORTED if math.isfinite(value := _measured_s(row, *key))}
    if counted_short(output, measured):
        output = output.at_least_median()
        # it was divided by the tokens that were counted
        measured.pop(("tpot", "mean"), None)
        assumptions.append(
            "no output shorter than the median: requests took no less time where fewer tokens were counted"
        )
    count = _count(row, rate, concurrency)
    if len(row.problems) > before:
        return None
    return LoadRun(
        id=row.text("id") or row.at,
        model=row.text("model"),
        entry=server.entry(layout, row.text("kv_dtype") or None, row.text("precision"), row.text("engine_version")),
        prompt=prompt,
        output=output,
        rate_per_s=rate or None,
        arrival_cv=cv,
        concurrency=None if rate else max(concurrency or 1, 1),
        requests=count,
        shared_prefix_tokens=prefix or 0,
        distinct_prompts=distinct or 0,
        batched_tokens=tokens or int(BATCHED_TOKENS),
        max_num_seqs=seats or int(MAX_NUM_SEQS),
        measured=measured,
        assumptions=tuple(assumptions),
    )


def _measured_s(row: Row, latency: str, statistic: str) -> float:
    """Seconds, NaN where the file has none; a latency without a statistic is a mean."""
    value = row.seconds(f"{latency}_{statistic}_ms")
    return row.seconds(f"{latency}_ms") if statistic == "mean" and math.isnan(value) else value


def _lengths(row: Row, name: str, assumptions: list[str]) -> Lengths:
    quantiles = {share: row.number(f"{name}_{key}") for key, share in QUANTILES.items() if row.text(f"{name}_{key}")}
    mean = row.number(f"{name}_mean") if row.text(f"{name}_mean") else None
    if mean is None and row.text(name):
        mean = row.number(name)
    if mean is None and not quantiles:
        mean = USUAL_TOKENS[name]
        assumptions.append(f"{name} of {mean:,.0f} tokens where the file does not say")
    values = [quantiles[share] for share in sorted(quantiles)]
    if values != sorted(values):
        row.problem(f"quantiles of {name} must not fall, got {values}")
        return Lengths(mean=1.0, quantiles={})
    if mean is None:
        mean = quantiles.get(0.5, sum(values) / len(values))
        assumptions.append(f"mean {name} is its median")
    if len(quantiles) < 2:
        assumptions.append(f"every request has the mean {name}")
    return Lengths(mean=mean, quantiles=quantiles)


def _arrival_cv(row: Row, assumptions: list[str]) -> float:
    text = row.text("arrivals").lower()
    if not text:
        assumptions.append("Poisson arrivals")
        return 1.0
    if text in ARRIVAL_CV:
        return ARRIVAL_CV[text]
    try:
        cv = float(text.removeprefix("cv="))
    except ValueError:
        cv = math.nan
    if not (math.isfinite(cv) and cv >= 0.0):
        known = ", ".join(ARRIVAL_CV)
        row.problem(f"arrivals must be {known} or a coefficient of variation, got {text!r}")
        return 1.0
    return cv


def _count(row: Row, rate: float | None, concurrency: int | None) -> int:
    if row.text("requests"):
        count = float(row.whole("requests"))
    elif rate and row.text("duration_s"):
        count = rate * row.number("duration_s")
    else:
        count = max(REQUESTS, 10.0 * (concurrency or 0.0))
    return int(min(max(count, 1.0), MOST_REQUESTS))
