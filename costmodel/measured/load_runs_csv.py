"""Reading files of measured runs with percentiles: CSV, columns by name, of which any but three may be empty.

gpu, engine, model                      which server; required, with pp, attn_tp, attn_dp, moe_tp, moe_ep, precision,
                                        gemm_dtype, moe_dtype, kv_dtype, engine_version
request_rate_per_s, arrivals            arrivals that do not wait: `constant`, `poisson`, or a coefficient of variation
concurrency                             requests in flight in a closed loop, where there is no rate
duration_s, requests                    how long, how many
isl_mean, isl_p5, isl_p50, isl_p95      prompt lengths, and osl_… output lengths, tokens
shared_prefix_tokens, distinct_prefixes tokens that all prompts begin with; prompts after which they repeat
max_num_batched_tokens, max_num_seqs, enable_prefix_caching   what the engine was started with
ttft_…_ms, e2e_…_ms, tpot_mean_ms       what was measured: mean, p50, p90, p95, p99
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from costmodel.arch import Arch
from costmodel.engine import EngineTraits
from costmodel.errors import Problem
from costmodel.estimate.batch import PlanEntry
from costmodel.hardware import Cluster, Gpu
from costmodel.measured.benchmark_recipes import AS_CHECKPOINT
from costmodel.measured.csv_fields import (
    inferred_kv_dtype,
    read_layout,
    read_ms,
    read_number,
    read_rows,
    read_servers,
    read_setting,
)
from costmodel.measured.implausible import counted_short
from costmodel.measured.load_runs import REPORTED, Lengths, LoadRun
from costmodel.measured.runs import BATCHED_TOKENS, MAX_NUM_SEQS

REQUIRED = ("gpu", "engine", "model")
MARKS = ("isl_mean", "isl_p50", "request_rate_per_s", "arrivals", "ttft_p50_ms", "ttft_p99_ms", "e2e_mean_ms")
"""Columns that only such files have."""
QUANTILES = {"p5": 0.05, "p50": 0.5, "p95": 0.95}
ARRIVAL_CV = {"constant": 0.0, "uniform": 0.0, "poisson": 1.0}
REQUESTS = 2000
"""Of a run that says neither how many nor for how long."""
MOST_REQUESTS = 200_000
USUAL_TOKENS = {"isl": 1024.0, "osl": 128.0}
"""Lengths that are assumed, and listed as assumed, where a file has none."""


def has_percentiles(path: Path) -> bool:
    """Whether a file's columns are those of runs with percentiles. Raises `InputError` where it cannot be read."""
    return any(name in read_rows(path, REQUIRED)[0] for name in MARKS)


def read_load_runs(
    path: Path,
    engines: Mapping[str, EngineTraits],
    models: Path | None = None,
    own_gpus: Mapping[str, Gpu] = MappingProxyType({}),
) -> tuple[LoadRun, ...]:
    """Read a file of such runs; arguments and errors as those of `read_runs`."""
    return read_servers(path, REQUIRED, engines, models, _load_run, own_gpus)


def _load_run(
    row: Mapping[str, str],
    at: str,
    engine: EngineTraits | None,
    arch: Arch | None,
    gpu: Gpu | None,
    problems: list[Problem],
) -> LoadRun | None:
    entry = _entry(row, at, engine, arch, gpu, problems)
    return None if entry is None else _run(row, at, entry, problems)


def _entry(
    row: Mapping[str, str],
    at: str,
    engine: EngineTraits | None,
    arch: Arch | None,
    gpu: Gpu | None,
    problems: list[Problem],
) -> PlanEntry | None:
    if arch is None or gpu is None or engine is None:
        return None
    layout = read_layout(row, at, arch, problems)
    if layout is None:
        return None
    said = row.get("kv_dtype") or inferred_kv_dtype(arch, gpu, engine, row.get("precision", ""))
    return PlanEntry(
        arch=arch,
        cluster=Cluster(gpus=layout.gpus, gpu=gpu, gpus_per_node=gpu.gpus_per_node),
        engine=engine,
        layout=layout,
        kv_dtype=None if said == AS_CHECKPOINT else said,
        engine_version=row.get("engine_version", ""),
    )


