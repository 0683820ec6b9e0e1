"""`python -m tools.fit_calibration`: rebuild every calibration file from the measurements."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.engines import ENGINES, traits_by_name
from costmodel.calibration.residual import COVARIANCE_UNIT, FEATURES, MEAN_UNIT, TARGETS, TRIANGLE, full_covariance
from costmodel.estimate.normal import Z90
from costmodel.measured.runs import Run
from costmodel.measured.runs_csv import read_runs
from costmodel.plan.columns import Floats
from tools.fit_calibration.kernels import fit_kernels
from tools.fit_calibration.residual import ResidualFit, place_of, query_places
from tools.fit_calibration.serving import ServingFit
from tools.fit_calibration.taught import TaughtScore

SOURCE = "performance data published by NVIDIA with AIConfigurator 0.12 (aiconfigurator-core, Apache-2.0)"
FOLDS = 10
WAITING = 0.1
HOST_BOUND = 1.5
INSIDE = 0.8
REACH = {"deployment": "measured", "model": "unmeasured_model", "gpu": "unmeasured_gpu"}
"""What each split says of the calibration's reach: intervals have a width factor for each."""
SEED = 7


def main() -> None:
    """Fit kernels, end-to-end parameters and residuals, and state how well they do on what was left out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, help="folder of the kernel tables (*.csv.gz); omitted: keep the kernels")
    parser.add_argument("--runs", type=Path, required=True, help="measured serving runs, CSV")
    parser.add_argument("--models", type=Path, help="folder of config.json files for models outside the catalog")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "costmodel" / "calibration" / "data")
    parser.add_argument("--splits", type=Path, help="also write each run's out-of-sample prediction here, CSV")
    options = parser.parse_args()
    if options.tables is not None:
        for (generation, engine), laws in _borrowed(_launches(fit_kernels(options.tables))).items():
            _update(options.out / f"{generation}-{engine}.json", {"kernels": laws})
    runs = read_runs(options.runs, traits_by_name(), options.models)
    fit = ServingFit(runs)
    everything = np.ones(len(runs), dtype=bool)
    parameters = fit.fit(everything)
    errors = _errors(fit, parameters)
    residuals = {t: _residual(runs, errors[t], products=t == "tpot") for t in TARGETS}
    taught = TaughtScore(runs, SEED)
    scores, widths = _cross_validate(fit, parameters, residuals, taught, options.splits)
    for path in sorted(options.out.glob("*-*.json")):
        generation, engine = path.stem.split("-")
        if generation != "residual":
            part = fit.document(parameters, engine)
            _update(
                path, {**part, "about": {**_about(runs, engine, scores), "eight_runs_of_a_cell": taught.document()}}
            )
    places = query_places(runs)
    for engine in ENGINES:
        _write(
            options.out / f"residual-{engine}.json", _residual_document(runs, engine, residuals, places, scores, widths)
        )


def _errors(fit: ServingFit, x: Floats) -> dict[str, Floats]:
    """Log(measured / formula). TTFTs that are mostly a wait for KV room teach nothing: residuals leave that alone."""
    e = fit.predict(x)
    prompt = e.kv_wait_s < WAITING * e.ttft_s
    ttft = np.where(prompt, fit.ttft, np.nan) / e.ttft_s
    return {"tpot": np.log(fit.tpot / e.tpot_s), "ttft": np.log(ttft)}


def _residual(runs: tuple[Run, ...], y: Floats, *, products: bool) -> ResidualFit:
    model = ResidualFit(runs, y, products=products)
    model.learn(np.flatnonzero(np.isfinite(y)))
    return model


def _splits(runs: tuple[Run, ...]) -> dict[str, NDArray[np.int64]]:
    """Fold of each run: whole deployments in ten folds, each model, each GPU."""
    places = [place_of(r) for r in runs]
    deployments = [(p.engine, p.gpu, p.model, p.precision, p.version, p.layout) for p in places]
    order = sorted(set(deployments))
    folds = dict(zip(order, np.random.default_rng(SEED).permutation(len(order)) % FOLDS, strict=True))
    models, gpus = sorted({p.model for p in places}), sorted({p.gpu for p in places})
    return {
        "deployment": np.array([folds[d] for d in deployments]),
        "model": np.array([models.index(p.model) for p in places]),
        "gpu": np.array([gpus.index(p.gpu) for p in places]),
    }


def _cross_validate(
    fit: ServingFit,
    parameters: Floats,
    residuals: Mapping[str, ResidualFit],
    taught: TaughtScore,
    out: Path | None,
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, dict[str, float]]]:
    """Everything but the residuals' variances fitted anew without each fold; errors on the fold.

    Errors have longer tails than a normal distribution, so that its p10 and p90 lie too far out. One factor per
    target and reach brings them in, so that the intervals hold 80 %; they are given too. The intervals that are scored
    have the factor that a split's other folds give.
    """
    scores: dict[str, dict[str, dict[str, float]]] = {}
    widths: dict[str, dict[str, float]] = {t: {} for t in TARGETS}
    lines = ["split,id,ttft_s,tpot_s,ttft_log_sd,tpot_log_sd"]
    for name, fold in _splits(fit.runs).items():
        mean = {t: np.full(len(fit.runs), np.nan) for t in TARGETS}
        spread = {t: np.full(len(fit.runs), np.nan) for t in TARGETS}
        for number in np.unique(fold):
            test = np.flatnonzero(fold == number)
            x = fit.fit(fold != number, parameters)
            estimate = fit.predict(x)
            errors = _errors(fit, x)
            formulas = {"tpot": estimate.tpot_s, "ttft": estimate.ttft_s}
            train = {t: np.flatnonzero((fold != number) & np.isfinite(errors[t])) for t in TARGETS}
            kept = {t: residuals[t].y for t in TARGETS}
            for target, formula in formulas.items():
                residuals[target].y = errors[target]
                moved, variance = residuals[target].predict(train[target], test)
                mean[target][test] = formula[test] * np.exp(moved)
                spread[target][test] = np.sqrt(variance)
            if name == "model":
                taught.add(test, train, formulas, residuals)
            for target in TARGETS:
                residuals[target].y = kept[target]
        for target in TARGETS:
            measured = getattr(fit, target)
            far = np.abs(np.log(measured / mean[target])) / (Z90 * spread[target])
            widths[target][REACH[name]] = _round(float(np.nanquantile(far, INSIDE)))
            for number in np.unique(fold):
                spread[target][fold == number] *= np.nanquantile(far[fold != number], INSIDE)
        scores[name] = {t: _score(mean[t], spread[t], getattr(fit, t)) for t in TARGETS}
        print(name, scores[name], widths, flush=True)  # noqa: T201  # a long-running development tool
        lines += [
            f"{name},{r.id},{mean['ttft'][i]:.6g},{mean['tpot'][i]:.6g},{spread['ttft'][i]:.4g},{spread['tpot'][i]:.4g}"
            for i, r in enumerate(fit.runs)
        ]
    if out is not None:
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return scores, widths


def _score(predicted: Floats, log_sd: Floats, measured: Floats) -> dict[str, float]:
    known = np.isfinite(measured)
    error = np.abs(predicted[known] / measured[known] - 1.0)
    inside = np.abs(np.log(measured[known] / predicted[known])) <= Z90 * log_sd[known]
    return {
        "mape": _round(float(error.mean())),
        "median": _round(float(np.median(error))),
        "inside_p10_p90": _round(float(inside.mean())),
    }


def _residual_document(
    runs: tuple[Run, ...],
    engine: str,
    residuals: Mapping[str, ResidualFit],
    places: Mapping[str, Any],
    scores: Mapping[str, Any],
    widths: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    document: dict[str, Any] = {"about": _about(runs, engine, scores), "cells": {}, "features": FEATURES}
    prefix = f"{engine}:"
    for target, model in residuals.items():
        rows = np.flatnonzero(np.isfinite(model.y))
        own, noise = model.own()
        known = widths[target]["measured"] ** 2
        document[target] = {
            "own_variance": [_round(v * known) for v in own],
            "noise_variance": _round(noise * known),
            "width_factors": widths[target],
        }
        for name, cell in model.cells(engine, rows, dict(places)).items():
            place = places[name]
            reach = [REACH[level] for level in ("model", "gpu") if getattr(place, level) == "?"] or ["measured"]
            whole = max(widths[target][r] for r in reach) ** 2
            # what a deployment and a run add is stored once: the rest of a cell's own width goes to its shared part
            rest = (whole - known) * np.array(own)
            rest[0] += (whole - known) * noise
            shared = _shared(np.array(cell[len(FEATURES) :]) * whole, rest)
            values = [*np.array(cell[: len(FEATURES)]) / MEAN_UNIT, *shared / COVARIANCE_UNIT]
            document["cells"].setdefault(name.removeprefix(prefix), {})[target] = [round(v) for v in values]
    seen = [place_of(r) for r in runs]
    document["gpus"] = sorted({p.gpu for p in seen})
    document["models"] = sorted({p.model for p in seen})
    document["versions"] = sorted({p.version for p in seen if p.engine == engine and p.version})
    return document


def _shared(triangle: Floats, more: Floats) -> Floats:
    """A covariance's lower triangle with more on its diagonal, or less, as far as it stays one."""
    rows, columns = np.array(TRIANGLE).T
    values, vectors = np.linalg.eigh(full_covariance(triangle) + np.diag(more))
    return np.asarray(((vectors * np.maximum(values, 0.0)) @ vectors.T)[rows, columns])


