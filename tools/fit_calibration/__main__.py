"""`python -m tools.fit_calibration`: rebuild every calibration file from the measurements."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autotune.engines import ENGINES, traits_by_name
from costmodel.calibration.measured_cells import FAR_REACHES, NETWORKS, REACHES, far_name
from costmodel.calibration.residual import COVARIANCE_UNIT, FEATURES, MEAN_UNIT, TARGETS, TRIANGLE, full_covariance
from costmodel.measured.implausible import plausible
from costmodel.measured.runs import Run
from costmodel.measured.runs_csv import read_runs
from costmodel.plan.columns import Floats
from tools.fit_calibration.cross_validation import (
    Widths,
    cross_validate,
    expected_errors,
    log_errors,
    score,
    write_splits,
)
from tools.fit_calibration.kernels import fit_kernels
from tools.fit_calibration.residual import LEVELS, ResidualFit, place_of, query_places
from tools.fit_calibration.serving import ServingFit
from tools.fit_calibration.taught import TaughtScore

SOURCE = "performance data published by NVIDIA with AIConfigurator 0.12 (aiconfigurator-core, Apache-2.0)"
HOST_BOUND = 1.5
EXPERT_BYTES = {
    "moe_bf16": 2.0, "moe_fp8": 1.0, "moe_fp8_block": 1.0, "moe_int4": 0.5, "moe_mxfp4": 0.53125, "moe_nvfp4": 0.5625,
}  # fmt: skip
"""Bytes of a weight by the law of its experts, scales included."""
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
    runs, left_out = plausible(read_runs(options.runs, traits_by_name(), options.models))
    print({reason: len(ids) for reason, ids in left_out.items()}, flush=True)  # noqa: T201  # a development tool
    fit = ServingFit(runs)
    parameters = fit.fit(np.ones(len(runs), dtype=bool))
    errors = log_errors(fit, parameters)
    residuals = {t: _residual(runs, errors[t], t) for t in TARGETS}
    taught = TaughtScore(runs, SEED)
    judged = cross_validate(fit, parameters, residuals, taught)
    widths = Widths(runs, judged)
    if options.splits is not None:
        write_splits(options.splits, runs, judged, widths)
    about = {
        "fitted_on": SOURCE,
        "serving_runs": len(runs),
        "left_out": left_out,
        "cross_validated": {
            name: {t: score(runs, parts, widths, t) for t in TARGETS} for name, parts in judged.items()
        },
        "expected_error": expected_errors(runs, judged, widths),
        "eight_runs_of_a_cell": taught.document(),
    }
    for engine in ENGINES:
        of_engine = {**about, "serving_runs_of_this_engine": sum(r.engine == engine for r in runs)}
        for path in sorted(options.out.glob(f"*-{engine}.json")):
            if not path.stem.startswith("residual"):
                _update(path, {**fit.document(parameters, engine), "about": of_engine})
        document = _residual_document(runs, engine, residuals, widths)
        _write(options.out / f"residual-{engine}.json", {**document, "about": of_engine})


def _residual(runs: tuple[Run, ...], y: Floats, target: str) -> ResidualFit:
    model = ResidualFit(runs, y, {level: of[target] for level, of in LEVELS.items()})
    model.learn(np.flatnonzero(np.isfinite(y)))
    return model


def _residual_document(
    runs: tuple[Run, ...], engine: str, residuals: Mapping[str, ResidualFit], widths: Widths
) -> dict[str, Any]:
    document: dict[str, Any] = {"cells": {}, "features": FEATURES}
    places = query_places(runs, engine)
    for target, model in residuals.items():
        rows = np.flatnonzero(np.isfinite(model.y))
        own, noise = model.own()
        factors = {reach: widths.of(target, reach) for reach in REACHES}
        known = factors["cell"] ** 2
        document[target] = {
            "own_variance": [_round(v * known) for v in own],
            "noise_variance": _round(noise * known),
            "width_factors": {reach: _round(factor) for reach, factor in factors.items()},
        }
        cells = model.cells(rows, places)
        far = {far_name(reach, n): model.far(rows, n) for n in NETWORKS for reach in FAR_REACHES}
        for name, cell in {**cells, **far}.items():
            reach = name.split()[0] if name in far else "gpu" if name.startswith("*") else "cell"
            whole = factors[reach] ** 2
            # what a deployment and a run add is stored once: the rest of a cell's own width goes to its shared part
            rest = (whole - known) * np.array(own)
            rest[0] += (whole - known) * noise
            shared = _shared(np.array(cell[len(FEATURES) :]) * whole, rest)
            values = [*np.array(cell[: len(FEATURES)]) / MEAN_UNIT, *shared / COVARIANCE_UNIT]
            document["cells"].setdefault(name, {})[target] = [round(v) for v in values]
    document["models"] = sorted({place_of(r).model for r in runs})
    return document


def _shared(triangle: Floats, more: Floats) -> Floats:
    """A covariance's lower triangle with more on its diagonal, or less, as far as it stays one."""
    rows, columns = np.array(TRIANGLE).T
    values, vectors = np.linalg.eigh(full_covariance(triangle) + np.diag(more))
    return np.asarray(((vectors * np.maximum(values, 0.0)) @ vectors.T)[rows, columns])


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


def _untuned(laws: Mapping[str, Any]) -> set[str]:
    """Laws of experts in narrower weights that read a weight more slowly than the same engine does in bf16.

    Such tables timed kernels whose best variant nobody had looked for, as servers do at their start: vLLM's warm-up
    says of FlashInfer that it "may be significantly slower" without (docs.vllm.ai, kernel_warmup). On Hopper its FP8
    experts took 2 to 3 times as long as those in bf16, and TensorRT-LLM's of the same CUTLASS kernels half as long.
    """
    read_s = {name: size / laws[name]["hbm_eff"] for name, size in EXPERT_BYTES.items() if name in laws}
    return {name for name, seconds in read_s.items() if seconds > read_s.get("moe_bf16", np.inf)}


def _borrowed(kernels: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Laws that an engine's own tables lack, or that are of untuned kernels, taken from another engine on the same GPUs
    and marked so.
    """
    tuned = {place: {n: law for n, law in laws.items() if n not in _untuned(laws)} for place, laws in kernels.items()}
    out = {}
    for (generation, engine), laws in tuned.items():
        whole = dict(laws)
        for other in ("trtllm", "sglang", "vllm"):
            for name, law in tuned[generation, other].items():
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
