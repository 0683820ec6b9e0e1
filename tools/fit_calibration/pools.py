"""`python -m tools.fit_calibration.pools RUNS.csv [--write]`: fit and judge what measured pools say about the formulas.

RUNS.csv is a file of measured disaggregated runs (`costmodel.measured.pool_runs_csv`). Decode steps are fitted at the
sequences that decoded, which Little's law gives; prefill and hand-over on TTFT, where both pools settle. Errors are
stated for deployments, GPUs, models and engines that a fit has not seen; intervals are as wide as those say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from autotune.engines import traits_by_name
from autotune.validation.metrics import errors_of
from autotune.validation.pool_report import slo_pools
from costmodel.calibration.data_files import DATA
from costmodel.calibration.measured_cells import arch_key
from costmodel.disaggregated.closed_loop import settle
from costmodel.disaggregated.decode_pool import DecodePool
from costmodel.disaggregated.pool_calibration import (
    DECODE_FEATURES,
    FILE,
    LATENCIES,
    EngineFit,
    PoolCalibration,
    PoolFactors,
    decode_features,
    experts_compute,
)
from costmodel.disaggregated.pool_point import PoolPoint
from costmodel.disaggregated.prefill_pool import PrefillPool
from costmodel.measured.pool_runs import PoolRun, run_pools, throughput_per_gpu
from costmodel.measured.pool_runs_csv import read_pool_runs
from costmodel.measured.runs import BENCHMARK_WAVES
from costmodel.plan.columns import Floats

SOURCE = (
    "end-to-end measurements published by NVIDIA with AIConfigurator 0.12 (aiconfigurator-core, Apache-2.0), which are "
    "InferenceMAX/InferenceX runs by SemiAnalysis, joined with the launch recipes public beside them "
    "(SemiAnalysisAI/InferenceX, NVIDIA/srt-slurm, ai-dynamo/dynamo; Apache-2.0)"
)
NOT_FITTED = ("router", "wave", "unexplained")
"""Runs whose TTFT is made by what no recipe explains, by the file's own notes; they are judged all the same."""
NOISE, PRIOR = 0.08, 0.2
"""Standard deviation of a run's log decode step, and of each coefficient before any run is seen."""
FAR, ROBUST_ROUNDS = 0.05, 6
"""Log error of a decode step beyond which a run counts less, and how often that is settled anew."""
SOFT = 0.2
SLOWER = 0.4
GRID = 1.25 ** np.arange(46)
"""Sequences per worker at which decode steps are computed; between them they are interpolated."""
PRIORS = {
    "handover_steps": (22.0, 10.0),
    "prefill_log": (0.1, 0.3),
    "prefill_moe_tp": (0.0, 0.3),
    "prefill_attn_dp": (0.1, 0.3),
    "prefill_fp4": (0.0, 0.3),
    "opening_queue": (1.5, 0.5),
}
"""Mean and standard deviation of each figure of prefill and hand-over before any run is seen."""
PRIOR_WEIGHT = 0.3
DIFFERENCE = 1e-3
"""Relative step of derivatives, far above what the bisections of a closed loop leave open."""
FOLDS, SEED = 6, 0
INSIDE = 0.8
Z_INSIDE = 1.2815515655446004
Bools = NDArray[np.bool_]


