"""Accuracy out of sample, as tables: `python -m benchmarks.accuracy RUNS.csv SPLITS.csv`.

SPLITS.csv is what `python -m tools.fit_calibration --runs RUNS.csv --splits SPLITS.csv` writes: a prediction of each
run by formulas and residuals fitted without its deployment, its model, or its GPU.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autotune.engines import traits_by_name
from autotune.validation.comparisons import comparison_reliability
from autotune.validation.metrics import errors_of, mean_tau
from autotune.validation.report import groups_of, slo_columns
from autotune.validation.slo import Reliability, reliability, slo_task
from costmodel.calibration.residual import TARGETS, residual_columns
from costmodel.measured.learn_profile import run_situation
from costmodel.measured.runs import Run, RunBatch, prepare_runs
from costmodel.measured.runs_csv import read_runs
from costmodel.plan.columns import Floats

COLUMNS = ("ttft_s", "tpot_s", "ttft_log_sd", "tpot_log_sd")


def main() -> None:
    """Print every table of docs/accuracy.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("splits", type=Path)
    given = parser.parse_args()
    runs = read_runs(given.runs, traits_by_name())
    for name, split in _read(given.splits, len(runs)).items():
        print(f"\n{name} left out")
        _errors(runs, split)
        _ranking(runs, split, name)
    _anatomy(runs, _read(given.splits, len(runs)))


def _read(path: Path, count: int) -> dict[str, dict[str, Floats]]:
    rows: dict[str, list[list[float]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["split"], []).append([float(row[c]) for c in COLUMNS])
    found = {name: dict(zip(COLUMNS, np.array(values).T, strict=True)) for name, values in rows.items()}
    if any(split["ttft_s"].size != count for split in found.values()):
        raise SystemExit(f"{path}: must hold every run once per split")
    return found


def _errors(runs: Sequence[Run], split: dict[str, Floats]) -> None:
    for target in ("tpot", "ttft"):
        measured = np.array([getattr(r, f"{target}_s") for r in runs])
        e = errors_of(split[f"{target}_s"], split[f"{target}_log_sd"], measured)
        if e is not None:
            print(f"  {target}: {e.mape:.1%} mean, {e.median:.1%} median, {e.inside_p10_p90:.0%} inside p10 to p90")


def _ranking(runs: Sequence[Run], split: dict[str, Floats], left_out: str) -> None:
    groups = groups_of(runs)
    columns = slo_columns(runs, ttft_s=split["ttft_s"], tpot_s=split["tpot_s"], tpot_log_sd=split["tpot_log_sd"])
    for name, s in slo_task(columns, groups).items():
        print(
            f"  {name}: regret {s.strict_regret:.1%} strict, {s.lenient_regret:.1%} lenient, {s.over_by_a_tenth:.1%} over"
        )
    speed, _ = mean_tau(columns.predicted_throughput, columns.throughput, groups)
    tpot, _ = mean_tau(columns.predicted_tpot_s, columns.tpot_s, groups)
    print(f"  Kendall tau: throughput {speed:.3f}, TPOT {tpot:.3f}")
    _say("keeps the limit", reliability(columns, groups))
    batch = _as_left_out(prepare_runs(runs), split, left_out)
    estimate = batch.evaluate()
    outputs = np.array([r.mean_osl for r in runs])
    flight = np.array([r.concurrency for r in runs])
    time_s = split["ttft_s"] + np.maximum(outputs - 1.0, 1.0) * split["tpot_s"]
    moved = replace(
        estimate, ttft_s=split["ttft_s"], tpot_s=split["tpot_s"], output_tokens_per_s=flight * outputs / time_s
    )
    known = np.array([np.isfinite(r.ttft_s) for r in runs])
    _say(
        "has more throughput", comparison_reliability(batch, moved, np.where(known, columns.throughput, np.nan), groups)
    )


def _as_left_out(batch: RunBatch, split: dict[str, Floats], left_out: str) -> RunBatch:
    """The runs with what the calibration would know of them without what was left out.

    Of a model or a GPU: what it knows of one that nobody measured. Every deployment here it has seen, so that what the
    split's interval is wider by is the run's own.
    """
    cells = [
        (
            replace(c.arch, hidden_size=0) if left_out == "model" else c.arch,
            replace(c.cluster.gpu, name="unmeasured") if left_out == "gpu" else c.cluster.gpu,
            c.engine,
            c.engine_version,
        )
        for c in (r.entry for r in batch.runs)
    ]
    residual = residual_columns(cells)
    phi = run_situation(batch.runs).phi
    for name in TARGETS if left_out == "deployment" else ():
        target = getattr(residual, name)
        known = target.shared_variance(phi) + target.own_variance(phi)
        more = np.maximum(split[f"{name}_log_sd"] ** 2 - known, 0.0)
        residual = replace(residual, **{name: replace(target, noise=target.noise + more)})
    return replace(batch, batch=replace(batch.batch, residual=residual))


def _say(what: str, rows: Sequence[Reliability]) -> None:
    said = "; ".join(f"{r.mean_p:.3f} said, {r.share_true:.3f} true ({r.statements:,})" for r in rows)
    print(f"  {what}: {said}")


def _anatomy(runs: Sequence[Run], splits: dict[str, dict[str, Floats]]) -> None:
    parts: dict[str, Callable[[Run], str]] = {
        "engine": lambda r: r.engine,
        "GPU": lambda r: r.gpu,
        "model": lambda r: r.model,
        "lengths": lambda r: "fixed" if r.same_lengths else "drawn",
        "requests per GPU": lambda r: str(2 ** int(np.log2(max(r.concurrency / r.gpus, 1.0)))),
    }
    measured = np.array([r.ttft_s for r in runs])
    print("\nTTFT errors by part, mean / median (runs)")
    for name, split in splits.items():
        error = np.abs(split["ttft_s"] / measured - 1.0)
        for part, key in parts.items():
            keys = np.array([key(r) for r in runs])
            said = []
            for value in sorted(set(keys), key=lambda v: (len(v), v)):
                rows = (keys == value) & np.isfinite(measured)
                if rows.any():
                    said.append(f"{value} {error[rows].mean():.1%} / {np.median(error[rows]):.1%} ({rows.sum()})")
            print(f"  {name} left out, by {part}: " + "; ".join(said))


if __name__ == "__main__":
    main()
