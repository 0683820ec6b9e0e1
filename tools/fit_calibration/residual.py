"""The random-effects model of what the formulas miss: variances by marginal likelihood, posteriors by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import astuple, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from costmodel.calibration.data_files import BORROWED_FROM
from costmodel.calibration.measured_cells import UNRECORDED, Measured, arch_key, cell_name, network_of, precision_key
from costmodel.calibration.residual import FEATURES, LINEAR, TRIANGLE
from costmodel.measured.learn_profile import run_situation
from costmodel.measured.runs import Run
from costmodel.plan.columns import Floats
from tools.fit_calibration.covariance import Covariance, Ints, Inverse, blocks_of, stacked

Key = tuple[str, ...]

ALL, WITHOUT_PRODUCTS = tuple(range(len(FEATURES))), tuple(range(len(LINEAR)))
LEVELS: dict[str, dict[str, tuple[int, ...]]] = {
    "all": {"tpot": ALL, "ttft": ()},
    "network": {"tpot": (), "ttft": WITHOUT_PRODUCTS},
    "engine model precision version": {"tpot": (0, 1), "ttft": ()},
    "engine model precision gpu": {"tpot": ALL, "ttft": ALL},
    "engine model precision gpu version": {"tpot": (), "ttft": (0, 1)},
    "deployment": {"tpot": (0, 1), "ttft": ()},
}
"""Levels, and which of the features their functions have for each target, none where the level is not used. Each earns
its place on runs that were left out of the fit (docs/accuracy-tables.md)."""
OWN_LEVELS = ("deployment",)
FAR_LEVELS = ("all", "network")
"""Of these each target has one at most, the only one that reaches a place of an engine, model and precision that no run
is of. What staggered runs have in common is a function of their own, and reaches none."""
SHARED_LEVELS = tuple(level for level in LEVELS if level not in OWN_LEVELS)
BLOCK_LEVEL = "engine model precision"
"""All levels but the far one are parts of this one."""
KNOWN_LEVEL = "engine model precision version"
"""Where a place has this in common with no run, what was learnt of other places was found to mislead: the formulas with
what all runs have in common."""
START_SD, START_SLOPE_SD = 0.05, 0.02
PRIOR_LOG_SD = 2.0
LOG_SD_BOUNDS = (float(np.log(1e-4)), float(np.log(0.7)))
LOG_NOISE_BOUNDS = (float(np.log(0.01)), float(np.log(0.7)))
"""Outside of what the runs show; beyond them rounding leaves covariances indefinite in a line search."""
ITERATIONS = 40
ROBUST_ROUNDS = 2
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
    network: str = "?"
    """Of `NETWORKS`."""
    staggered: bool = False
    """Measured by a client whose ways the formulas do not know (`Run.staggered`)."""


NOWHERE = Place(engine="?", generation="?", gpu="?", version="?", model="?", precision="?")
"""A place of which nothing was measured."""


def place_of(run: Run) -> Place:
    """Keys of a measured run."""
    entry = run.entry
    plan = entry.layout
    return Place(
        engine=run.engine,
        generation=BORROWED_FROM[entry.cluster.gpu.generation],
        gpu=entry.cluster.gpu.name,
        version=run.engine_version or UNRECORDED,
        model=arch_key(entry.arch),
        precision=precision_key(entry.arch),
        network=network_of(arch_key(entry.arch)),
        layout=f"{plan.replicas}.{plan.pp}.{plan.attn_tp}.{plan.attn_dp}.{plan.moe_tp}.{plan.moe_ep}",
        staggered=run.staggered,
    )


def level_key(level: str, p: Place) -> Key | None:
    """What two places must share to share a level's function; None where it is not known."""
    kind, client = (p.engine, p.model, p.precision), ("staggered",) if p.staggered else ()
    keys: dict[str, Key] = {
        "all": client,
        "network": (p.network, *client),
        "engine model precision": kind,
        "engine model precision version": (*kind, p.version),
        "engine model precision gpu": (*kind, p.gpu),
        "engine model precision gpu version": (*kind, p.gpu, p.version),
        "deployment": (*kind, p.gpu, p.version, p.layout),
    }
    key = keys[level]
    return None if "?" in key else key


def _codes(keys: Sequence[Key | None], known: dict[Key, int]) -> Ints:
    return np.array([-1 if k is None else known.setdefault(k, len(known)) for k in keys], dtype=np.int64)


