"""Which models, GPUs, precisions and engine versions were measured, and how far from them a plan lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from costmodel.arch import Arch
from costmodel.arch.recurrent import Recurrent
from costmodel.calibration.data_files import BORROWED_FROM, DATA, residual_file
from costmodel.dtypes import storage
from costmodel.engine import EngineTraits
from costmodel.hardware import Gpu

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
NETWORKS = ("dense", "experts")
"""What first tokens of models that were not measured, or not so, are moved by: what these kinds have in common."""


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


@lru_cache(maxsize=4)
def shipped_residual(engine: str) -> dict[str, Any]:
    """The file of an engine's residual, as it is shipped."""
    raw: dict[str, Any] = json.loads((DATA / residual_file(engine)).read_text(encoding="utf-8"))
    return raw


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


def network_of(model: str) -> str:
    """Of `NETWORKS`, the one of an architecture by its `arch_key`."""
    return "dense" if model.endswith("-e0") else "experts"


def far_name(reach: str, network: str) -> str:
    """Key of the entry of all cells beyond what was measured."""
    return f"{reach} {network}"


@lru_cache(maxsize=4)
def _measured(engine: str) -> Measured:
    raw = shipped_residual(engine)
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
    raw = shipped_residual(engine.calibration)
    reach, _ = find_cell(engine.calibration, gpu.measured_as, arch_key(arch), precision_key(arch), version or "")
    return ExpectedError(reach=reach, **raw["about"]["expected_error"][reach])


def own_key(engine: str, gpu: str, arch: Arch) -> str:
    """A cell's name in a user's profile; the engine's version is the user's own and not part of it."""
    return f"{engine}|{gpu}|{arch_key(arch)}|{precision_key(arch)}"


@lru_cache(maxsize=16)
def _measured_gpus(engine: str) -> frozenset[str]:
    return frozenset(name.split("|")[0] for name in shipped_residual(engine)["cells"])


def not_measured(arch: Arch, gpu: Gpu, engine: EngineTraits) -> tuple[str, ...]:
    """What of a cell no run has measured, in plain sentences."""
    raw = shipped_residual(engine.calibration)
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
