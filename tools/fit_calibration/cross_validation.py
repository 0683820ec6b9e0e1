"""How well a fit does on what was left out of it, as the product looks it up, and how wide its intervals must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from costmodel.calibration.measured_cells import REACHES
from costmodel.calibration.residual import TARGETS
from costmodel.estimate.normal import Z90
from costmodel.measured.runs import Run
from costmodel.plan.columns import Floats
from tools.fit_calibration.covariance import Ints
from tools.fit_calibration.residual import ResidualFit
from tools.fit_calibration.serving import Parameters, ServingFit
from tools.fit_calibration.splits import Fold, splits_of
from tools.fit_calibration.taught import TaughtScore

WAITING = 0.1
INSIDE = 0.8
SHOWN_BY = {"cell": "deployment", "gpu": "gpu", "newer": "newest version", "version": "version", "model": "model"}
"""The split whose runs of a reach show the error to expect of it."""
WIDTHS_BY = {
    "cell": ("deployment",),
    "gpu": ("gpu",),
    "newer": ("newest version",),
    "version": ("version", "newest version", "gpu", "gpu and version"),
    "model": ("model", "precision", "source"),
}
"""The splits whose runs of a reach set its width. Where more than a version or a model is new the errors are larger,
and an answer cannot tell: its width is that of all such runs together. Whoever measures a new model measures it in
ways of their own, as another source does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The runs of one fold, predicted without it. Arrays have shape `(num_test,)`."""

    fold: str
    test: Ints
    reach: NDArray[np.str_]
    predicted: Mapping[str, Floats]
    """Seconds by target."""
    log_sd: Mapping[str, Floats]
    """As the variances have it, before any width factor."""


def log_errors(fit: ServingFit, parameters: Parameters) -> dict[str, Floats]:
    """Log(measured / formula). TTFTs that are mostly a wait for KV room teach nothing: residuals leave that alone."""
    e = fit.predict(parameters)
    prompt = e.kv_wait_s < WAITING * e.ttft_s
    ttft = np.where(prompt, fit.ttft, np.nan) / e.ttft_s
    return {"tpot": np.log(fit.tpot / e.tpot_s), "ttft": np.log(ttft)}


def cross_validate(
    fit: ServingFit, parameters: Parameters, residuals: Mapping[str, ResidualFit], taught: TaughtScore
) -> dict[str, tuple[Judged, ...]]:
    """Every fold of every split, formulas and residuals fitted anew without it; only the variances are of all runs."""
    out = {}
    for name, folds in splits_of(fit.runs).items():
        out[name] = tuple(
            _judge(fit, fold, parameters, residuals, taught if name == SHOWN_BY["model"] else None) for fold in folds
        )
        print(name, flush=True)  # noqa: T201  # a long-running development tool
    return out


def _judge(
    fit: ServingFit,
    fold: Fold,
    start: Parameters,
    residuals: Mapping[str, ResidualFit],
    taught: TaughtScore | None,
) -> Judged:
    found = fit.fit(fold.train, start)
    estimate, errors = fit.predict(found), log_errors(fit, found)
    formulas = {"tpot": estimate.tpot_s, "ttft": estimate.ttft_s}
    test = np.flatnonzero(fold.test)
    train = {t: np.flatnonzero(fold.train & np.isfinite(errors[t])) for t in TARGETS}
    without = {t: residuals[t].taught_by(errors[t]) for t in TARGETS}
    predicted, log_sd = {}, {}
    for target in TARGETS:
        moved, variance = without[target].predict(train[target], test)
        predicted[target] = formulas[target][test] * np.exp(moved)
        log_sd[target] = np.sqrt(variance)
    if taught is not None:
        taught.add(test, formulas, {t: (without[t], train[t]) for t in TARGETS})
    reach = without["tpot"].reach(np.flatnonzero(fold.train), test)
    return Judged(fold=fold.name, test=test, reach=reach, predicted=predicted, log_sd=log_sd)


class Widths:
    """Factors on the standard deviations that make intervals hold what they say.

    Errors have longer tails than a normal distribution, and misses are shared by what is new. A factor for each target
    and reach, from the splits that show that reach, brings p10 and p90 to where 80 % lie between them.
    """

    def __init__(self, runs: Sequence[Run], judged: Mapping[str, Sequence[Judged]]) -> None:
        self._far: dict[tuple[str, str], tuple[Ints, Floats]] = {}
        measured = {t: np.array([getattr(r, f"{t}_s") for r in runs]) for t in TARGETS}
        for reach, splits in WIDTHS_BY.items():
            parts = [part for split in splits for part in judged[split]]
            for target in TARGETS:
                rows, far = [], []
                for part in parts:
                    here = part.reach == reach
                    rows.append(part.test[here])
                    error = np.log(measured[target][rows[-1]] / part.predicted[target][here])
                    far.append(np.abs(error) / (Z90 * part.log_sd[target][here]))
                self._far[target, reach] = np.concatenate(rows), np.concatenate(far)

    def of(self, target: str, reach: str, left_out: Ints | None = None) -> float:
        """The factor; without the runs `left_out`, whose own intervals are to be scored."""
        rows, far = self._far[target, reach]
        counted = far if left_out is None else far[~np.isin(rows, left_out)]
        return float(np.nanquantile(counted, INSIDE))


def score(
    runs: Sequence[Run], judged: Sequence[Judged], widths: Widths, target: str, reach: str | None = None
) -> dict[str, float]:
    """Errors and intervals of a split, or of those of its runs that have a reach; a fold's widths come from others."""
    errors, inside, folds = [], [], []
    for part in judged:
        measured = np.array([getattr(runs[i], f"{target}_s") for i in part.test])
        rows = np.isfinite(measured) if reach is None else np.isfinite(measured) & (part.reach == reach)
        if not rows.any():
            continue
        wide = scored_log_sd(part, widths, target)[rows]
        error = np.log(measured[rows] / part.predicted[target][rows])
        errors.append(np.abs(np.exp(-error) - 1.0))
        inside.append(np.abs(error) <= Z90 * wide)
        folds.append(float(errors[-1].mean()))
    every = np.concatenate(errors)
    return {
        "runs": every.size,
        "folds": len(folds),
        "mape": _round(float(every.mean())),
        "median": _round(float(np.median(every))),
        "mape_over_folds": _round(float(np.mean(folds))),
        "mape_worst_fold": _round(max(folds)),
        "inside_p10_p90": _round(float(np.concatenate(inside).mean())),
    }