def _run(row: Mapping[str, str], at: str, entry: PlanEntry, problems: list[Problem]) -> LoadRun | None:
    before = len(problems)
    assumptions: list[str] = []
    rate = read_setting(row, "request_rate_per_s", at, problems)
    concurrency = read_setting(row, "concurrency", at, problems)
    if not rate and not concurrency and row.get("requests") and row.get("duration_s"):
        count, lasted_s = (read_number(row, name, at, problems) for name in ("requests", "duration_s"))
        rate = count / lasted_s
        assumptions.append("a rate of the requests over the duration")
    if not rate and not concurrency:
        problems.append(Problem(path=at, message="must have request_rate_per_s or concurrency"))
    prompt, output = (_lengths(row, name, at, problems, assumptions) for name in ("isl", "osl"))
    cv = _arrival_cv(row, at, problems, assumptions) if rate else 1.0
    prefix, distinct = (read_setting(row, name, at, problems) for name in ("shared_prefix_tokens", "distinct_prefixes"))
    if row.get("enable_prefix_caching", "").lower() in ("0", "false", "no"):
        prefix = distinct = None
    elif prefix is None and distinct is None:
        assumptions.append("no prompt shares a prefix with another")
    tokens, seats = (read_setting(row, n, at, problems) for n in ("max_num_batched_tokens", "max_num_seqs"))
    if tokens is None:
        assumptions.append(f"steps of at most {BATCHED_TOKENS:,.0f} tokens")
    if seats is None:
        assumptions.append(f"at most {MAX_NUM_SEQS:,.0f} sequences at once")
    measured = {
        key: value for key in REPORTED if math.isfinite(value := read_ms(row, f"{'_'.join(key)}_ms", at, problems))
    }
    if counted_short(output, measured):
        output = output.at_least_median()
        # it was divided by the tokens that were counted
        measured.pop(("tpot", "mean"), None)
        assumptions.append(
            "no output shorter than the median: requests took no less time where fewer tokens were counted"
        )
    count = _count(row, at, rate, concurrency, problems)
    if len(problems) > before:
        return None
    return LoadRun(
        id=row.get("id", "") or at,
        model=row["model"],
        entry=entry,
        prompt=prompt,
        output=output,
        rate_per_s=rate or None,
        arrival_cv=cv,
        concurrency=None if rate else max(int(concurrency or 1), 1),
        requests=count,
        shared_prefix_tokens=int(prefix or 0),
        distinct_prompts=int(distinct or 0),
        batched_tokens=int(tokens or BATCHED_TOKENS),
        max_num_seqs=int(seats or MAX_NUM_SEQS),
        measured=measured,
        assumptions=tuple(assumptions),
    )


def _lengths(row: Mapping[str, str], name: str, at: str, problems: list[Problem], assumptions: list[str]) -> Lengths:
    quantiles = {
        share: read_number(row, f"{name}_{key}", at, problems)
        for key, share in QUANTILES.items()
        if row.get(f"{name}_{key}")
    }
    mean = read_number(row, f"{name}_mean", at, problems) if row.get(f"{name}_mean") else None
    if mean is None and row.get(name):
        mean = read_number(row, name, at, problems)
    if mean is None and not quantiles:
        mean = USUAL_TOKENS[name]
        assumptions.append(f"{name} of {mean:,.0f} tokens where the file does not say")
    values = [quantiles[share] for share in sorted(quantiles)]
    if values != sorted(values):
        problems.append(Problem(path=at, message=f"quantiles of {name} must not fall, got {values}"))
        return Lengths(mean=1.0, quantiles={})
    if mean is None:
        mean = quantiles.get(0.5, sum(values) / len(values))
        assumptions.append(f"mean {name} is its median")
    if len(quantiles) < 2:
        assumptions.append(f"every request has the mean {name}")
    return Lengths(mean=mean, quantiles=quantiles)


def _arrival_cv(row: Mapping[str, str], at: str, problems: list[Problem], assumptions: list[str]) -> float:
    text = row.get("arrivals", "").lower()
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
        problems.append(
            Problem(path=at, message=f"arrivals must be {known} or a coefficient of variation, got {text!r}")
        )
        return 1.0
    return cv


def _count(
    row: Mapping[str, str], at: str, rate: float | None, concurrency: float | None, problems: list[Problem]
) -> int:
    if row.get("requests"):
        count = read_number(row, "requests", at, problems)
    elif rate and row.get("duration_s"):
        count = rate * read_number(row, "duration_s", at, problems)
    else:
        count = max(REQUESTS, 10.0 * (concurrency or 0.0))
    return int(min(max(count, 1.0), MOST_REQUESTS))