def _about(runs: tuple[Run, ...], engine: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "fitted_on": SOURCE,
        "serving_runs": len(runs),
        "serving_runs_of_this_engine": sum(r.engine == engine for r in runs),
        "cross_validated": scores,
    }


def _launches(kernels: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """GEMMs that start far later than other engines' on the same GPUs: their tables timed the host, not the kernel.

    Inside a CUDA graph the host is out of the way, so that such a law takes the start time of the quickest engine.
    """
    least: dict[tuple[str, str], float] = {}
    for (generation, _), laws in kernels.items():
        for name, law in laws.items():
            if name.startswith(("gemm_", "moe_")):
                key = (generation, name)
                least[key] = min(law["t0_s"], least.get(key, law["t0_s"]))
    return {
        (generation, engine): {
            name: {**law, "t0_s": least[generation, name], "t0_s_of_table": law["t0_s"]}
            if law.get("t0_s", 0.0) > HOST_BOUND * least.get((generation, name), np.inf)
            else law
            for name, law in laws.items()
        }
        for (generation, engine), laws in kernels.items()
    }


def _borrowed(kernels: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Laws that an engine's own tables lack, taken from another engine on the same GPUs and marked so."""
    out = {}
    for (generation, engine), laws in kernels.items():
        whole = dict(laws)
        for other in ("trtllm", "sglang", "vllm"):
            for name, law in kernels[generation, other].items():
                whole.setdefault(name, {**law, "borrowed_from": other})
        out[generation, engine] = whole
    return out


def _update(path: Path, part: Mapping[str, Any]) -> None:
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    _write(path, {**old, **part})


def _write(path: Path, document: Mapping[str, Any]) -> None:
    encode: Callable[[Any], str] = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
    cells = document.get("cells")
    head = {k: v for k, v in document.items() if k != "cells"}
    text = json.dumps(head, indent=1, sort_keys=True)
    if cells is not None:
        rows = ",\n".join(f'  "{name}": {encode(cells[name])}' for name in sorted(cells))
        text = text[:-2] + f',\n "cells": {{\n{rows}\n }}\n}}'
    path.write_text(text + "\n", encoding="utf-8")


def _round(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