class _QuickPool:
    """Pools of which a fit asks for latencies alone: everything else stays as it is at full load."""

    def __init__(self, pool: PrefillPool | DecodePool, concurrency: Floats) -> None:
        self.pool, self.batch, self.load, self.link = pool, pool.batch, pool.load, pool.link
        self.factors = pool.factors
        if isinstance(pool, DecodePool):
            self.most = pool.slots(concurrency)
            alone = replace(pool, factors=replace(pool.factors, applies=False))
            layout = pool.batch.layout
            self.point = alone.at(concurrency)
            self.steps = np.stack([alone.at(g * layout.replicas).columns.latency_s for g in GRID])
        else:
            self.point = pool.at(np.full(concurrency.shape, 0.5))

    def slots(self, _: Floats) -> Floats:
        """As `DecodePool.slots`."""
        return self.most

    @property
    def most_per_s(self) -> Floats:
        """As `PrefillPool.most_per_s`."""
        return replace(self.pool, factors=self.factors).most_per_s  # type: ignore[union-attr]

    @property
    def able_per_s(self) -> Floats:
        """As `PrefillPool.able_per_s`."""
        return np.minimum(self.most_per_s, self.links_per_s)

    @property
    def links_per_s(self) -> Floats:
        """As `Pool.links_per_s`."""
        return self.pool.links_per_s

    def at(self, load: Floats) -> PoolPoint:
        """As the pools', of latencies."""
        columns = self.point.columns
        if isinstance(self.pool, PrefillPool):
            latency = replace(self.pool, factors=self.factors).latency_s(load)
            return replace(self.point, columns=replace(columns, latency_s=latency))
        layout = self.batch.layout
        each = np.maximum(load, 1.0) / np.minimum(layout.replicas, np.maximum(load, 1.0))
        place = np.clip(np.log(each) / np.log(GRID[1]), 0.0, len(GRID) - 1.001)
        below, rows = place.astype(int), np.arange(place.size)
        step = self.steps[below, rows] * (1.0 - place + below) + self.steps[below + 1, rows] * (place - below)
        latency = step * self.factors.decode(self.batch, each / layout.attn_dp)
        entry = self.factors.handover_steps * latency + self.pool.start_s
        residence = columns.wire_s + entry + np.maximum(self.load.osl - 1.0, 1.0) * latency
        return replace(self.point, columns=replace(columns, latency_s=latency, entry_s=entry, residence_s=residence))


