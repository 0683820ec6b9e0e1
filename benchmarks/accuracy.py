"""Accuracy out of sample, as tables: `python -m benchmarks.accuracy RUNS.csv SPLITS.csv`.

SPLITS.csv is what `python -m tools.fit_calibration --runs RUNS.csv --splits SPLITS.csv` writes: predictions of runs by
formulas, residuals and widths fitted without them, by what else was left out with them. `--load LOAD.csv` adds runs in
which requests arrive at a rate; they are in no fit.

Forms, levels and features of the calibration are chosen on one half of each split's folds, every second of them by name
beginning with the first (`python -m tools.fit_calibration.levels` compares them there). The errors of the other half
stand beside, which no choice has seen.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autotune.engines import traits_by_name
from autotune.validation.load_report import load_runs_document, predict_load_runs
from autotune.validation.metrics import comparison_reliability, errors_of, mean_tau
from autotune.validation.report import groups_of, slo_columns
from autotune.validation.slo import Reliability, SloRuns, reliability, slo_task
from costmodel.calibration.measured_cells import REACHES
from costmodel.calibration.residual import TARGETS, residual_columns
from costmodel.measured.implausible import plausible
from costmodel.measured.learn_profile import run_situation
from costmodel.measured.load_runs_csv import read_load_runs
from costmodel.measured.runs import Run, RunBatch, prepare_runs
from costmodel.measured.runs_csv import read_runs
from costmodel.plan.columns import Floats

COLUMNS = ("ttft_s", "tpot_s", "ttft_log_sd", "tpot_log_sd")
RANKED = ("deployment", "model", "gpu")
"""Splits that predict every run, so that plans of a group can be ranked."""
NEWER = "999999.0"
"""A version newer than any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The predicted runs of a split, in the order of the file."""

    runs: tuple[Run, ...]
    fold: tuple[str, ...]
    reach: tuple[str, ...]
    columns: dict[str, Floats]
    """By the names of `COLUMNS`, shape `(num_runs,)`."""


def main() -> None:
    """Print the tables of docs/accuracy-tables.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("splits", type=Path)
    parser.add_argument("--models", type=Path, help="folder of config.json files for models outside the catalog")
    parser.add_argument("--load", type=Path, help="runs in which requests arrive at a rate, CSV")
    given = parser.parse_args()
    runs, left_out = plausible(read_runs(given.runs, traits_by_name(), given.models))
    for reason, ids in left_out.items():
        print(f"left out, as their {reason}: {', '.join(ids)}")
    splits = _read(given.splits, runs)
    print(
        "\nleft out | target | mean | median | mean over folds | worst fold | inside p10 to p90 | folds | runs | "
        "folds chosen on: mean, median | the others"
    )
    for name, split in splits.items():
        _errors(name, split)
    for name, split in splits.items():
        print(f"\n{name} left out")
        _say("keeps the limit", _reliability(split))
        if name in RANKED:
            _ranking(split)
    _anatomy(splits)
    _measured(runs)
    if given.load is not None:
        _under_arrivals(given.load, given.models)


