"""Calibration files: efficiencies of kernels and end-to-end parameters, one file per GPU generation and engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from costmodel.arch import Arch
from costmodel.arch.attention import Attention, GroupedQuery
from costmodel.arch.block import EXPERTS
from costmodel.calibration.data_files import BORROWED_FROM, DATA, kernel_file
from costmodel.dtypes import KV_BYTES, compute_dtype, storage
from costmodel.engine import EngineTraits
from costmodel.hardware import Cluster, Gpu
from costmodel.plan.columns import ArchColumns, ClusterColumns, Floats
from costmodel.plan.precision import kind_dtypes, unusual_dtypes
from costmodel.step.collectives import Links
from costmodel.step.kernel_laws import Rate
from costmodel.step.kernel_rates import Rates
from costmodel.step.pipeline_pass import EngineColumns

_GEMM = {
    "fp8": "gemm_fp8",
    "int8": "gemm_fp8",
    "fp8_block": "gemm_fp8_block",
    "mxfp8": "gemm_fp8_block",
    "nvfp4": "gemm_nvfp4",
    "mxfp4": "gemm_nvfp4",
}
"""Law of a GEMM by the family of its weights' dtype; of all others, and where hardware widens them, bf16's."""
_MOE = {
    "fp8": ("moe_fp8", "moe_fp8_block"),
    "int8": ("moe_fp8", "moe_fp8_block"),
    "fp8_block": ("moe_fp8_block", "moe_fp8"),
    "mxfp8": ("moe_fp8_block", "moe_fp8"),
    "nvfp4": ("moe_nvfp4", "moe_mxfp4"),
    "mxfp4": ("moe_mxfp4", "moe_nvfp4"),
}
"""The same of experts, nearest first. Weight-only integers have a law of their own, plain floats bf16's."""


Cell = tuple[Arch, Cluster, EngineTraits, str]
"""Model, cluster, engine and dtype of the cache."""
FACTORS = ("gemm", "attention", "experts", "all_reduce", "math", "hbm")
"""Kernel groups that have an end-to-end factor."""
SMALL_KERNELS = ("layer_s", "qk_norm_s", "mla_s", "linear_s")
"""Launch-bound kernels of a layer (norms, rope, cache writes, quantisation), and what a norm of queries and keys,
latent attention, or a linear layer's convolution and gates add to them."""