class PoolFit:
    """Measured runs, prepared for being fitted again and again."""

    def __init__(self, runs: Sequence[PoolRun]) -> None:
        self.runs = runs
        self.ttft, self.tpot = np.array([r.ttft_s for r in runs]), np.array([r.tpot_s for r in runs])
        self.concurrency = np.array([r.concurrency for r in runs])
        self.prefill, self.decode = run_pools(runs)
        self.quick = [_QuickPool(pool, self.concurrency) for pool in (self.prefill, self.decode)]
        outputs = np.maximum(np.array([r.mean_osl for r in runs]) - 1.0, 1.0)
        decoding = self.concurrency * outputs * self.tpot / (self.ttft + outputs * self.tpot)
        alone = replace(self.decode, factors=replace(self.decode.factors, applies=False))
        self.log = np.log(self.tpot / alone.at(decoding).columns.latency_s)
        layout = self.decode.batch.layout
        self.of_engine = [r.prefill.engine.calibration for r in runs]
        self.engines = tuple(sorted(set(self.of_engine)))
        fp8 = np.array([experts_compute(cell) == "fp8" for cell in self.decode.batch.cells])[
            self.decode.batch.cell_index
        ]
        self.phi = np.vstack(
            [
                decode_features(self.decode.batch, decoding / layout.replicas / layout.attn_dp),
                *(has * (np.array(self.of_engine) == e) for has in (np.ones(len(runs)), fp8) for e in self.engines),
            ]
        ).T
        self.names = (
            *("opening_queue", "prefill_log", "prefill_moe_tp"),
            *(f"{f.name} {engine}" for engine in self.engines for f in fields(EngineFit) if f.name in PRIORS),
        )

    def fit(self, chosen: Bools) -> PoolCalibration:
        """Of some runs."""
        decode = self._decode_log(chosen)
        prior = np.array([_prior(name) for name in self.names])
        fitted = chosen & np.array([r.ttft_note not in NOT_FITTED for r in self.runs])

        def misses(values: Floats) -> Floats:
            predicted = self.predict(self._calibration(decode, values, chosen))[0]
            gap = np.log(predicted[fitted] / self.ttft[fitted])
            soft = np.sign(gap) * np.sqrt(2.0 * SOFT**2 * (np.sqrt(1.0 + (gap / SOFT) ** 2) - 1.0))
            return np.concatenate([soft, (values - prior[:, 0]) / prior[:, 1] * PRIOR_WEIGHT * SOFT])

        found = [
            least_squares(misses, start, x_scale=prior[:, 1], diff_step=DIFFERENCE, max_nfev=20)
            for start in self._starts(prior[:, 0])
        ]
        return self._calibration(decode, min(found, key=lambda f: float(f.cost)).x, chosen)

    def _decode_log(self, chosen: Bools) -> Floats:
        """Coefficients of `phi`, drawn towards 0; the loss of a run grows no faster than linearly beyond `FAR`."""
        phi, log, weight = self.phi[chosen], self.log[chosen], np.ones(int(chosen.sum()))
        found = np.zeros(phi.shape[1])
        for _ in range(ROBUST_ROUNDS):
            weighed = phi.T * (weight / NOISE**2)
            found = np.linalg.solve(weighed @ phi + np.eye(phi.shape[1]) / PRIOR**2, weighed @ log)
            weight = 1.0 / np.maximum(np.abs(log - phi @ found) / FAR, 1.0)
        return found

    def _starts(self, prior: Floats) -> list[Floats]:
        """Where a fit begins: whether a pool is saturated divides the errors into valleys."""
        starts = [prior]
        for engine in self.engines:
            start = prior.copy()
            start[self.names.index(f"prefill_fp4 {engine}")] += SLOWER
            starts.append(start)
        return starts

    def _calibration(self, decode: Floats, values: Floats, chosen: Bools) -> PoolCalibration:
        at = dict(zip(self.names, values.tolist(), strict=True))
        shared = len(DECODE_FEATURES)
        names = [f"{name} {e}" for name in ("decode", "decode_fp8") for e in self.engines]
        at.update(zip(names, decode[shared:].tolist(), strict=True))
        crosses = chosen & (self.phi[:, DECODE_FEATURES.index("crosses_domains")] > 0.0)
        seen = {r.prefill.engine.calibration for r, c in zip(self.runs, chosen, strict=True) if c}
        models = {arch_key(r.prefill.arch) for r, c in zip(self.runs, chosen, strict=True) if c}
        engines = {
            e: EngineFit(**{f.name: at[f"{f.name} {e}"] for f in fields(EngineFit)}) for e in self.engines if e in seen
        }
        other = EngineFit(
            **{f.name: float(np.mean([getattr(e, f.name) for e in engines.values()])) for f in fields(EngineFit)}
        )
        return PoolCalibration(
            decode_log=decode[:shared],
            crossing_engines=tuple(sorted({e for e, c in zip(self.of_engine, crosses, strict=True) if c})),
            prefill_log=at["prefill_log"],
            prefill_moe_tp=at["prefill_moe_tp"],
            opening_queue=at["opening_queue"],
            engines={**engines, "other": other},
            log_sd=dict.fromkeys(LATENCIES, 0.1),
            further_log_sd={},
            measured={"gpu": (), "model": tuple(sorted(models)), "engine": ()},
        )

    def predict(self, calibration: PoolCalibration) -> tuple[Floats, Floats]:
        """TTFT and TPOT of every run."""
        for quick, pool in zip(self.quick, (self.prefill, self.decode), strict=True):
            quick.factors = replace(pool.factors, **PoolFactors.figures(pool.batch, calibration))
        prefill, decode = (cast("Any", quick) for quick in self.quick)
        found = settle(prefill, decode, self.concurrency, waves=BENCHMARK_WAVES).pair
        return found.ttft_s, found.tpot_s

    def left_out(self, key: Callable[[PoolRun], object]) -> tuple[Floats, Floats]:
        """Every run's prediction by a fit on the runs that do not share its `key`."""
        keys = [key(run) for run in self.runs]
        ttft, tpot = np.empty(len(keys)), np.empty(len(keys))
        for one in dict.fromkeys(keys):
            held = np.array([k == one for k in keys])
            first, rest = self.predict(self.fit(~held))
            ttft[held], tpot[held] = first[held], rest[held]
        return ttft, tpot


def _prior(name: str) -> tuple[float, float]:
    return PRIORS[name.partition(" ")[0]]


def folds(runs: Sequence[PoolRun]) -> dict[str, Callable[[PoolRun], object]]:
    """What is left out, by name: deployments in a few folds, and each GPU, model and engine."""
    deployments = list(dict.fromkeys(r.deployment for r in runs))
    random = np.random.default_rng(SEED).permutation(len(deployments))
    fold = {deployment: int(place) % FOLDS for deployment, place in zip(deployments, random, strict=True)}
    return {
        "deployment": lambda r: fold[r.deployment],
        "gpu": lambda r: r.gpu,
        "model": lambda r: r.model,
        "engine": lambda r: r.engine,
    }


