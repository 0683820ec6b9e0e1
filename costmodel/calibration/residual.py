"""What the formulas miss: the expected error of a cell, and how sure the estimate is.

Log(measured / formula) of TPOT and of TTFT is a random-effects model: at each level that runs share (all runs, and for
TTFT those of dense models or those of models of experts; those of an engine, model and precision with the engine's
version, with the GPU, and with both) a linear function of a few features and some of their products, drawn around zero
with a variance fitted by marginal likelihood. What is known of a cell is the posterior of the sum of its levels'
functions: a mean and a covariance over the features. Plans of one cell share it, so their errors move together; each
deployment adds an error of its own.

What was learnt reaches as far as its engine, version, model and precision. Beyond them, where it was found to mislead,
the formulas are moved by the first level alone, with the variance that all other levels together have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from costmodel.arch import Arch
from costmodel.calibration.data_files import BORROWED_FROM
from costmodel.calibration.measured_cells import arch_key, find_cell, own_key, precision_key, shipped_residual
from costmodel.engine import EngineTraits
from costmodel.hardware import Gpu
from costmodel.plan.columns import Columns, Floats

LINEAR = ("one", "concurrency", "gpus", "isl", "osl", "expert_parallel")
PRODUCTS = (
    ("concurrency", "concurrency"),
    ("concurrency", "gpus"),
    ("concurrency", "isl"),
    ("concurrency", "expert_parallel"),
    ("gpus", "expert_parallel"),
)
"""Of the 14 products five, chosen on the measured runs and for how they go on beyond them (docs/accuracy-tables.md); of
TPOT alone, as TTFT gains half a point."""
PRODUCTS_REACH = 1.0
"""How far from its centre a feature enters products: in the corners beyond lie few runs, and products grow there."""
FEATURES = (*LINEAR, *(f"{a} {b}" for a, b in PRODUCTS))
TARGETS = ("tpot", "ttft")
_CENTRE = {"concurrency": 4.5, "gpus": 1.8, "isl": 11.0, "osl": 9.7}
_SCALE = {"concurrency": 1.7, "gpus": 1.0, "isl": 1.3, "osl": 1.6}
_RANGE = {"concurrency": (2.0, 10.0), "gpus": (0.0, 3.0), "isl": (7.0, 13.0), "osl": (6.5, 13.0)}
"""Log2 of what the measured runs cover; beyond it a feature stays at the edge and the interval widens."""
REACH_SD = {"tpot": 0.06, "ttft": 0.12}
"""Assumed standard deviation that each doubling beyond the measured range adds: no run there to fit it on."""
BORROWED_SD = {"tpot": 0.15, "ttft": 0.2}
"""Assumed further standard deviation where a generation or an engine borrows another's efficiencies: nothing measured
them."""
TRIANGLE = [(i, j) for i in range(len(FEATURES)) for j in range(i + 1)]
_TIMES_IN_SQUARE = np.array([1.0 if i == j else 2.0 for i, j in TRIANGLE])
"""Each entry of a lower triangle stands in its symmetric matrix so often."""


def features(
    concurrency: Floats, gpus: Floats, isl: Floats, osl: Floats, expert_parallel: Floats, unmeasured: Sequence[Floats]
) -> tuple[Floats, Floats]:
    """Features of shape `(len(FEATURES), num_plans)`, and doublings beyond the measured range, `(num_plans,)`.

    `concurrency` is per replica, `gpus` of one replica. `unmeasured` holds degrees of parallelism that no run, or next
    to none, has above 1: each counts as out of range, once for itself and once per doubling. Of nine runs with
    attention data parallelism, all on TensorRT-LLM, TPOT was up to 1.3 times off and TTFT 2.8; pipelines are in none.
    """
    size = np.broadcast_shapes(*(x.shape for x in (concurrency, gpus, isl, osl, expert_parallel, *unmeasured)))[0]
    out = np.empty((len(FEATURES), size))
    out[0] = 1.0
    at = {name: row for row, name in enumerate(LINEAR)}
    beyond: Floats = np.zeros(size)
    for degree in unmeasured:
        beyond = beyond + np.where(degree > 1.0, 1.0 + np.log2(np.maximum(degree, 1.0)), 0.0)
    for name, values in (("concurrency", concurrency), ("gpus", gpus), ("isl", isl), ("osl", osl)):
        log = np.log2(np.maximum(values, 1.0))
        low, high = _RANGE[name]
        kept = np.minimum(np.maximum(log, low), high)
        beyond = beyond + np.abs(log - kept)
        out[at[name]] = (kept - _CENTRE[name]) / _SCALE[name]
    out[at["expert_parallel"]] = expert_parallel
    near = np.clip(out[: len(LINEAR)], -PRODUCTS_REACH, PRODUCTS_REACH)
    for row, (a, b) in enumerate(PRODUCTS, start=len(LINEAR)):
        # a square's mean is the level's, not its own
        out[row] = near[at[a]] * near[at[b]] - (1.0 if a == b else 0.0)
    return out, beyond


def full_covariance(triangle: Floats) -> Floats:
    """Symmetric matrices of lower triangles: shape `(…, len(TRIANGLE))` to `(…, len(FEATURES), len(FEATURES))`."""
    out = np.empty((*triangle.shape[:-1], len(FEATURES), len(FEATURES)))
    rows, columns = np.array(TRIANGLE).T
    out[..., rows, columns] = out[..., columns, rows] = triangle
    return out


def _times(rows: Floats, phi: Floats) -> Floats:
    """Of each plan its row times its features, shape `(num_plans,)`; one row serves all plans.

    Summed feature by feature, so that a plan gets the same to the last digit alone and among others.
    """
    products = np.multiply(rows.T, phi, order="C")
    # numpy adds whole rows one after the other, but the numbers of a single column in pairs
    return np.add.accumulate(products)[-1] if products.shape[1] == 1 else np.add.reduce(products)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResidual(Columns):
    """One target's residual in a cell. Arrays have shape `(num_plans, …)` or `(1, …)`."""

    mean: Floats
    """Shape `(rows, len(FEATURES))`."""
    covariance: Floats
    """Shared by all plans of the cell; lower triangle, shape `(rows, len(TRIANGLE))`."""
    own: Floats
    """Variance per feature that each deployment adds for itself, shape `(rows, len(FEATURES))`."""
    noise: Floats
    """Variance of one run, shape `(rows,)`."""

    def mean_log(self, phi: Floats) -> Floats:
        """Expected log(measured / formula), shape `(num_plans,)`."""
        return _times(self.mean, phi)

    def shared_variance(self, phi: Floats) -> Floats:
        """Variance that plans of one cell have in common."""
        out: Floats = np.zeros(1)
        square = self.covariance * _TIMES_IN_SQUARE
        for i in range(len(FEATURES)):
            first = i * (i + 1) // 2
            out = out + _times(square[:, first : first + i + 1], phi[: i + 1]) * phi[i]
        return np.maximum(out, 0.0)

    def own_variance(self, phi: Floats) -> Floats:
        """Variance that each plan has for itself."""
        return np.asarray(self.noise + _times(self.own, phi**2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual(Columns):
    """Both targets."""

    tpot: TargetResidual
    ttft: TargetResidual


MEAN_UNIT, COVARIANCE_UNIT = 1e-4, 1e-7
"""Cells are whole numbers of these in the files, which keeps them short."""


def _cell(raw: dict[str, Any], name: str, target: str) -> list[float]:
    values = np.array(raw["cells"][name][target], dtype=np.float64)
    values[: len(FEATURES)] *= MEAN_UNIT
    values[len(FEATURES) :] *= COVARIANCE_UNIT
    return values.tolist()


def residual_columns(
    cells: Sequence[tuple[Arch, Gpu, EngineTraits, str | None]],
    own: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> Residual:
    """Residuals of (architecture, GPU type, engine, engine version), one row each.

    `own` holds a user's cells by `own_key`: their values per target go before the file's, and end with the variance of
    one run beyond that of measured ones.
    """
    rows: list[dict[str, Mapping[str, Any]]] = []
    for arch, gpu, engine, version in cells:
        raw, measured = shipped_residual(engine.calibration), BORROWED_FROM[gpu.generation]
        shape, precision = arch_key(arch), precision_key(arch)
        _, name = find_cell(engine.calibration, gpu.measured_as, shape, precision, version or "")
        found = (own or {}).get(own_key(engine.name, gpu.name, arch)) or {
            t: [*_cell(raw, name, t), 0.0] for t in TARGETS
        }
        borrows = measured != gpu.generation or engine.calibration != engine.name
        rows.append(
            {
                t: {
                    **raw[t],
                    "cell": found[t][:-1],
                    "noise_variance": raw[t]["noise_variance"]
                    + (BORROWED_SD[t] ** 2 if borrows else 0.0)
                    + found[t][-1],
                }
                for t in TARGETS
            }
        )
    width = len(FEATURES)

    def target(name: str) -> TargetResidual:
        cells_ = np.array([r[name]["cell"] for r in rows], dtype=np.float64)
        return TargetResidual(
            mean=cells_[:, :width],
            covariance=cells_[:, width:],
            own=np.array([r[name]["own_variance"] for r in rows], dtype=np.float64),
            noise=np.array([r[name]["noise_variance"] for r in rows], dtype=np.float64),
        )

    return Residual(tpot=target("tpot"), ttft=target("ttft"))