def small_kernels_s(arch: ArchColumns, serving: Mapping[str, Floats]) -> Floats:
    """Seconds of launch-bound kernels in a layer, mean over a model's layers, shape `(num_models,)`.

    `serving` holds `SMALL_KERNELS`, each of shape `(num_models,)` or `(1,)`.
    """
    extra: Floats = np.zeros(1)
    for group in arch.attention:
        block = group.block
        if isinstance(block, GroupedQuery):
            extra = extra + serving[block.EXTRA_KERNELS] * (group.layers * block.qk_norm)
        elif isinstance(block, Attention):
            extra = extra + serving[block.EXTRA_KERNELS] * group.layers
    layers = np.maximum(sum(g.layers * g.norm_share for g in arch.groups), 1.0)
    return np.asarray(serving["layer_s"] + extra / layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One calibration file, for one version of the engine."""

    generation: str
    """Whose measurements these are."""
    engine: str
    kernels: Mapping[str, Mapping[str, Any]]
    serving: Mapping[str, float]
    """Fields of `EngineColumns`, and `SMALL_KERNELS`."""
    factors: Mapping[str, float]
    """Kernel group (`FACTORS`) -> time end to end over time in the kernel tables."""


@lru_cache(maxsize=32)
def _read(generation: str, engine: str) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((DATA / kernel_file(generation, engine)).read_text(encoding="utf-8"))
    return raw


def load_calibration(generation: str, engine: EngineTraits, version: str | None = None) -> Calibration:
    """The file of a generation and an engine, or of the measured ones that stand in for them.

    A version that was measured has its own end-to-end parameters; any other has the engine's typical ones.
    """
    measured = BORROWED_FROM[generation]
    raw = _read(measured, engine.calibration)
    own = raw["versions"].get(version or "", {})
    return Calibration(
        generation=measured,
        engine=engine.calibration,
        kernels=raw["kernels"],
        serving={
            **{k: v * own.get(k, 1.0) for k, v in raw["serving"].items()},
            **engine_facts(engine),
        },
        factors={k: v * own.get(k, 1.0) for k, v in raw["factors"].items()},
    )


def engine_facts(engine: EngineTraits) -> dict[str, float]:
    """Fields of `EngineColumns` that are facts of the engine, not fitted."""
    return {
        "mixes": float(engine.prompts_ride_on_decode_steps),
        "capture_tokens": float(engine.captured_prompt_tokens),
    }


def _law(calibration: Calibration, *names: str) -> Mapping[str, Any]:
    return next(calibration.kernels[n] for n in names if n in calibration.kernels)


def _rate(gpu: Gpu, law: Mapping[str, Any], dtype: str) -> dict[str, float]:
    peak = gpu.peak_flops_per_s[compute_dtype(dtype, gpu.peak_flops_per_s)]
    hbm_eff = min(law["hbm_eff"], gpu.hbm_efficiency or 1.0)
    return {
        "t0_s": law["t0_s"],
        "flops_per_s": peak * law["math_eff"],
        "bytes_per_s": gpu.hbm_bytes_per_s * hbm_eff,
        "overlap_loss": law["overlap_loss"],
        "pad_rows": law.get("pad_rows", 0.0),
        "row_passes": law.get("row_passes", 0.0),
        "peak_flops_per_s": peak,
        "peak_bytes_per_s": gpu.hbm_bytes_per_s,
    }


def _cell_rates(arch: Arch, gpu: Gpu, calibration: Calibration, kv_dtype: str) -> dict[str, dict[str, float]]:
    """Laws of one (model, GPU, engine, cache dtype), by kind of kernel."""

    def attention(kind: str) -> dict[str, float]:
        cache = "bf16" if KV_BYTES[kv_dtype] >= 2.0 else "fp8"
        return _rate(gpu, _law(calibration, f"{kind}_{cache}", f"{kind}_bf16"), "bf16")

    serving = calibration.serving
    small = {
        "t0_s": float(small_kernels_s(ArchColumns.of([arch]), {n: np.full(1, serving[n]) for n in SMALL_KERNELS})[0]),
        "math_eff": 1.0,
        "hbm_eff": calibration.kernels["gemm_bf16"]["hbm_eff"],
        "overlap_loss": 0.0,
    }
    kinds = {kind: _matrix_rate(kind, dtype, gpu, calibration) for kind, dtype in kind_dtypes(arch).items()}
    return kinds | {
        "prefill": attention("attention_prefill"),
        "decode": attention("attention_decode"),
        "mla_prefill": attention("mla_prefill"),
        "mla_decode": attention("mla_decode"),
        "small": _rate(gpu, small, "bf16"),
    }


def _matrix_rate(name: str, dtype: str, gpu: Gpu, calibration: Calibration) -> dict[str, float]:
    """Law of a GEMM over weights stored so, or of the experts."""
    stored = storage(dtype)
    if name != EXPERTS:
        widened = compute_dtype(dtype, gpu.peak_flops_per_s) == "bf16"
        return _rate(gpu, _law(calibration, "gemm_bf16" if widened else _GEMM[stored.base], "gemm_bf16"), dtype)
    # weight-only floats (NVFP4 with activations of 16 bits) stream as weight-only integers do
    only = ("moe_int4", "moe_mxfp4") if stored.bits < 8 and stored.compute == "bf16" else ()
    return _rate(gpu, _law(calibration, *(only or _MOE.get(stored.base, ())), "moe_bf16"), dtype)


def _cell_links(gpu: Gpu, calibration: Calibration) -> dict[str, float]:
    reduce, exchange = calibration.kernels["all_reduce"], calibration.kernels["expert_exchange"]
    slower = max(gpu.scaleup_latency_s - 1.5e-6, 0.0)  # beyond NVLink's own, which is in the fitted starts
    return {
        "all_reduce_t0_s": reduce["t0_s"] + slower,
        "all_reduce_rank_s": reduce["rank_s"],
        "all_reduce_bytes_per_s": gpu.scaleup_bytes_per_s * reduce["link_eff"],
        "exchange_t0_s": exchange["t0_s"] + slower,
        "exchange_bytes_per_s": gpu.scaleup_bytes_per_s * exchange["link_eff"],
        "normal_t0_s": exchange["normal_t0_s"],
        "remote_t0_s": exchange["remote_t0_s"] + max(gpu.scaleout_latency_s - 5e-6, 0.0),
        "remote_hop_s": exchange["remote_hop_s"],
        "remote_bytes_per_s": gpu.scaleout_bytes_per_s * exchange["nic_eff"],
        "send_t0_s": exchange["t0_s"],
        "send_bytes_per_s": gpu.scaleup_bytes_per_s * exchange["link_eff"],
    }


def _column(rows: Sequence[Mapping[str, float]], name: str) -> Floats:
    return np.array([row[name] for row in rows], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellColumns:
    """Columns of distinct (model, cluster, engine) cells, shape `(num_cells,)`."""

    cluster: ClusterColumns
    rates: Rates
    links: Links
    engine: EngineColumns


_FACTOR_OF = {
    **dict.fromkeys(("attention", "dense_ffn", "router", "shared_experts", "lm_head"), "gemm"),
    **dict.fromkeys(("prefill", "decode", "mla_prefill", "mla_decode"), "attention"),
    "experts": "experts",
}


def cell_columns(cells: Sequence[Cell], calibrations: Sequence[Calibration]) -> CellColumns:
    """Everything that calibration and hardware say about each cell."""
    rates = [_cell_rates(a, c.gpu, k, kv) for (a, c, _, kv), k in zip(cells, calibrations, strict=True)]
    links = [_cell_links(c.gpu, k) for (_, c, _, _), k in zip(cells, calibrations, strict=True)]
    serving = [k.serving for k in calibrations]
    factors = [k.factors for k in calibrations]

    def law(rows: Sequence[Mapping[str, float]], factor: str | None) -> Rate:
        rate = Rate(**{f.name: _column(rows, f.name) for f in fields(Rate)})
        return (
            rate
            if factor is None
            else rate.slowed(_column(factors, factor), _column(factors, "math"), _column(factors, "hbm"))
        )

    unusual = unusual_dtypes([arch for arch, _, _, _ in cells])
    return CellColumns(
        cluster=ClusterColumns.of([cluster for _, cluster, _, _ in cells]),
        rates=Rates(
            **{n: law([r[n] for r in rates], _FACTOR_OF.get(n)) for n in rates[0]},
            unusual=tuple(
                law(
                    [_matrix_rate(m, d, c.gpu, k) for d, (_, c, _, _), k in zip(row, cells, calibrations, strict=True)],
                    "experts" if m == EXPERTS else "gemm",
                )
                for (_, m), row in unusual.items()
            ),
            unusual_at={key: i for i, key in enumerate(unusual)},
        ),
        links=Links(**{f.name: _column(links, f.name) for f in fields(Links)}).slowed(_column(factors, "all_reduce")),
        engine=EngineColumns(**{f.name: _column(serving, f.name) for f in fields(EngineColumns)}),
    )
