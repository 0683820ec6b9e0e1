"""The random-effects model of what the formulas miss: variances by marginal likelihood, posteriors by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from autotune.engines import ENGINES
from costmodel.calibration.data_files import BORROWED_FROM
from costmodel.calibration.residual import (
    FEATURES,
    LINEAR,
    TRIANGLE,
    arch_key,
    cell_name,
    precision_key,
)
from costmodel.measured.learn_profile import run_situation
from costmodel.measured.runs import Run
from costmodel.plan.columns import Floats

Ints = NDArray[np.int64]
Key = tuple[str, ...]

SHARED_LEVELS = (
    "engine",
    "engine generation",
    "engine gpu",
    "engine version",
    "model",
    "model precision generation",
    "engine model",
    "engine model gpu precision",
    "engine model gpu precision version",
)
OWN_LEVELS = ("deployment", "deployment workload")
WORKLOAD_FEATURES = 2
"""One deployment under one pair of lengths differs from its others in level and in growth with load only."""
PRODUCT_LEVELS = ("engine model gpu precision", "deployment")
"""Levels whose functions have products of features too: what they say of one cell misleads in another."""
START_SD, START_SLOPE_SD = 0.05, 0.02
PRIOR_LOG_SD = 2.0
LOG_SD_BOUNDS = (float(np.log(1e-4)), float(np.log(0.7)))
LOG_NOISE_BOUNDS = (float(np.log(0.01)), float(np.log(0.7)))
"""Outside of what the runs show; beyond them rounding leaves covariances indefinite in a line search."""
ITERATIONS = 40
ROBUST_ROUNDS = 3
OUTLIER = 2.5
JITTER = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run or a query belongs; `""` for what is not known."""

    engine: str
    generation: str
    gpu: str
    version: str
    model: str
    precision: str
    layout: str = ""
    workload: str = ""


def place_of(run: Run) -> Place:
    """Keys of a measured run."""
    entry = run.entry
    plan = entry.layout
    return Place(
        engine=run.engine,
        generation=BORROWED_FROM[entry.cluster.gpu.generation],
        gpu=entry.cluster.gpu.name,
        version=run.engine_version,
        model=arch_key(entry.arch),
        precision=precision_key(entry.arch),
        layout=f"{plan.replicas}.{plan.pp}.{plan.attn_tp}.{plan.attn_dp}.{plan.moe_tp}.{plan.moe_ep}",
        workload=f"{run.isl:g}.{run.osl:g}",
    )


def level_key(level: str, p: Place) -> Key | None:
    """What two places must share to share a level's function; None where it is not known."""
    cell = (p.engine, p.model, p.gpu, p.precision)
    keys: dict[str, Key] = {
        "engine": (p.engine,),
        "engine generation": (p.engine, p.generation),
        "engine gpu": (p.engine, p.gpu),
        "engine version": (p.engine, p.version or "unnamed"),
        "model": (p.model,),
        "model precision generation": (p.model, p.precision, p.generation),
        "engine model": (p.engine, p.model),
        "engine model gpu precision": cell,
        "engine model gpu precision version": (*cell, p.version or "unnamed"),
        "deployment": (*cell, p.version, p.layout),
        "deployment workload": (*cell, p.version, p.layout, p.workload),
    }
    key = keys[level]
    return None if "?" in key else key


def _width(level: str, products: bool) -> int:
    """How many of the features a level's function has."""
    if level == "deployment workload":
        return WORKLOAD_FEATURES
    return len(FEATURES if products and level in PRODUCT_LEVELS else LINEAR)


def _codes(keys: Sequence[Key | None], known: dict[Key, int]) -> Ints:
    return np.array([-1 if k is None else known.setdefault(k, len(known)) for k in keys], dtype=np.int64)