def scored_log_sd(part: Judged, widths: Widths, target: str) -> Floats:
    """Standard deviations with the factors that other folds give, shape `(num_test,)`."""
    factors = {reach: widths.of(target, reach, part.test) for reach in np.unique(part.reach)}
    return part.log_sd[target] * np.array([factors[reach] for reach in part.reach])


def write_splits(path: Path, runs: Sequence[Run], judged: Mapping[str, Sequence[Judged]], widths: Widths) -> None:
    """Every prediction of every split as a row of a CSV."""
    lines = ["split,fold,id,reach,ttft_s,tpot_s,ttft_log_sd,tpot_log_sd"]
    for name, parts in judged.items():
        for part in parts:
            wide = {t: scored_log_sd(part, widths, t) for t in TARGETS}
            for i, row in enumerate(part.test):
                seconds = ",".join(f"{part.predicted[t][i]:.6g}" for t in ("ttft", "tpot"))
                spread = ",".join(f"{wide[t][i]:.4g}" for t in ("ttft", "tpot"))
                lines.append(f"{name},{part.fold},{runs[row].id},{part.reach[i]},{seconds},{spread}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def expected_errors(
    runs: Sequence[Run], judged: Mapping[str, Sequence[Judged]], widths: Widths
) -> dict[str, dict[str, float]]:
    """By reach, the fields of `costmodel.calibration.residual.ExpectedError`."""
    out: dict[str, dict[str, float]] = {}
    for reach in REACHES:
        out[reach] = {}
        for target in TARGETS:
            found = score(runs, judged[SHOWN_BY[reach]], widths, target, reach)
            out[reach] |= {
                f"{target}_mean": found["mape"],
                f"{target}_median": found["median"],
                f"inside_p10_p90_{target}": found["inside_p10_p90"],
            }
    return out


def _round(value: float) -> float:
    return float(f"{value:.4g}")
