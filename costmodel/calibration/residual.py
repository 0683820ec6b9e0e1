"""What the formulas miss: the expected error of a cell, and how sure the estimate is.

Log(measured / formula) of TPOT and of TTFT is a random-effects model: at each level that runs share (engine,
GPU, engine version, model, and their combinations) a linear function of a few features and some of their products,
drawn around zero with a variance fitted by marginal likelihood. What is known of a cell is the posterior of the sum
of its levels' functions: a mean and a covariance over the features. Plans of one cell share it, so their errors move
together; each deployment adds an error of its own. Unknown levels keep their prior variance, which widens the interval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from costmodel.arch import Arch
from costmodel.arch.attention import Recurrent
from costmodel.calibration.data_files import BORROWED_FROM, DATA, residual_file
from costmodel.dtypes import storage
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
"""Of the 14 products five, chosen on the measured runs and for how they go on beyond them (docs/accuracy.md); of TPOT
alone, as TTFT gains half a point."""
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


def arch_key(arch: Arch) -> str:
    """Name of an architecture's shape: models that differ only in weights share it (DeepSeek-V3 and R1)."""
    heads = max((int(a.heads) for a in arch.attentions if not isinstance(a, Recurrent)), default=0)
    return f"h{arch.hidden_size}-l{arch.num_hidden_layers}-a{heads}-e{arch.num_experts}"


def precision_key(arch: Arch) -> str:
    """bf16, fp8 or fp4: how most of the weights are stored."""
    bits = storage(arch.dtypes.experts if arch.is_moe else arch.dtypes.dense_ffn).bits
    return "bf16" if bits > 8 else "fp8" if bits > 4 else "fp4"


def features(
    concurrency: Floats, gpus: Floats, isl: Floats, osl: Floats, expert_parallel: Floats, attn_dp: Floats
) -> tuple[Floats, Floats]:
    """Features of shape `(len(FEATURES), num_plans)`, and doublings beyond the measured range, `(num_plans,)`.

    `concurrency` is per replica, `gpus` of one replica. Attention data parallelism counts as out of range, once for
    itself and once per doubling: of nine such runs, all on TensorRT-LLM, TPOT was up to 1.3 times off and TTFT 2.8.
    """
    size = np.broadcast_shapes(*(x.shape for x in (concurrency, gpus, isl, osl, expert_parallel, attn_dp)))[0]
    out = np.empty((len(FEATURES), size))
    out[0] = 1.0
    at = {name: row for row, name in enumerate(LINEAR)}
    beyond = np.where(attn_dp > 1.0, 1.0 + np.log2(np.maximum(attn_dp, 1.0)), 0.0) + np.zeros(size)
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
    out = rows[:, 0] * phi[0]
    for i in range(1, phi.shape[0]):
        out = out + rows[:, i] * phi[i]
    return np.asarray(out)


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
        for i in range(len(FEATURES)):
            first = i * (i + 1) // 2
            row = self.covariance[:, first : first + i + 1] * np.where(np.arange(i + 1) < i, 2.0, 1.0)
            out = out + _times(row, phi[: i + 1]) * phi[i]
        return np.maximum(out, 0.0)

    def own_variance(self, phi: Floats) -> Floats:
        """Variance that each plan has for itself."""
        return np.asarray(self.noise + _times(self.own, phi**2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual(Columns):
    """Both targets."""

    tpot: TargetResidual
    ttft: TargetResidual


@lru_cache(maxsize=4)
def _read(engine: str) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((DATA / residual_file(engine)).read_text(encoding="utf-8"))
    return raw


MEAN_UNIT, COVARIANCE_UNIT = 1e-4, 1e-7
"""Cells are whole numbers of these in the files, which keeps them short."""


def _cell(raw: dict[str, Any], name: str, target: str) -> list[float]:
    values = np.array(raw["cells"][name][target], dtype=np.float64)
    values[: len(FEATURES)] *= MEAN_UNIT
    values[len(FEATURES) :] *= COVARIANCE_UNIT
    return values.tolist()


def cell_name(gpu: str, model: str, precision: str, version: str) -> str:
    """Key of a cell in the file; `*` stands for what was not measured, and for any precision of such a model."""
    return f"{gpu}|{model}|{precision}|{version}"


@lru_cache(maxsize=4096)
def find_cell(engine: str, gpu: str, generation: str, model: str, precision: str, version: str) -> str:
    """The most specific entry of the file that covers a cell.

    An unmeasured GPU of a measured generation takes its generation's part, `*hopper`.
    """
    raw = _read(engine)
    place = gpu if gpu in raw["gpus"] else f"*{generation}"
    shape = model if model in raw["models"] else "*"
    known = version if version in raw["versions"] else "*"
    return cell_name(place, shape, precision if shape != "*" else "*", known)


def own_key(engine: str, gpu: str, arch: Arch) -> str:
    """A cell's name in a user's profile; the engine's version is the user's own and not part of it."""
    return f"{engine}|{gpu}|{arch_key(arch)}|{precision_key(arch)}"


def not_measured(arch: Arch, gpu: Gpu, engine: EngineTraits) -> tuple[str, ...]:
    """What of a cell no run has measured, in plain sentences."""
    raw = _read(engine.calibration)
    out = []
    if engine.calibration != engine.name:
        out.append(f"{engine.name} was not measured: times of {engine.calibration}, with wider intervals")
    if gpu.measured_as not in raw["gpus"]:
        borrowed = BORROWED_FROM[gpu.generation]
        out.append(f"{gpu.name} was not measured: efficiencies of {borrowed} GPUs, with wider intervals")
    if arch_key(arch) not in raw["models"]:
        out.append(f"{arch.name} was not measured: formulas alone, with wider intervals")
    return tuple(out)


def residual_columns(
    cells: Sequence[tuple[Arch, Gpu, EngineTraits, str | None]],
    own: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> Residual:
    """Residuals of (architecture, GPU type, engine, engine version), one row each.

    `own` holds a user's cells by `own_key`: their values per target go before the file's.
    """
    rows: list[dict[str, Mapping[str, Any]]] = []
    for arch, gpu, engine, version in cells:
        raw, measured = _read(engine.calibration), BORROWED_FROM[gpu.generation]
        shape, precision = arch_key(arch), precision_key(arch)
        name = find_cell(engine.calibration, gpu.measured_as, measured, shape, precision, version or "")
        found = (own or {}).get(own_key(engine.name, gpu.name, arch)) or {t: _cell(raw, name, t) for t in TARGETS}
        borrows = measured != gpu.generation or engine.calibration != engine.name
        rows.append(
            {
                t: {
                    **raw[t],
                    "cell": found[t],
                    "noise_variance": raw[t]["noise_variance"] + (BORROWED_SD[t] ** 2 if borrows else 0.0),
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