def main() -> None:
    """Print errors out of sample, and write the data file where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--write", action="store_true", help=f"write costmodel/calibration/data/{FILE}")
    given = parser.parse_args()
    runs = read_pool_runs(given.runs, traits_by_name())
    fit = PoolFit(runs)
    everything = fit.fit(np.ones(len(runs), dtype=bool))
    spread: dict[str, dict[str, float]] = {}
    for name, key in folds(runs).items():
        ttft, tpot = fit.left_out(key)
        spread[name] = _judge(fit, name, ttft, tpot, [key(run) for run in runs])
    _judge(fit, "nothing", *fit.predict(everything), [0] * len(runs))
    if given.write:
        path = Path(str(DATA / FILE))
        path.write_text(json.dumps(_document(runs, everything, spread), indent=1) + "\n", encoding="utf-8")
        _say(path)


def _say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _judge(fit: PoolFit, left_out: str, ttft: Floats, tpot: Floats, keys: Sequence[object]) -> dict[str, float]:
    """Print one split's errors; the width of a fold's intervals is that of the other folds, `keys` telling them apart.

    Returns the spread of the logs by latency, such that `INSIDE` of all runs lie in the 80 % interval.
    """
    pairs = {
        "ttft": (ttft, fit.ttft),
        "tpot": (tpot, fit.tpot),
        "throughput": (
            throughput_per_gpu(fit.runs, ttft, tpot),
            throughput_per_gpu(fit.runs, fit.ttft, fit.tpot),
        ),
    }
    _say(f"{left_out} left out")
    spread = {}
    for name, (predicted, measured) in pairs.items():
        far = np.abs(np.log(predicted / measured))
        spread[name] = _log_sd(far)
        e = errors_of(predicted, _widths(far, keys), measured)
        if e is not None:
            _say(
                f"  {name}: {e.mape:.1%} mean, {e.median:.1%} median, {e.bias:+.1%} bias; log sd {spread[name]:.3f}, "
                f"{e.inside_p10_p90:.0%} inside"
            )
    regret = slo_pools(fit.runs, ttft_s=ttft, tpot_s=tpot, tpot_log_sd=np.full(tpot.shape, spread["tpot"]))
    for name, score in regret.items():
        _say(f"  {name}: regret {score.strict_regret:.1%} strict, {score.lenient_regret:.1%} lenient")
    return spread


def _log_sd(far: Floats) -> float:
    """Standard deviation of logs that lie so far off, such that `INSIDE` of them are within the 80 % interval."""
    return float(np.quantile(far, INSIDE)) / Z_INSIDE


def _widths(far: Floats, keys: Sequence[object]) -> Floats:
    """Of each run what the runs of other folds give; of a single fold its own."""
    folds_ = np.array([str(key) for key in keys])
    several = len(set(folds_)) > 1
    return np.array([_log_sd(far[folds_ != one] if several else far) for one in folds_])


def _document(runs: Sequence[PoolRun], found: PoolCalibration, spread: dict[str, dict[str, float]]) -> dict[str, Any]:
    base = spread["deployment"]
    further = {
        reach: {name: round(max(spread[reach][name] ** 2 - base[name] ** 2, 0.0) ** 0.5, 4) for name in LATENCIES}
        for reach in ("gpu", "model", "engine")
    }
    return {
        "about": {"source": SOURCE, "runs": len(runs), "deployments": len({r.deployment for r in runs})},
        "decode_log": _rounded(dict(zip(DECODE_FEATURES, found.decode_log.tolist(), strict=True))),
        "crossing_engines": list(found.crossing_engines),
        "prefill_log": round(found.prefill_log, 4),
        "prefill_moe_tp": round(found.prefill_moe_tp, 4),
        "opening_queue": round(found.opening_queue, 4),
        "engines": {name: _rounded(asdict(e)) for name, e in found.engines.items()},
        "log_sd": _rounded(base),
        "further_log_sd": further,
        "measured": {
            "gpu": sorted({r.prefill.cluster.gpu.name for r in runs}),
            "model": sorted({arch_key(r.prefill.arch) for r in runs}),
            "engine": sorted({r.engine for r in runs}),
        },
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


if __name__ == "__main__":
    main()