def _read(path: Path, runs: Sequence[Run]) -> dict[str, Split]:
    by_id = {run.id: run for run in runs}
    rows: dict[str, list[dict[str, str]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["split"], []).append(row)
    unknown = {row["id"] for found in rows.values() for row in found} - by_id.keys()
    if unknown:
        raise SystemExit(f"{path}: must name runs of the file of runs, got {', '.join(sorted(unknown)[:5])}")
    return {
        name: Split(
            runs=tuple(by_id[row["id"]] for row in found),
            fold=tuple(row["fold"] for row in found),
            reach=tuple(row["reach"] for row in found),
            columns={c: np.array([float(row[c]) for row in found]) for c in COLUMNS},
        )
        for name, found in rows.items()
    }


def _errors(name: str, split: Split) -> None:
    folds = np.array(split.fold)
    for target in ("tpot", "ttft"):
        predicted, spread = split.columns[f"{target}_s"], split.columns[f"{target}_log_sd"]
        measured = np.array([getattr(r, f"{target}_s") for r in split.runs])
        e = errors_of(predicted, spread, measured)
        if e is None:
            continue
        error = np.abs(predicted / measured - 1.0)
        names = list(dict.fromkeys(split.fold))
        of_folds = [float(np.nanmean(error[folds == f])) for f in names if _any(error[folds == f])]
        halves = [error[np.isin(folds, names[first::2]) & np.isfinite(error)] for first in (0, 1)]
        said = " | ".join(f"{np.mean(half):.1%}, {np.median(half):.1%}" if half.size else "" for half in halves)
        print(
            f"{name} | {target.upper()} | {e.mape:.1%} | {e.median:.1%} | {np.mean(of_folds):.1%} | "
            f"{max(of_folds):.0%} | {e.inside_p10_p90:.0%} | {len(of_folds)} | {int(np.isfinite(error).sum())} | {said}"
        )
        reaches = np.array(split.reach)
        for reach in REACHES:
            here = errors_of(predicted[reaches == reach], spread[reaches == reach], measured[reaches == reach])
            if here is not None and len(set(split.reach)) > 1:
                print(
                    f"  of these, {reach} | {target.upper()} | {here.mape:.1%} | {here.median:.1%} | | | "
                    f"{here.inside_p10_p90:.0%} | | {int((reaches == reach).sum())}"
                )


def _any(error: Floats) -> bool:
    return bool(np.isfinite(error).any())


def _reliability(split: Split) -> list[Reliability]:
    return reliability(_slo(split), groups_of(split.runs))


def _slo(split: Split) -> SloRuns:
    c = split.columns
    return slo_columns(split.runs, ttft_s=c["ttft_s"], tpot_s=c["tpot_s"], tpot_log_sd=c["tpot_log_sd"])


def _measured(runs: Sequence[Run]) -> None:
    """What was measured: runs by GPU, engine, version, model and precision."""
    found = Counter((r.engine, r.engine_version or "not recorded", r.model, r.precision, r.gpu) for r in runs)
    gpus = sorted({r.gpu for r in runs})
    print("\nengine | version | model | precision | " + " | ".join(gpus))
    for cell in sorted({key[:4] for key in found}):
        print(" | ".join([*cell, *(str(found[*cell, gpu] or "") for gpu in gpus)]))


def _under_arrivals(path: Path, models: Path | None) -> None:
    runs = read_load_runs(path, traits_by_name(), models)
    document = load_runs_document(runs, predict_load_runs(runs))
    print(f"\nunder arrivals: {json.dumps({k: v for k, v in document.items() if k != 'runs'})}")


def _ranking(found: Split) -> None:
    runs, split = found.runs, found.columns
    groups, columns = groups_of(runs), _slo(found)
    for name, s in slo_task(columns, groups).items():
        print(
            f"  {name}: regret {s.strict_regret:.1%} strict, {s.lenient_regret:.1%} lenient, {s.over_by_a_tenth:.1%} over"
        )
    speed, _ = mean_tau(columns.predicted_throughput, columns.throughput, groups)
    tpot, _ = mean_tau(columns.predicted_tpot_s, columns.tpot_s, groups)
    print(f"  Kendall tau: throughput {speed:.3f}, TPOT {tpot:.3f}")
    batch = _as_left_out(prepare_runs(runs), found)
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


def _as_left_out(batch: RunBatch, found: Split) -> RunBatch:
    """The runs with what the calibration would know of them without what was left out: each in the cell of its reach.

    Every deployment here it has seen, so that what an interval of the split is wider by is the run's own.
    """
    cells = [
        (
            replace(r.entry.arch, hidden_size=0) if reach == "model" else r.entry.arch,
            replace(r.entry.cluster.gpu, name="unmeasured") if reach == "gpu" else r.entry.cluster.gpu,
            r.entry.engine,
            {"version": None, "newer": NEWER}.get(reach, r.entry.engine_version),
        )
        for r, reach in zip(batch.runs, found.reach, strict=True)
    ]
    residual = residual_columns(cells)
    phi = run_situation(batch.runs).phi
    for name in TARGETS:
        target = getattr(residual, name)
        known = target.shared_variance(phi) + target.own_variance(phi)
        more = np.maximum(found.columns[f"{name}_log_sd"] ** 2 - known, 0.0)
        residual = replace(residual, **{name: replace(target, noise=target.noise + more)})
    return replace(batch, batch=replace(batch.batch, residual=residual))


def _say(what: str, rows: Sequence[Reliability]) -> None:
    said = "; ".join(f"{r.mean_p:.3f} said, {r.share_true:.3f} true ({r.statements:,})" for r in rows)
    print(f"  {what}: {said}")


def _anatomy(splits: dict[str, Split]) -> None:
    parts: dict[str, Callable[[Run], str]] = {
        "engine": lambda r: r.engine,
        "GPU": lambda r: r.gpu,
        "model": lambda r: r.model,
        "lengths": lambda r: "fixed" if r.same_lengths else "drawn",
        "requests per GPU": lambda r: str(2 ** int(np.log2(max(r.concurrency / r.gpus, 1.0)))),
    }
    print("\nTTFT errors by part, mean / median (runs)")
    for name, split in splits.items():
        measured = np.array([r.ttft_s for r in split.runs])
        error = np.abs(split.columns["ttft_s"] / measured - 1.0)
        for part, key in parts.items():
            keys = np.array([key(r) for r in split.runs])
            said = []
            for value in sorted(set(keys), key=lambda v: (len(v), v)):
                rows = (keys == value) & np.isfinite(measured)
                if rows.any():
                    said.append(f"{value} {error[rows].mean():.1%} / {np.median(error[rows]):.1%} ({rows.sum()})")
            print(f"  {name} left out, by {part}: " + "; ".join(said))


if __name__ == "__main__":
    main()
