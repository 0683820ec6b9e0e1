"""GPUs by name, and GPUs given inline in a study: one reader for both."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from costmodel.errors import InputError, Problem
from costmodel.hardware.gpu import Gpu

_DATA = files("costmodel.hardware") / "catalog_data"
GENERATIONS = ("ampere", "ada", "hopper", "blackwell", "blackwell_ultra", "cdna3", "cdna4")


OUT = "between domains, 1e9 bytes/s: the NIC of one GPU, or the PCIe where a host has several domains"


class PeakTable(BaseModel):
    """Dense peaks in TFLOP/s (1e12); bf16 and fp16 are one figure. Absent: not in hardware."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    bf16: float = Field(gt=0, le=1e6, allow_inf_nan=False, description="dense BF16 and FP16, TFLOP/s")
    fp8: float | None = Field(None, gt=0, le=1e6, allow_inf_nan=False, description="dense FP8, TFLOP/s")
    fp4: float | None = Field(None, gt=0, le=1e6, allow_inf_nan=False, description="dense FP4, TFLOP/s")
    int8: float | None = Field(None, gt=0, le=1e6, allow_inf_nan=False, description="dense INT8, TOP/s")


class GpuTable(BaseModel):
    """One GPU type, with units in the keys. Links are per GPU and per direction."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = "custom"
    aliases: list[str] = Field(default_factory=list, description="other spellings of the name")
    generation: str | None = Field(None, description=f"whose efficiencies apply: {', '.join(GENERATIONS)}")
    product: str | None = Field(
        None,
        min_length=1,
        max_length=60,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$",
        description="as nvidia-smi calls it; no effect on results",
    )
    peak_tflops: PeakTable
    hbm_gib: float = Field(gt=0, le=1e5, allow_inf_nan=False, description="usable memory, GiB (2^30 bytes)")
    hbm_tb_per_s: float = Field(gt=0, le=1e4, allow_inf_nan=False, description="peak HBM bandwidth, 1e12 bytes/s")
    hbm_efficiency: float | None = Field(
        None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="achievable share of peak HBM bandwidth, as you measured it",
    )
    scaleup_gpus: int | None = Field(
        None, ge=1, le=100_000, description="GPUs in one NVLink (Infinity Fabric, PCIe) domain; default: a host's"
    )
    scaleup_gb_per_s: float = Field(gt=0, le=1e6, allow_inf_nan=False, description="inside the domain, 1e9 bytes/s")
    scaleup_latency_us: float = Field(1.5, ge=0, le=1e5, allow_inf_nan=False)
    scaleout_gb_per_s: float = Field(gt=0, le=1e6, allow_inf_nan=False, description=OUT)
    scaleout_latency_us: float = Field(5.0, ge=0, le=1e5, allow_inf_nan=False)
    gpus_per_node: int = Field(8, ge=1, le=100_000, description="GPUs of one host")
    price_per_hour: float | None = Field(None, gt=0, le=1e6, allow_inf_nan=False, description="US dollars per GPU hour")
    sources: dict[str, str] = Field(default_factory=dict, description="where each figure comes from")


def gpu_names() -> tuple[str, ...]:
    """Names of the catalog, sorted."""
    return tuple(sorted(e.name.removesuffix(".toml") for e in _DATA.iterdir() if e.name.endswith(".toml")))


def _key(name: str) -> str:
    """Spelling that does not matter: case, separators, vendor words."""
    key = re.sub(r"[\s\-/.]+", "_", name.strip().lower())
    return re.sub(r"^(nvidia|amd|instinct)_+(instinct_)?", "", key)


@lru_cache(maxsize=1)
def _index() -> dict[str, str]:
    """GPU by each of its names. Raises `InputError` for every name that two files of the catalog claim."""
    index = {name: name for name in gpu_names()}
    problems = []
    for name in gpu_names():
        for alias in tomllib.loads((_DATA / f"{name}.toml").read_text(encoding="utf-8"))["aliases"]:
            if index.setdefault(alias, name) != name:
                message = f"must not have the alias {alias!r}, which is {index[alias]}'s already"
                problems.append(Problem(path=f"{name}.toml", message=message))
    if problems:
        raise InputError(problems)
    return index


def load_gpu(name: str, otherwise: str = "Describe it in a [cluster.gpu] table instead") -> Gpu:
    """A GPU type of the catalog.

    Raises:
        InputError: unknown name; lists the nearest ones, and `otherwise`: how else to give a GPU there.
    """
    known = _key(name)
    if known not in gpu_names():
        known = _index().get(known, "")
    if not known:
        near = difflib.get_close_matches(_key(name), list(_index()), n=3, cutoff=0.4)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise InputError.single("gpu", f"{name!r} is not in the catalog{hint}. {otherwise}")
    return gpu_from_table(tomllib.loads((_DATA / f"{known}.toml").read_text(encoding="utf-8")), known)


def gpu_from_table(table: Mapping[str, Any], path: str) -> Gpu:
    """A GPU from a table with the catalog's keys; `base` names a catalog GPU whose figures it changes.

    Raises:
        InputError: every problem of the table, under `path`.
    """
    values = dict(table)
    base, known = values.pop("base", None), None
    if base is not None:
        if not isinstance(base, str):
            raise InputError.single(f"{path}.base", f"must be the name of a catalog GPU, got {base!r}")
        known = load_gpu(base).name
        below = tomllib.loads((_DATA / f"{known}.toml").read_text(encoding="utf-8"))
        below["aliases"] = []
        peaks = values.pop("peak_tflops", {})
        if isinstance(peaks, Mapping):
            below["peak_tflops"] = {**below["peak_tflops"], **peaks}
        values = {**below, "name": f"{known} (changed)", **values}
    try:
        read = GpuTable.model_validate(values)
    except ValidationError as error:
        raise InputError(
            Problem(
                path=".".join([path, *(str(part) for part in e["loc"])]),
                message=f"{e['msg'].lower()}, got {e['input']!r}"
                if e["type"] != "missing"
                else "is required, got nothing",
            )
            for e in error.errors()
        ) from error
    return _to_gpu(read, path, known)


def _to_gpu(read: GpuTable, path: str, base: str | None) -> Gpu:
    assumptions = []
    generation = read.generation
    if generation is None:
        generation = "hopper"
        assumptions.append(f"{path}.generation not given: efficiencies of hopper")
    if generation not in GENERATIONS:
        raise InputError.single(f"{path}.generation", f"must be one of {', '.join(GENERATIONS)}, got {generation!r}")
    peaks = {k: v * 1e12 for k, v in read.peak_tflops.model_dump().items() if v is not None}
    return Gpu(
        name=read.name,
        base=base,
        generation=generation,
        product=read.product,
        peak_flops_per_s=peaks,
        hbm_bytes=read.hbm_gib * 2**30,
        hbm_bytes_per_s=read.hbm_tb_per_s * 1e12,
        hbm_efficiency=read.hbm_efficiency,
        scaleup_gpus=read.scaleup_gpus,
        scaleup_bytes_per_s=read.scaleup_gb_per_s * 1e9,
        scaleup_latency_s=read.scaleup_latency_us * 1e-6,
        scaleout_bytes_per_s=read.scaleout_gb_per_s * 1e9,
        scaleout_latency_s=read.scaleout_latency_us * 1e-6,
        gpus_per_node=read.gpus_per_node,
        price_per_hour=read.price_per_hour,
        sources=read.sources,
        assumptions=tuple(assumptions),
    )
