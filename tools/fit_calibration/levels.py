"""`python -m tools.fit_calibration.levels`: what each level of the residuals is worth on runs left out of the fit.

Each level is left out in turn and the variances of the others are learnt anew. Levels are chosen on one half of each
split's folds, every second of them by name beginning with the first; the errors of the other half stand beside, for the
report.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autotune.engines import traits_by_name
from costmodel.calibration.residual import TARGETS
from costmodel.measured.implausible import plausible
from costmodel.measured.runs import Run
from costmodel.measured.runs_csv import read_runs
from costmodel.plan.columns import Floats
from tools.fit_calibration.covariance import Ints
from tools.fit_calibration.cross_validation import log_errors
from tools.fit_calibration.residual import LEVELS, ResidualFit
from tools.fit_calibration.serving import ServingFit
from tools.fit_calibration.splits import splits_of

SPLITS = ("deployment", "model", "gpu", "version", "newest version", "gpu and version")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A fold as the formulas see it that were fitted without it; arrays by target, shape `(num_runs,)`."""

    test: Ints
    train: Ints
    log_error: Mapping[str, Floats]
    formula_s: Mapping[str, Floats]


def main() -> None:
    """Print the errors of the residuals with all levels, and without each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="measured serving runs, CSV")
    parser.add_argument("--models", type=Path, help="folder of config.json files for models outside the catalog")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS)
    options = parser.parse_args()
    runs, _ = plausible(read_runs(options.runs, traits_by_name(), options.models))
    fit = ServingFit(runs)
    parameters = fit.fit(np.ones(len(runs), dtype=bool))
    whole = log_errors(fit, parameters)
    splits = {name: folds for name, folds in splits_of(runs).items() if name in options.splits}
    folds: dict[str, list[LeftOut]] = {}
    for name, parts in splits.items():
        for fold in parts:
            found = fit.fit(fold.train, parameters)
            estimate = fit.predict(found)
            folds.setdefault(name, []).append(
                LeftOut(
                    test=np.flatnonzero(fold.test),
                    train=np.flatnonzero(fold.train),
                    log_error=log_errors(fit, found),
                    formula_s={"tpot": estimate.tpot_s, "ttft": estimate.ttft_s},
                )
            )
    print("target | levels | split | folds chosen on: mean, median | the others: mean, median")  # noqa: T201  # its result
    for target in TARGETS:
        measured = np.array([getattr(r, f"{target}_s") for r in runs])
        used = {level: of[target] for level, of in LEVELS.items() if of[target]}
        _say(target, "formulas alone", _errors(None, folds, target, measured))
        for without in ("", *used):
            levels = {level: of for level, of in used.items() if level != without}
            model = _learnt(runs, whole[target], levels)
            _say(target, f"without {without}" if without else "all", _errors(model, folds, target, measured))


def _learnt(runs: Sequence[Run], y: Floats, levels: Mapping[str, Sequence[int]]) -> ResidualFit:
    model = ResidualFit(runs, y, levels)
    model.learn(np.flatnonzero(np.isfinite(y)))
    return model


def _errors(
    model: ResidualFit | None, folds: Mapping[str, Sequence[LeftOut]], target: str, measured: Floats
) -> dict[str, list[Floats]]:
    """|predicted / measured - 1| of each fold, by split; without a model, of the formulas."""
    out: dict[str, list[Floats]] = {}
    for name, parts in folds.items():
        for part in parts:
            predicted = part.formula_s[target][part.test]
            if model is not None:
                train = part.train[np.isfinite(part.log_error[target][part.train])]
                moved, _ = model.taught_by(part.log_error[target]).predict(train, part.test)
                predicted = predicted * np.exp(moved)
            error = np.abs(predicted / measured[part.test] - 1.0)
            out.setdefault(name, []).append(error[np.isfinite(error)])
    return out


def _say(target: str, levels: str, errors: Mapping[str, Sequence[Floats]]) -> None:
    for name, folds in errors.items():
        halves = (np.concatenate([np.zeros(0), *folds[first::2]]) for first in (0, 1))
        said = " | ".join(f"{half.mean():.1%}, {np.median(half):.1%}" if half.size else "" for half in halves)
        print(f"{target} | {levels} | {name} | {said}", flush=True)  # noqa: T201  # its result


if __name__ == "__main__":
    main()