class ResidualFit:
    """The model of one target over a set of runs."""

    def __init__(self, runs: Sequence[Run], y: Floats, levels: Mapping[str, Sequence[int]]) -> None:
        self.phi = np.ascontiguousarray(run_situation(runs).phi.T)
        self.places = [place_of(r) for r in runs]
        self.y = y
        self.index: dict[str, dict[Key, int]] = {level: {} for level in (BLOCK_LEVEL, *LEVELS)}
        self.codes = {
            level: _codes([level_key(level, p) for p in self.places], known) for level, known in self.index.items()
        }
        self.far_level = next((level for level in FAR_LEVELS if levels.get(level)), FAR_LEVELS[0])
        elsewhere = [level_key(self.far_level, replace(p, staggered=False)) for p in self.places]
        self.codes_elsewhere = _codes(elsewhere, self.index[self.far_level])
        far_first = sorted(levels.items(), key=lambda item: item[0] != self.far_level)
        self.terms = [(level, f) for level, used in far_first for f in used]
        self.start = np.log([START_SD if f == 0 else START_SLOPE_SD for _, f in self.terms] + [START_SD])
        self.log_sd = self.start.copy()
        self.inflation = np.ones(len(runs))

    def _kernel(self, term: tuple[str, int], a: Ints, b: Ints) -> Floats:
        level, f = term
        same = self.codes[level][a][:, None] == self.codes[level][b][None, :]
        return same * (self.phi[a, f][:, None] * self.phi[b, f][None, :])

    def _covariance(self, rows: Ints) -> Covariance:
        blocks = blocks_of(self.codes[BLOCK_LEVEL][rows])
        near = [term for term in self.terms if term[0] != self.far_level]
        return Covariance(
            blocks=blocks,
            kernels=tuple(stacked([self._kernel(t, rows[b], rows[b]) for t in near], len(b)) for b in blocks),
            shared=self._far(self.codes[self.far_level][rows], rows),
        )

    def _far(self, codes: Ints, rows: Ints) -> Floats:
        """Functions of the far level, one after the other, each in a column for every place of that level."""
        features = self.phi[rows][:, [f for level, f in self.terms if level == self.far_level]]
        own = codes[:, None] == np.arange(len(self.index[self.far_level]))
        return (features[:, :, None] * own[:, None, :]).reshape(len(rows), features.shape[1] * own.shape[1])

    def _inverse(self, covariance: Covariance, log_sd: Floats, inflation: Floats) -> Inverse:
        variances = np.exp(2.0 * log_sd)
        far = sum(level == self.far_level for level, _ in self.terms)
        of_shared = np.repeat(variances[:far], len(self.index[self.far_level]))
        return covariance.inverse(variances[far:-1], of_shared, variances[-1] * inflation + JITTER)

    def learn(self, rows: Ints) -> None:
        """Variances by marginal likelihood; runs far from what their neighbours say count less."""
        covariance, y = self._covariance(rows), self.y[rows]
        for _ in range(ROBUST_ROUNDS):
            self.log_sd = self._maximise(covariance, y, self.inflation[rows])
            inverse = self._inverse(covariance, self.log_sd, self.inflation[rows])
            left_out = inverse.times(y) / inverse.diagonal
            scale = 1.4826 * np.median(np.abs(left_out))
            self.inflation[rows] = np.maximum(1.0, (np.abs(left_out) / (OUTLIER * scale)) ** 2)

    def _maximise(self, covariance: Covariance, y: Floats, inflation: Floats) -> Floats:
        def cost(x: Floats) -> tuple[float, Floats]:
            inverse = self._inverse(covariance, x, inflation)
            weights = inverse.times(y)
            of_terms, of_shared = covariance.slopes(inverse, weights)
            of_noise = float((inverse.diagonal - weights**2) @ inflation)
            of_far = of_shared.reshape(-1, len(self.index[self.far_level])).sum(axis=1)
            gradient = np.array([*of_far, *of_terms, of_noise]) * np.exp(2.0 * x)
            away = (x - self.start) / PRIOR_LOG_SD
            value = 0.5 * (float(y @ weights) + inverse.log_determinant + float(away @ away))
            return value, gradient + away / PRIOR_LOG_SD

        bounds = [*[LOG_SD_BOUNDS] * len(self.terms), LOG_NOISE_BOUNDS]
        found = minimize(cost, self.log_sd, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS})
        return np.asarray(found.x)

    def _solver(self, rows: Ints) -> tuple[Inverse, Floats]:
        inverse = self._inverse(self._covariance(rows), self.log_sd, self.inflation[rows])
        return inverse, inverse.times(self.y[rows])

    def taught_by(self, y: Floats) -> ResidualFit:
        """The same model with the errors of other formulas."""
        other = copy(self)
        other.y = y
        return other

    def reach(self, train: Ints, test: Ints) -> NDArray[np.str_]:
        """How far each of `test` lies from the runs of `train` (`REACHES`), as the product looks it up."""
        known = [self.places[i] for i in train]
        models = frozenset(p.model for p in known)
        measured = {
            engine: Measured(
                cells=frozenset((p.gpu, p.model, p.precision, p.version) for p in known if p.engine == engine),
                models=models,
            )
            for engine in {p.engine for p in self.places}
        }
        asked = [self.places[i] for i in test]
        return np.array([measured[p.engine].reach(p.gpu, p.model, p.precision, p.version) for p in asked])

    def knows(self, train: Ints, test: Ints) -> NDArray[np.bool_]:
        """Whether the runs of `train` teach anything of a run's place, shape `(num_test,)`."""
        codes = self.codes[KNOWN_LEVEL]
        return np.isin(codes[test], codes[train])

    def predict(self, train: Ints, test: Ints) -> tuple[Floats, Floats]:
        """Mean and variance of a new run of each place of `test`, from the runs of `train`."""
        inverse, weights = self._solver(train)
        variances = np.exp(2.0 * self.log_sd)
        known, codes = self.knows(train, test), self.codes[self.far_level]
        # whose client a run was measured by no user can say of a place that was not measured
        asked = np.where(known, codes[test], self.codes_elsewhere[test])
        of_far = [v for v, (level, _) in zip(variances, self.terms, strict=False) if level == self.far_level]
        far = np.repeat(of_far, len(self.index[self.far_level]))
        cross = (self._far(asked, test) * far) @ self._far(codes[train], train).T
        for v, term in zip(variances, self.terms, strict=False):
            if term[0] != self.far_level:
                cross += v * self._kernel(term, test, train) * known[:, None]
        prior = np.asarray(sum(v * self.phi[test, f] ** 2 for v, (_, f) in zip(variances, self.terms, strict=False)))
        explained = np.einsum("ij,ji->i", cross, inverse.times(cross.T))
        return cross @ weights, prior - explained + variances[-1]

    def far(self, rows: Ints, network: str) -> list[float]:
        """What `rows` teach of a place that they have no more in common with than its network (`NETWORKS`).

        As an entry of `cells`.
        """
        return self.cells(rows, {"": replace(NOWHERE, network=network)})[""]

    def cells(self, rows: Ints, places: Mapping[str, Place]) -> dict[str, list[float]]:
        """Posterior of the shared levels' sum for each place: means, then the lower triangle of the covariance."""
        inverse, weights = self._solver(rows)
        variances = np.exp(2.0 * self.log_sd)
        width = len(FEATURES)
        shared = [(v, t) for v, t in zip(variances, self.terms, strict=False) if t[0] in SHARED_LEVELS]
        prior = np.zeros(width)
        for v, (_, f) in shared:
            prior[f] += v
        cross = np.zeros((len(places) * width, rows.size))
        for i, place in enumerate(places.values()):
            for v, (level, f) in shared:
                key = level_key(level, place)
                code = self.index[level].get(key, -2) if key is not None else -2
                cross[i * width + f] += v * (self.codes[level][rows] == code) * self.phi[rows, f]
        means = cross @ weights
        solved = inverse.times(cross.T)
        out = {}
        for i, name in enumerate(places):
            part = slice(i * width, (i + 1) * width)
            covariance = np.diag(prior) - cross[part] @ solved[:, part]
            triangle = [float(covariance[a, b]) for a, b in TRIANGLE]
            out[name] = [_round(float(m)) for m in means[part]] + [_round(c) for c in triangle]
        return out

    def own(self) -> tuple[list[float], float]:
        """Variance per feature that an unseen deployment adds, and of a single run."""
        variances = np.exp(2.0 * self.log_sd)
        own = np.zeros(len(FEATURES))
        for v, (level, f) in zip(variances, self.terms, strict=False):
            if level in OWN_LEVELS:
                own[f] += v
        return [_round(float(v)) for v in own], _round(float(variances[-1]))


def query_places(runs: Sequence[Run], engine: str) -> dict[str, Place]:
    """Every cell that an engine's file has an entry for: those that were measured, and each on any other GPU."""
    out = {}
    for p in sorted({place_of(r) for r in runs if r.engine == engine}, key=astuple):
        for gpu, known in ((p.gpu, p.gpu), ("*", "?")):
            name = cell_name(gpu, p.model, p.precision, p.version)
            out[name] = replace(p, gpu=known, layout="")
    return out


def _round(value: float) -> float:
    return float(f"{value:.4g}")
