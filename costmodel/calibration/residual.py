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

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from costmodel.arch import Arch
from costmodel.arch.recurrent import Recurrent
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


def arch_key(arch: Arch) -> str:
    """Name of an architecture's shape: models that differ only in weights share it (DeepSeek-V3 and R1)."""
    seen = [a for a in arch.attentions if not isinstance(a, Recurrent)]
    heads = max((int(a.heads) for a in seen), default=0)
    # Llama-2-7B and Llama-3.1-8B differ in nothing else that is looked at here
    shared = max((int(getattr(a, "kv_heads", 1)) for a in seen), default=0)
    return f"h{arch.hidden_size}-l{arch.num_hidden_layers}-a{heads}-k{shared}-e{arch.num_experts}"


def precision_key(arch: Arch) -> str:
    """bf16, fp8, fp4, int8 or int4: how most of the weights are stored. Kernels for integers are others."""
    stored = storage(arch.dtypes.experts if arch.is_moe else arch.dtypes.dense_ffn)
    bits, kind = stored.bits, "int" if stored.base.startswith("int") else "fp"
    return "bf16" if bits > 8 else f"{kind}8" if bits > 4 else f"{kind}4"


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


UNRECORDED = "unrecorded"
"""Version of the runs of a benchmark whose records name none: one of its own, which no study can ask for."""
REACHES = {
    "cell": "this model, precision and engine version were measured on this GPU",
    "gpu": "this model, precision and engine version were measured, on other GPUs",
    "newer": "this model was measured on this GPU, under earlier versions of the engine",
    "version": "this model was measured, in another precision or under other versions of the engine",
    "model": "this model was not measured",
}
"""How far a plan lies from what was measured, nearest first, and what that says."""
FAR_REACHES = ("newer", "version", "model")
"""Those of which no cell knows more than what all runs have in common."""


MOST_DIGITS = 9
"""Digits of a number of a version; dates have eight."""


def version_order(version: str) -> tuple[int, ...]:
    """Versions in the order of their numbers; one that begins with none comes before all others."""
    if not version[:1].isdecimal():
        return ()
    # a candidate comes before its release, which ends where the candidate has a -1
    parts = f"{version}.0".replace("rc", ".-1.").replace("post", "").split(".")
    return tuple(int(p) for p in parts if p.removeprefix("-").isdecimal() and len(p) <= MOST_DIGITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of an engine."""

    cells: frozenset[tuple[str, str, str, str]]
    """GPU, model, precision and version."""
    models: frozenset[str]
    """Under any engine."""

    def reach(self, gpu: str, model: str, precision: str, version: str) -> str:
        """How far a cell lies from these, a key of `REACHES`."""
        if (gpu, model, precision, version) in self.cells:
            return "cell"
        if any(cell[1:] == (model, precision, version) for cell in self.cells):
            return "gpu"
        if model not in self.models:
            return "model"
        newest = max((version_order(cell[3]) for cell in self.cells), default=())
        there = any(cell[:2] == (gpu, model) for cell in self.cells)
        return "newer" if there and version_order(version) > newest else "version"


def cell_name(gpu: str, model: str, precision: str, version: str) -> str:
    """Key of a cell in the file; `*` as the GPU stands for all that its model was not measured on."""
    return f"{gpu}|{model}|{precision}|{version}"


NETWORKS = ("dense", "experts")
"""What first tokens of models that were not measured, or not so, are moved by: what these kinds have in common."""


def network_of(model: str) -> str:
    """Of `NETWORKS`, the one of an architecture by its `arch_key`."""
    return "dense" if model.endswith("-e0") else "experts"


def far_name(reach: str, network: str) -> str:
    """Key of the entry of all cells beyond what was measured."""
    return f"{reach} {network}"


@lru_cache(maxsize=4)
def _measured(engine: str) -> Measured:
    raw = _read(engine)
    cells = [tuple(name.split("|")) for name in raw["cells"] if "|" in name and not name.startswith("*")]
    return Measured(
        cells=frozenset((gpu, model, precision, version) for gpu, model, precision, version in cells),
        models=frozenset(raw["models"]),
    )


@lru_cache(maxsize=4096)
def find_cell(engine: str, gpu: str, model: str, precision: str, version: str) -> tuple[str, str]:
    """How far a cell lies from what was measured (`REACHES`), and the key of the file's entry that covers it."""
    reach = _measured(engine).reach(gpu, model, precision, version)
    if reach in FAR_REACHES:
        return reach, far_name(reach, network_of(model))
    return reach, cell_name(gpu if reach == "cell" else "*", model, precision, version)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedError:
    """|predicted / measured - 1| of runs that lay as far from what was fitted on as a plan does."""

    reach: str
    """A key of `REACHES`."""
    tpot_mean: float
    tpot_median: float
    ttft_mean: float
    ttft_median: float
    inside_p10_p90_tpot: float
    inside_p10_p90_ttft: float

    @property
    def sentence(self) -> str:
        """What was measured, and what that makes of the errors."""
        tpot = f"TPOT off by {self.tpot_median:.0%} at the median and {self.tpot_mean:.0%} on average"
        ttft = f"TTFT by {self.ttft_median:.0%} and {self.ttft_mean:.0%}"
        return f"{REACHES[self.reach]}; runs left out in the same way were predicted with {tpot}, {ttft}"


def expected_error(arch: Arch, gpu: Gpu, engine: EngineTraits, version: str | None) -> ExpectedError:
    """The error to expect of plans of a cell, as measured on runs that were left out of the fit."""
    raw = _read(engine.calibration)
    reach, _ = find_cell(engine.calibration, gpu.measured_as, arch_key(arch), precision_key(arch), version or "")
    return ExpectedError(reach=reach, **raw["about"]["expected_error"][reach])


def own_key(engine: str, gpu: str, arch: Arch) -> str:
    """A cell's name in a user's profile; the engine's version is the user's own and not part of it."""
    return f"{engine}|{gpu}|{arch_key(arch)}|{precision_key(arch)}"


@lru_cache(maxsize=16)
def _measured_gpus(engine: str) -> frozenset[str]:
    return frozenset(name.split("|")[0] for name in _read(engine)["cells"])


def not_measured(arch: Arch, gpu: Gpu, engine: EngineTraits) -> tuple[str, ...]:
    """What of a cell no run has measured, in plain sentences."""
    raw = _read(engine.calibration)
    out = []
    if engine.calibration != engine.name:
        out.append(f"{engine.name} was not measured: times of {engine.calibration}, with wider intervals")
    if gpu.measured_as not in _measured_gpus(engine.calibration):
        borrowed = BORROWED_FROM[gpu.generation]
        out.append(f"{gpu.name} was not measured: efficiencies of {borrowed} GPUs, with wider intervals")
    if arch_key(arch) not in raw["models"]:
        out.append(f"{arch.name} was not measured: nothing is known of its own errors, wider intervals")
    return tuple(out)


def measured_apart(arch: Arch, gpu: Gpu, engine: EngineTraits) -> str:
    """How runs of a model, a GPU and an engine that were all measured differ from this cell, whatever the version.

    `apart`: none has all three; `precision`: those that do store weights otherwise; empty: they do not differ.
    """
    key = (gpu.measured_as, arch_key(arch), precision_key(arch))
    cells = _measured(engine.calibration).cells
    if not any(cell[:2] == key[:2] for cell in cells):
        return "apart"
    return "" if any(cell[:3] == key for cell in cells) else "precision"


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
        raw, measured = _read(engine.calibration), BORROWED_FROM[gpu.generation]
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
