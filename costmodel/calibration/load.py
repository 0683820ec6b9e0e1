"""Calibration files: efficiencies of kernels and end-to-end parameters, one file per GPU generation and engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from costmodel.arch import Arch
from costmodel.calibration.data_files import BORROWED_FROM, DATA, kernel_file
from costmodel.dtypes import KV_BYTES, compute_dtype
from costmodel.engine import EngineTraits
from costmodel.hardware import Cluster, Gpu
from costmodel.plan.columns import ArchColumns, ClusterColumns, Floats
from costmodel.step.collectives import Links
from costmodel.step.kernel_laws import Rate
from costmodel.step.kernel_rates import Rates
from costmodel.step.pipeline_pass import EngineColumns

_GEMM = {
    "bf16": "gemm_bf16",
    "fp16": "gemm_bf16",
    "fp32": "gemm_bf16",
    "fp8": "gemm_fp8",
    "int8": "gemm_fp8",
    "fp8_block": "gemm_fp8_block",
    "mxfp8": "gemm_fp8_block",
    "nvfp4": "gemm_nvfp4",
    "mxfp4": "gemm_nvfp4",
    "int4": "gemm_bf16",
}
_MOE = {
    "bf16": ("moe_bf16",),
    "fp16": ("moe_bf16",),
    "fp32": ("moe_bf16",),
    "fp8": ("moe_fp8", "moe_fp8_block"),
    "int8": ("moe_fp8", "moe_fp8_block"),
    "fp8_block": ("moe_fp8_block", "moe_fp8"),
    "mxfp8": ("moe_fp8_block", "moe_fp8"),
    "nvfp4": ("moe_nvfp4", "moe_mxfp4"),
    "mxfp4": ("moe_mxfp4", "moe_nvfp4"),
    "int4": ("moe_int4", "moe_mxfp4"),
}


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
    normed = (arch.num_full_layers + arch.num_window_layers) * arch.qk_norm
    layers = arch.num_full_layers + arch.num_window_layers + arch.num_mla_layers + arch.num_linear_layers
    extra = serving["qk_norm_s"] * normed + serving["mla_s"] * arch.num_mla_layers
    return np.asarray(serving["layer_s"] + (extra + serving["linear_s"] * arch.num_linear_layers) / layers)


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
        "peak_flops_per_s": peak,
        "peak_bytes_per_s": gpu.hbm_bytes_per_s,
    }


def _cell_rates(arch: Arch, gpu: Gpu, calibration: Calibration, kv_dtype: str) -> dict[str, dict[str, float]]:
    """Laws of one (model, GPU, engine, cache dtype), by kind of kernel."""

    def attention(kind: str) -> dict[str, float]:
        cache = "bf16" if KV_BYTES[kv_dtype] >= 2.0 else "fp8"
        return _rate(gpu, _law(calibration, f"{kind}_{cache}", f"{kind}_bf16"), "bf16")

    def gemm(dtype: str) -> dict[str, float]:
        widened = compute_dtype(dtype, gpu.peak_flops_per_s) == "bf16"
        return _rate(gpu, _law(calibration, "gemm_bf16" if widened else _GEMM[dtype], "gemm_bf16"), dtype)

    serving = calibration.serving
    small = {
        "t0_s": float(small_kernels_s(ArchColumns.of([arch]), {n: np.full(1, serving[n]) for n in SMALL_KERNELS})[0]),
        "math_eff": 1.0,
        "hbm_eff": calibration.kernels["gemm_bf16"]["hbm_eff"],
        "overlap_loss": 0.0,
    }
    d = arch.dtypes
    return {
        "attention": gemm(d.attention),
        "dense_ffn": gemm(d.dense_ffn),
        "router": gemm(arch.activation_dtype),
        "shared_experts": gemm(d.shared_experts),
        "lm_head": gemm(d.lm_head),
        "experts": _rate(gpu, _law(calibration, *_MOE[d.experts], "moe_bf16"), d.experts),
        "prefill": attention("attention_prefill"),
        "decode": attention("attention_decode"),
        "mla_prefill": attention("mla_prefill"),
        "mla_decode": attention("mla_decode"),
        "small": _rate(gpu, small, "bf16"),
    }


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
    laws = {
        f.name: Rate(**{g.name: _column([r[f.name] for r in rates], g.name) for g in fields(Rate)})
        for f in fields(Rates)
    }
    return CellColumns(
        cluster=ClusterColumns.of([cluster for _, cluster, _, _ in cells]),
        rates=Rates(
            **{
                n: r.slowed(_column(factors, _FACTOR_OF[n]), _column(factors, "math"), _column(factors, "hbm"))
                if n in _FACTOR_OF
                else r
                for n, r in laws.items()
            }
        ),
        links=Links(**{f.name: _column(links, f.name) for f in fields(Links)}).slowed(_column(factors, "all_reduce")),
        engine=EngineColumns(**{f.name: _column(serving, f.name) for f in fields(EngineColumns)}),
    )