class ResidualFit:
    """The model of one target over a set of runs."""

    def __init__(self, runs: Sequence[Run], y: Floats, *, products: bool) -> None:
        self.phi = np.ascontiguousarray(run_situation(runs).phi.T)
        self.places = [place_of(r) for r in runs]
        self.y = y
        self.index: dict[str, dict[Key, int]] = {level: {} for level in (*SHARED_LEVELS, *OWN_LEVELS)}
        self.codes = {
            level: _codes([level_key(level, p) for p in self.places], known) for level, known in self.index.items()
        }
        self.terms = [(level, f) for level in (*SHARED_LEVELS, *OWN_LEVELS) for f in range(_width(level, products))]
        self.start = np.log([START_SD if f == 0 else START_SLOPE_SD for _, f in self.terms] + [START_SD])
        self.log_sd = self.start.copy()
        self.inflation = np.ones(len(runs))

    def _kernel(self, term: tuple[str, int], a: Ints, b: Ints) -> Floats:
        level, f = term
        same = self.codes[level][a][:, None] == self.codes[level][b][None, :]
        return same * (self.phi[a, f][:, None] * self.phi[b, f][None, :])

    def learn(self, rows: Ints) -> None:
        """Variances by marginal likelihood; runs far from what their neighbours say count less."""
        kernels = np.stack([self._kernel(t, rows, rows) for t in self.terms]).astype(np.float32)
        y = self.y[rows]
        for _ in range(ROBUST_ROUNDS):
            self.log_sd = self._maximise(kernels, y, self.inflation[rows])
            variances = np.exp(2.0 * self.log_sd)
            k = np.tensordot(variances[:-1], kernels, 1).astype(np.float64)
            k[np.diag_indices_from(k)] += variances[-1] * self.inflation[rows] + JITTER
            inverse = np.linalg.inv(k)
            left_out = (inverse @ y) / np.diag(inverse)
            scale = 1.4826 * np.median(np.abs(left_out))
            self.inflation[rows] = np.maximum(1.0, (np.abs(left_out) / (OUTLIER * scale)) ** 2)

    def _maximise(self, kernels: NDArray[np.float32], y: Floats, inflation: Floats) -> Floats:
        count = len(self.terms)

        def cost(x: Floats) -> tuple[float, Floats]:
            variances = np.exp(2.0 * x)
            k = np.tensordot(variances[:count], kernels, 1).astype(np.float64)
            k[np.diag_indices_from(k)] += variances[count] * inflation + JITTER
            lower = np.linalg.cholesky(k)
            half = np.linalg.inv(lower)
            inverse = half.T @ half
            a = inverse @ y
            value = 0.5 * float(y @ a) + float(np.log(np.diag(lower)).sum())
            gap = (inverse - np.outer(a, a)).astype(np.float32)
            slopes = [float(np.vdot(gap, kernels[i])) for i in range(count)]
            gradient = np.array([*slopes, float(np.diag(gap) @ inflation)]) * variances
            away = (x - self.start) / PRIOR_LOG_SD
            return value + 0.5 * float(away @ away), gradient + away / PRIOR_LOG_SD

        bounds = [*[LOG_SD_BOUNDS] * count, LOG_NOISE_BOUNDS]
        found = minimize(cost, self.log_sd, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS})
        return np.asarray(found.x)

    def _solver(self, rows: Ints) -> tuple[Any, Floats]:
        variances = np.exp(2.0 * self.log_sd)
        k = sum(v * self._kernel(t, rows, rows) for v, t in zip(variances, self.terms, strict=False))
        k = np.asarray(k)
        k[np.diag_indices_from(k)] += variances[-1] * self.inflation[rows] + JITTER
        factor = cho_factor(k)
        return factor, cho_solve(factor, self.y[rows])

    def predict(self, train: Ints, test: Ints) -> tuple[Floats, Floats]:
        """Mean and variance of a new run of each place of `test`, from the runs of `train`."""
        factor, weights = self._solver(train)
        variances = np.exp(2.0 * self.log_sd)
        cross = np.asarray(sum(v * self._kernel(t, test, train) for v, t in zip(variances, self.terms, strict=False)))
        prior = sum(v * self.phi[test, f] ** 2 for v, (_, f) in zip(variances, self.terms, strict=False))
        explained = np.einsum("ij,ji->i", cross, cho_solve(factor, cross.T))
        # of a model that was never measured, the other levels' means were found to mislead: the formulas alone
        known = np.isin(self.codes["model"][test], self.codes["model"][train])
        return (cross @ weights) * known, np.asarray(prior) - explained + variances[-1]

    def cells(self, engine: str, rows: Ints, places: dict[str, Place]) -> dict[str, list[float]]:
        """Posterior of the shared levels' sum for each place: means, then the lower triangle of the covariance."""
        factor, weights = self._solver(rows)
        variances = np.exp(2.0 * self.log_sd)
        width = len(FEATURES)
        shared = [(v, t) for v, t in zip(variances, self.terms, strict=False) if t[0] in SHARED_LEVELS]
        prior = np.zeros(width)
        for v, (_, f) in shared:
            prior[f] += v
        names = [n for n, p in places.items() if p.engine == engine]
        cross = np.zeros((len(names) * width, rows.size))
        for i, name in enumerate(names):
            for v, (level, f) in shared:
                key = level_key(level, places[name])
                code = self.index[level].get(key, -2) if key is not None else -2
                cross[i * width + f] += v * (self.codes[level][rows] == code) * self.phi[rows, f]
        means = cross @ weights
        solved = cho_solve(factor, cross.T)
        out = {}
        for i, name in enumerate(names):
            part = slice(i * width, (i + 1) * width)
            covariance = np.diag(prior) - cross[part] @ solved[:, part]
            triangle = [float(covariance[a, b]) for a, b in TRIANGLE]
            known = places[name].model != "?"
            out[name] = [_round(float(m)) if known else 0.0 for m in means[part]] + [_round(c) for c in triangle]
        return out

    def own(self) -> tuple[list[float], float]:
        """Variance per feature that an unseen deployment adds, and of a single run."""
        variances = np.exp(2.0 * self.log_sd)
        own = np.zeros(len(FEATURES))
        for v, (level, f) in zip(variances, self.terms, strict=False):
            if level in OWN_LEVELS:
                own[f] += v
        return [_round(float(v)) for v in own], _round(float(variances[-1]))


def query_places(runs: Sequence[Run]) -> dict[str, Place]:
    """Every cell that the files answer for: known or unknown GPU, model, precision and version of each engine."""
    seen = [place_of(r) for r in runs]
    gpus = {p.gpu: p.generation for p in seen} | {f"*{g}": g for g in {p.generation for p in seen}}
    models = [*sorted({p.model for p in seen}), "*"]
    out = {}
    for engine in ENGINES:
        versions = [*sorted({p.version for p in seen if p.engine == engine and p.version}), "*"]
        for gpu, generation in sorted(gpus.items()):
            for model in models:
                # of an unmeasured model no level tells its precisions apart
                for precision in ("bf16", "fp8", "fp4") if model != "*" else ("*",):
                    for version in versions:
                        name = f"{engine}:{cell_name(gpu, model, precision, version)}"
                        out[name] = Place(
                            engine=engine,
                            generation=generation,
                            gpu="?" if gpu.startswith("*") else gpu,
                            version="unnamed" if version == "*" else version,
                            model="?" if model == "*" else model,
                            precision=precision,
                        )
    return out


def _round(value: float) -> float:
    return float(f"{value:.4g}")
