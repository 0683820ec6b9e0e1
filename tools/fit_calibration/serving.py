"""End-to-end parameters of the engines, fitted on measured serving runs.

Each parameter is a shared value times an engine's factor times, for a few, a version's factor; log factors are
drawn towards 0, the engine-neutral value. Robust loss on log error of TPOT and TTFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from autotune.engines import ENGINES as REGISTERED
from costmodel.calibration.load import (
    FACTORS,
    SMALL_KERNELS,
    cell_columns,
    engine_facts,
    load_calibration,
    small_kernels_s,
)
from costmodel.engine import EngineTraits
from costmodel.estimate.result import Estimate
from costmodel.measured.runs import Run, RunBatch, prepare_runs
from costmodel.plan.columns import Floats
from costmodel.step.kernel_rates import Rates
from costmodel.step.pipeline_pass import moe_starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter: where it starts, and how far (log standard deviations) it may move at each level."""

    name: str
    start: float
    shared_sd: float
    engine_sd: float
    version_sd: float = 0.0
    least: float = 0.0
    most: float = np.inf


PARAMETERS = (
    Parameter(name="step_s", start=60e-6, shared_sd=2.0, engine_sd=1.5, version_sd=0.7),
    Parameter(name="sequence_s", start=5.4e-6, shared_sd=1.0, engine_sd=1.0, version_sd=0.5),
    Parameter(name="scheduling_sequence_s", start=30e-6, shared_sd=0.7, engine_sd=0.7, version_sd=0.5),
    Parameter(name="layer_launch_s", start=400e-6, shared_sd=1.0, engine_sd=1.0, version_sd=0.5),
    Parameter(name="frontend_s", start=8e-3, shared_sd=1.0, engine_sd=2.0, version_sd=0.7),
    Parameter(name="token_s", start=3.25e-6, shared_sd=0.5, engine_sd=0.5),
    Parameter(name="moe_start_s", start=400e-6, shared_sd=1.0, engine_sd=1.5),
    Parameter(name="handover_steps", start=1.0, shared_sd=0.3, engine_sd=0.5, version_sd=0.5),
    Parameter(name="together", start=6.0, shared_sd=0.5, engine_sd=1.0, least=1.0),
    Parameter(name="layer_s", start=5e-6, shared_sd=1.0, engine_sd=0.5, version_sd=0.3),
    Parameter(name="qk_norm_s", start=15e-6, shared_sd=0.7, engine_sd=0.3),
    Parameter(name="mla_s", start=12e-6, shared_sd=0.7, engine_sd=0.3),
    Parameter(name="linear_s", start=30e-6, shared_sd=0.7, engine_sd=0.3),
    Parameter(name="gemm", start=1.0, shared_sd=0.1, engine_sd=0.07),
    Parameter(name="attention", start=1.0, shared_sd=0.1, engine_sd=0.07),
    Parameter(name="experts", start=1.0, shared_sd=0.15, engine_sd=0.1, version_sd=0.1),
    Parameter(name="all_reduce", start=1.0, shared_sd=0.2, engine_sd=0.15, version_sd=0.1),
    Parameter(name="math", start=1.0, shared_sd=0.1, engine_sd=0.15, version_sd=0.1),
    Parameter(name="hbm", start=1.0, shared_sd=0.1, engine_sd=0.1, version_sd=0.08),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What a fit finds."""

    log: Floats
    """Log factors of `PARAMETERS`: shared, then by engine, then by version."""
    moe_start_most: Floats
    """`EngineColumns.moe_start_most` of each engine: not fitted, the most among the runs fitted on."""


ENGINES = tuple(REGISTERED)
NAMES = tuple(p.name for p in PARAMETERS)
OF_VERSION = tuple(i for i, p in enumerate(PARAMETERS) if p.version_sd > 0)
STRENGTH = 0.3
"""Weight of the pull towards the neutral value: a standard deviation costs like 0.045 of log error per run.
Of 0.05, 0.3, 1 and 3 the one with the least error on models left out of the fit."""
TTFT_WEIGHT = 0.5
ROBUST = 0.1
STEP = 1e-4
ITERATIONS, ITERATIONS_ON = 25, 8
"""From neutral values, and from those of all runs where some are left out: they settle within six from there."""


class ServingFit:
    """Runs with everything that does not change from one set of parameters to the next."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)
        self.prepared: RunBatch = prepare_runs([replace(r, entry=replace(r.entry, engine_version=None)) for r in runs])
        self.tpot = np.array([r.tpot_s for r in runs])
        self.ttft = np.array([r.ttft_s for r in runs])
        self.engine = np.array([ENGINES.index(r.engine) for r in runs])
        self.versions = sorted({(r.engine, r.engine_version) for r in runs if r.engine_version})
        place = {v: i for i, v in enumerate(self.versions)}
        # a run without a version teaches its engine's typical behaviour
        self.version = np.array([place.get((r.engine, r.engine_version), -1) for r in runs])
        self.neutral = _without_factors(self.prepared)
        self.starts = np.broadcast_to(moe_starts(self.prepared.batch.arch), (len(runs),))
        self.sizes = (len(PARAMETERS), len(ENGINES) * len(PARAMETERS), len(self.versions) * len(OF_VERSION))
        self.spread = np.concatenate(
            [
                [p.shared_sd for p in PARAMETERS],
                np.tile([p.engine_sd for p in PARAMETERS], len(ENGINES)),
                np.tile([PARAMETERS[i].version_sd for i in OF_VERSION], len(self.versions)),
            ]
        )
        self._known: tuple[Parameters, Floats] | None = None
        """Parameters, and `_slopes` there."""

    def _parts(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        shared, engine, version = np.split(x, np.cumsum(self.sizes)[:2])
        return shared, engine.reshape(len(ENGINES), -1), version.reshape(len(self.versions), len(OF_VERSION))

    def values(self, x: Floats) -> dict[str, Floats]:
        """Each parameter for each run, shape `(num_runs,)`."""
        shared, engine, version = self._parts(x)
        log = (shared + engine)[self.engine]
        known = self.version >= 0
        rows = np.flatnonzero(known)
        log[rows[:, None], np.array(OF_VERSION)] += version[self.version[known]]
        return {p.name: np.clip(p.start * np.exp(log[:, i]), p.least, p.most) for i, p in enumerate(PARAMETERS)}

    def predict(self, parameters: Parameters) -> Estimate:
        """The formulas' estimate, without residuals."""
        v = self.values(parameters.log)
        batch = self.neutral.batch
        columns = batch.columns
        rates = columns.rates
        slowed: dict[str, Any] = {
            n: getattr(rates, n).slowed(v["gemm"], v["math"], v["hbm"])
            for n in ("attention", "dense_ffn", "router", "shared_experts", "lm_head")
        }
        slowed |= {
            n: getattr(rates, n).slowed(v["attention"], v["math"], v["hbm"])
            for n in ("prefill", "decode", "mla_prefill", "mla_decode")
        }
        slowed |= {
            "experts": rates.experts.slowed(v["experts"], v["math"], v["hbm"]),
            "small": replace(rates.small, t0_s=small_kernels_s(batch.arch, v)),
        }
        fitted_here = {n: v[n] for n in NAMES if n not in (*FACTORS, *SMALL_KERNELS)}
        engine = replace(columns.engine, **fitted_here, moe_start_most=parameters.moe_start_most[self.engine])
        changed = replace(
            columns,
            rates=Rates(**{**_fields(rates), **slowed}),
            links=columns.links.slowed(v["all_reduce"]),
            engine=engine,
        )
        fitted = replace(self.neutral, batch=replace(batch, columns=changed, residual=None))
        return fitted.evaluate()

    def fit(self, train: NDArray[np.bool_], near: Parameters | None = None) -> Parameters:
        """Parameters from the runs of `train`, looked for from the neutral values; from `near` on where it is given.

        `near` fits all runs, and what fits most of them lies so close that the derivatives there do for every step.
        """
        most = np.array([self.starts[train & (self.engine == e)].max(initial=0.0) for e in range(len(ENGINES))])
        rows = np.concatenate([train, train & np.isfinite(self.ttft)])
        pull = STRENGTH * np.sqrt(train.sum()) * 0.15 / self.spread

        def residuals(x: Floats) -> Floats:
            return np.concatenate([self._errors(Parameters(log=x, moe_start_most=most))[rows], pull * x])

        def jacobian(x: Floats) -> Floats:
            errors = self._slopes(Parameters(log=x, moe_start_most=most)) if near is None else self._slopes_near(near)
            return np.vstack([errors[rows], np.diag(pull)])

        found = least_squares(
            residuals,
            np.zeros(sum(self.sizes)) if near is None else near.log,
            jac=jacobian,
            method="trf",
            x_scale=self.spread,
            max_nfev=ITERATIONS if near is None else ITERATIONS_ON,
        )
        return Parameters(log=np.asarray(found.x), moe_start_most=most)

    def _errors(self, parameters: Parameters) -> Floats:
        """Robust log errors of all TPOTs, then of all TTFTs (0 where a run has none), shape `(2 num_runs,)`."""
        e = self.predict(parameters)
        known = np.isfinite(self.ttft)
        ttft = np.log(np.where(known, e.ttft_s, 1.0) / np.where(known, self.ttft, 1.0))
        return np.concatenate([_robust(np.log(e.tpot_s / self.tpot)), _robust(TTFT_WEIGHT * ttft)])

    def _slopes(self, parameters: Parameters) -> Floats:
        """Derivatives of `_errors`, shape `(2 num_runs, num_logs)`.

        A parameter acts on a run the same way at each level, and a run has one engine and one version: one derivative
        per parameter fills the columns of all levels.
        """
        x, width = parameters.log, len(PARAMETERS)
        base = self._errors(parameters)
        engines, owners = np.tile(self.engine, 2), np.tile(self.version, 2)
        rows, versioned = np.arange(base.size), np.flatnonzero(owners >= 0)
        out = np.zeros((base.size, x.size))
        for i in range(width):
            change = (self._errors(replace(parameters, log=x + STEP * (np.arange(x.size) == i))) - base) / STEP
            out[rows, i] = change
            out[rows, width * (1 + engines) + i] = change
            if i in OF_VERSION:
                columns = sum(self.sizes[:2]) + owners[versioned] * len(OF_VERSION) + OF_VERSION.index(i)
                out[versioned, columns] = change[versioned]
        return out

    def _slopes_near(self, parameters: Parameters) -> Floats:
        if self._known is None or self._known[0] is not parameters:
            self._known = (parameters, self._slopes(parameters))
        return self._known[1]

    def document(self, parameters: Parameters, engine: str) -> dict[str, Any]:
        """Parameters of one engine as the calibration files hold them."""
        shared, by_engine, by_version = self._parts(parameters.log)
        log = shared + by_engine[ENGINES.index(engine)]
        values = {p.name: float(np.clip(p.start * np.exp(log[i]), p.least, p.most)) for i, p in enumerate(PARAMETERS)}
        versions = {}
        for (name, version), row in zip(self.versions, by_version, strict=True):
            if name == engine:
                own = {}
                for place, i in enumerate(OF_VERSION):
                    p = PARAMETERS[i]
                    clipped = np.clip(values[p.name] * np.exp(row[place]), p.least, p.most)
                    own[p.name] = _round(float(clipped / values[p.name]))
                versions[version] = own
        serving = {n: _round(values[n]) for n in NAMES if n not in FACTORS}
        serving["moe_start_most"] = float(parameters.moe_start_most[ENGINES.index(engine)])
        return {"serving": serving, "factors": {n: _round(values[n]) for n in FACTORS}, "versions": versions}


def _without_factors(prepared: RunBatch) -> RunBatch:
    """The batch with kernel laws as the tables have them, whatever calibration is installed."""

    batch = prepared.batch
    calibrations = [
        replace(load_calibration(c.gpu.generation, e), factors=dict.fromkeys(FACTORS, 1.0), serving=_start(e))
        for _, c, e, _ in batch.cells
    ]
    columns = cell_columns(list(batch.cells), calibrations)
    if len(batch.cells) > 1:
        columns = type(columns)(**{n: v.take(batch.cell_index) for n, v in _fields(columns).items()})
    return replace(prepared, batch=replace(batch, columns=columns))


def _start(engine: EngineTraits) -> dict[str, float]:
    values = {p.name: p.start for p in PARAMETERS if p.name not in FACTORS}
    return {**values, **engine_facts(engine), "moe_start_most": np.inf}


def _fields(columns: Any) -> dict[str, Any]:
    return {name: getattr(columns, name) for name in columns.__dataclass_fields__}


def _robust(error: Floats) -> Floats:
    """Signed square root of the pseudo-Huber loss."""
    scaled = error / ROBUST
    return np.asarray(np.sign(error) * ROBUST * np.sqrt(2.0 * (np.sqrt(1.0 + scaled * scaled) - 1.0)))


def _round(value: float) -> float:
    return float(f"{value:.5g}")
