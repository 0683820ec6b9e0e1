"""Reading the kernel tables, and the FLOPs and HBM bytes of each row.

Every reader returns columns over rows: seconds measured, seconds at the dense peak, seconds at the HBM peak,
and what the row belongs to. Rows outside the shapes that serving meets are left out.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from costmodel.dtypes import BYTES_PER_WEIGHT, KV_BYTES, compute_dtype
from costmodel.hardware import Gpu, load_gpu

Row = dict[str, str]

STORAGE = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "nvfp4": "nvfp4",
    "w4a16_mxfp4": "mxfp4",
    "w4a8_mxfp4_mxfp8": "mxfp4",
    "int4_wo": "int4",
}
"""Dtype of the tables -> storage dtype of the cost model."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured kernel call."""

    generation: str
    engine: str
    law: str
    gpu: str
    shape: tuple[float, ...]
    seconds: float
    math_s: float
    hbm_s: float
    pad_s: float = 0.0
    """Grouped GEMMs: seconds at the peak of one row for each expert hit, the unit of tile padding."""
    pass_s: float = 0.0
    """Grouped GEMMs: seconds at the HBM peak of all rows of the model's width once, not in `hbm_s`."""


def _rows(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", newline="") as file:
        yield from csv.DictReader(file)


def _sample(
    row: Row,
    law: str,
    flops: float,
    hbm_bytes: float,
    storage: str,
    shape: tuple[float, ...],
) -> Sample:
    gpu = _gpu(row["gpu"])
    peak = gpu.peak_flops_per_s[compute_dtype(storage, gpu.peak_flops_per_s)]
    return Sample(
        generation=gpu.generation,
        engine=row["engine"],
        law=law,
        gpu=row["gpu"],
        shape=shape,
        seconds=float(row["latency_ms"]) * 1e-3,
        math_s=flops / peak,
        hbm_s=hbm_bytes / gpu.hbm_bytes_per_s,
    )


@lru_cache(maxsize=16)
def _gpu(name: str) -> Gpu:
    return load_gpu(name)


def _gemm(row: Row) -> Sample | None:
    m, n, k = (float(row[x]) for x in ("m", "n", "k"))
    storage = STORAGE.get(row["gemm_dtype"])
    slow = row["engine"] == "vllm" and storage == "fp8_block"  # launch-bound harness: not the kernel
    if storage is None or slow or m > 16384 or not (256 <= n <= 65536 and 256 <= k <= 32768):
        return None
    moved = n * k * BYTES_PER_WEIGHT[storage] + 2.0 * m * (n + k)
    return _sample(row, f"gemm_{storage}", 2.0 * m * n * k, moved, storage, (m, n, k))


def _moe(row: Row) -> Sample | None:
    storage = STORAGE.get(row["moe_dtype"])
    if storage is None or row["distribution"] != "power_law_1.01" or "nongated" in row["kernel_source"]:
        return None
    if _gpu(row["gpu"]).generation == "blackwell" and _widens(row):
        return None
    tokens, hidden, inter = (float(row[x]) for x in ("num_tokens", "hidden_size", "inter_size"))
    top_k, experts = float(row["topk"]), float(row["num_experts"])
    tp, ep = float(row["moe_tp_size"]), float(row["moe_ep_size"])
    # vLLM's and SGLang's tables run all of `num_tokens * topk` rows whatever `moe_ep` says; TensorRT-LLM's run a share,
    # uneven as the tokens are, which `costmodel.step.expert_routing` counts. Without expert parallelism all agree.
    if tokens > 32768 or ep > 1:
        return None
    rows = tokens * top_k
    hit = experts * (1.0 - np.exp(-tokens * top_k / experts))
    weights = 3.0 * hidden * inter / tp
    moved = hit * weights * BYTES_PER_WEIGHT[storage] + rows * (3.0 * inter / tp) * 2.0
    shape = (tokens, hidden, inter, top_k, experts, tp)
    sample = _sample(row, f"moe_{storage}", 2.0 * rows * weights, moved, storage, shape)
    pass_s = 2.0 * rows * hidden / _gpu(row["gpu"]).hbm_bytes_per_s
    return replace(sample, pad_s=sample.math_s * hit / rows, pass_s=pass_s)


def _widens(row: Row) -> bool:
    """Whether a grouped GEMM is of those that Blackwell runs two to six times slower than others of the same engine.

    With 4-bit weights those keep 16-bit activations, or are not of TensorRT-LLM's generated kernels. The servers of
    the measured runs name the quick ones (InferenceMAX's launch scripts).
    """
    return row["moe_dtype"] == "w4a16_mxfp4" or (
        row["moe_dtype"] == "nvfp4" and row["kernel_source"] == "moe_torch_flow_cutlass"
    )


def _context(row: Row) -> Sample | None:
    batch, isl = float(row["batch_size"]), float(row["isl"])
    heads, kv, dim = (float(row[x]) for x in ("num_heads", "num_key_value_heads", "head_dim"))
    window = float(row["window_size"] or 0)
    if row["attn_dtype"] != "bfloat16" or isl < 64 or heads > 128 or dim not in (64.0, 128.0, 256.0):
        return None
    seen = (isl + 1) / 2 if not 0 < window < isl else window - window * (window - 1) / (2 * isl)
    moved = batch * isl * (2 * heads * dim * 2.0 + 2 * kv * dim * KV_BYTES[_kv(row)])
    shape = (batch, isl, heads, kv, dim, window, KV_BYTES[_kv(row)])
    return _sample(row, f"attention_prefill_{_kv(row)}", 4.0 * batch * isl * seen * heads * dim, moved, "bf16", shape)


def _kv(row: Row) -> str:
    return "fp8" if row["kv_cache_dtype"] == "fp8" else "bf16"


def _generation(row: Row) -> Sample | None:
    batch, step = float(row["batch_size"]), float(row["step"])
    heads, kv, dim = (float(row[x]) for x in ("num_heads", "num_key_value_heads", "head_dim"))
    window = float(row["window_size"] or 0)
    if not (64 <= step <= 65536) or batch > 1024 or heads > 128 or dim not in (64.0, 128.0, 256.0) or kv == heads:
        return None
    seen = min(step, window) if window else step
    moved = batch * seen * 2 * kv * dim * KV_BYTES[_kv(row)]
    shape = (batch, step, heads, kv, dim, window, KV_BYTES[_kv(row)])
    return _sample(row, f"attention_decode_{_kv(row)}", 4.0 * batch * seen * heads * dim, moved, "bf16", shape)


ABSORBED_PREFILL = "flash_attention"
"""Kernels of SGLang on Hopper whose table timed prompts in the absorbed form of multi-head latent attention, which has
2 x 512 + 64 numbers for each pair of tokens where the other form has 128 + 64 + 128: 3.4 times the time, at the same 60
% of the peak. SGLang serves a prompt so only behind a cached prefix shorter than `chunked_prefix_cache_threshold`
(srt/models/deepseek_common/attention_backend_handler.py).
"""


def _mla(row: Row, length: str) -> Sample | None:
    batch, tokens, heads = float(row["batch_size"]), float(row[length]), float(row["num_heads"])
    storage = "fp8" if row["kv_cache_dtype"] == "fp8" else "bf16"
    size = KV_BYTES[storage]
    if tokens < 64 or (length == "isl" and row["kernel_source"] == ABSORBED_PREFILL):
        return None
    if length == "isl":
        flops = 2.0 * batch * tokens * (tokens + 1) / 2 * heads * (128 + 64 + 128)
        moved = batch * tokens * heads * (192 + 192 + 128 + 128) * 2.0
        return _sample(row, f"mla_prefill_{storage}", flops, moved, "bf16", (batch, tokens, heads, size))
    flops = 2.0 * batch * tokens * heads * (2 * 512 + 64)
    moved = batch * tokens * 576 * size
    return _sample(row, f"mla_decode_{storage}", flops, moved, "bf16", (batch, tokens, heads, size))


READERS: dict[str, Callable[[Row], Sample | None]] = {
    "gemm": _gemm,
    "moe": _moe,
    "attention_context": _context,
    "attention_generation": _generation,
    "mla_context": lambda row: _mla(row, "isl"),
    "mla_generation": lambda row: _mla(row, "step"),
}


def read_kernels(tables: Path, limit: int, seed: int) -> dict[tuple[str, str, str], list[Sample]]:
    """Samples by (generation, engine, law): the fastest kernel of each shape, at most `limit` per law.

    An engine picks the fastest of its kernels for a shape, so the tables' others are left out.
    """
    fastest: dict[tuple[object, ...], Sample] = {}
    for name, read in READERS.items():
        for row in _rows(tables / f"{name}.csv.gz"):
            sample = read(row)
            if sample is None or not sample.seconds > 0:
                continue
            key = (sample.gpu, sample.engine, sample.law, sample.shape)
            if key not in fastest or sample.seconds < fastest[key].seconds:
                fastest[key] = sample
    groups: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in fastest.values():
        groups.setdefault((sample.generation, sample.engine, sample.law), []).append(sample)
    random = np.random.default_rng(seed)
    return {
        key: _thin(sorted(group, key=lambda s: (s.gpu, s.shape)), limit, random)
        for key, group in sorted(groups.items())
    }


def _thin(group: list[Sample], limit: int, random: np.random.Generator) -> list[Sample]:
    if len(group) <= limit:
        return group
    chosen: NDArray[np.int64] = np.sort(random.choice(len(group), limit, replace=False))
    return [group[i] for i in chosen]


def read_collectives(path: Path, backends: dict[str, str]) -> list[tuple[str, str, float, float, float]]:
    """(gpu, engine, ranks, bytes, seconds) of the custom all-reduces that CUDA graphs capture."""
    out = []
    for row in _rows(path):
        if row["backend"] == backends[row["engine"]]:
            ranks, size = float(row["num_gpus"]), 2.0 * float(row["message_size"])
            out.append((row["gpu"], row["engine"], ranks, size, float(row["latency_ms"]) * 1e-3))
    return out


def read_deepep(path: Path) -> list[Row]:
    """Rows of a DeepEP table as they are."""
    return list(_rows(path))
