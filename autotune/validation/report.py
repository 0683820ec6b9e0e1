"""Everything `autotune validate` says of a file of runs, as one document."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from autotune.text.escaping import csv_text
from autotune.validation.comparisons import comparison_reliability
from autotune.validation.metrics import errors_of, mean_tau
from autotune.validation.slo import SloRuns, reliability, slo_task
from costmodel.estimate.normal import Z90
from costmodel.estimate.result import Estimate
from costmodel.measured.benchmark_recipes import recipe_source
from costmodel.measured.runs import Run, RunBatch
from costmodel.plan.columns import Floats

HEADER = (
    "id",
    "pred_ttft_ms",
    "pred_tpot_ms",
    "ttft_p10_ms",
    "ttft_p90_ms",
    "tpot_p10_ms",
    "tpot_p90_ms",
)


def predictions_csv(runs: Sequence[Run], estimate: Estimate) -> str:
    """One row per run, in the file's order."""
    rows: list[Sequence[str]] = [HEADER]
    ttft, tpot = np.exp(Z90 * estimate.ttft_log_sd), np.exp(Z90 * estimate.tpot_log_sd)
    for i, run in enumerate(runs):
        first, rest = estimate.ttft_s[i] * 1e3, estimate.tpot_s[i] * 1e3
        figures = (first, rest, first / ttft[i], first * ttft[i], rest / tpot[i], rest * tpot[i])
        rows.append([run.id, *(f"{x:.6g}" for x in figures)])
    return csv_text(rows)


def _assumptions(runs: Sequence[Run]) -> list[str]:
    """What the file leaves open and how it was filled in."""
    taken = sum(r.by_recipe for r in runs)
    if not taken:
        return []
    sentence = (
        f"{taken:,} of {len(runs):,} runs, with lengths drawn from 0.8 to 1.0 of the nominal ones, do not say how "
        f"their server was set: token budget, cache dtype and waits as in the {recipe_source()}; the columns "
        "max_num_batched_tokens, kv_dtype, scheduler_recv_interval and batch_wait_timeout_iters go before it"
    )
    return [sentence]


def validation_document(batch: RunBatch, estimate: Estimate) -> dict[str, Any]:
    """Coverage, errors by GPU, engine and model, rankings, and the SLO task."""
    runs = batch.runs
    measured = {"ttft": np.array([r.ttft_s for r in runs]), "tpot": np.array([r.tpot_s for r in runs])}
    predicted = {"ttft": estimate.ttft_s, "tpot": estimate.tpot_s}
    spread = {"ttft": estimate.ttft_log_sd, "tpot": estimate.tpot_log_sd}

    def errors(rows: Sequence[int]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, values in measured.items():
            found = errors_of(predicted[name][rows], spread[name][rows], values[rows])
            out[name] = None if found is None else asdict(found)
        return out

    def by(key: Callable[[Run], str]) -> dict[str, Any]:
        names = sorted({key(r) for r in runs})
        return {n: errors([i for i, r in enumerate(runs) if key(r) == n]) for n in names}

    done = np.isfinite(estimate.ttft_s) & np.isfinite(estimate.tpot_s)
    return {
        "runs": len(runs),
        "coverage": float(done.mean()),
        "assumptions": _assumptions(runs),
        "overall": errors(list(range(len(runs)))),
        "by_gpu": by(lambda r: r.gpu),
        "by_engine": by(lambda r: r.engine),
        "by_model": by(lambda r: r.model),
        **_ranking(batch, estimate),
    }


def _throughput(runs: Sequence[Run], ttft_s: Floats, tpot_s: Floats) -> Floats:
    """Output tokens/s per GPU of a closed loop; TTFT left out where it was not measured."""
    osl = np.array([r.mean_osl for r in runs])
    time_s = np.where(np.isfinite(ttft_s), ttft_s, 0.0) + np.maximum(osl - 1.0, 1.0) * tpot_s
    flight = np.array([r.concurrency for r in runs])
    return np.asarray(flight * osl / time_s / np.array([float(r.gpus) for r in runs]))


def groups_of(runs: Sequence[Run]) -> list[list[int]]:
    """Indices of the runs that differ in layout and concurrency alone."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, r in enumerate(runs):
        groups.setdefault((r.gpu, r.engine, r.model, r.precision, r.isl, r.osl), []).append(i)
    return list(groups.values())


def slo_columns(runs: Sequence[Run], *, ttft_s: Floats, tpot_s: Floats, tpot_log_sd: Floats) -> SloRuns:
    """Predictions of shape `(num_runs,)` beside what was measured.

    A TTFT that was not measured is left out of the prediction as well, so that like is compared with like.
    """
    first, rest = np.array([r.ttft_s for r in runs]), np.array([r.tpot_s for r in runs])
    return SloRuns(
        tpot_s=rest,
        throughput=_throughput(runs, first, rest),
        predicted_tpot_s=tpot_s,
        predicted_throughput=_throughput(runs, np.where(np.isfinite(first), ttft_s, math.nan), tpot_s),
        tpot_log_sd=tpot_log_sd,
    )


def _ranking(batch: RunBatch, estimate: Estimate) -> dict[str, Any]:
    runs = batch.runs
    lists = groups_of(runs)
    columns = slo_columns(runs, ttft_s=estimate.ttft_s, tpot_s=estimate.tpot_s, tpot_log_sd=estimate.tpot_log_sd)
    known = np.array([np.isfinite(r.ttft_s) for r in runs])
    tau_speed, count = mean_tau(columns.predicted_throughput, columns.throughput, lists)
    tau_tpot, _ = mean_tau(estimate.tpot_s, columns.tpot_s, lists)
    scores = slo_task(columns, lists)
    return {
        "kendall_tau": {"throughput_per_gpu": tau_speed, "tpot": tau_tpot, "groups": count},
        "slo_task": {name: asdict(score) for name, score in scores.items()},
        "reliability": [asdict(r) for r in reliability(columns, lists)],
        "reliability_better": [
            asdict(r)
            for r in comparison_reliability(batch, estimate, np.where(known, columns.throughput, math.nan), lists)
        ],
    }
