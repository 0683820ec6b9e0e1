"""The GEMM laws against a GPU of one's own.

`python benchmarks/gpu.py > measured.json` on a machine with PyTorch and a GPU (nothing of this project is needed there),
then `python -m benchmarks.gpu measured.json` where the project is installed: measured over predicted, by dtype and rows.
A check, never a calibration: `autotune calibrate` is for runs of one's own.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROWS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
MATRICES = {
    "qkv, Llama-70B, TP1": (10_240, 8_192),
    "o, Llama-70B, TP1": (8_192, 8_192),
    "up, Llama-70B, TP2": (28_672, 8_192),
    "down, Llama-70B, TP2": (8_192, 14_336),
    "qkv, Qwen3-235B, TP4": (2_304, 4_096),
    "o, Qwen3-235B, TP4": (4_096, 2_048),
    "LM head, Qwen3-235B, TP4": (37_984, 4_096),
    "up, Qwen3-32B, TP2": (25_600, 5_120),
}
DTYPES = ("bf16", "fp8")
ROTATED_BYTES = 400_000_000
"""Weights that calls take in turn: several times a GPU's L2, so that each call reads its own from HBM."""
CALLS = 20


def measure() -> None:
    """Print seconds per call of every matrix, dtype and number of rows, calls launched as one CUDA graph."""
    import torch

    found = []
    for name, (n, k) in MATRICES.items():
        for dtype in DTYPES:
            copies = max(2, ROTATED_BYTES // (n * k * (1 if dtype == "fp8" else 2)))
            weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
            if dtype == "fp8":
                weights = [w.to(torch.float8_e4m3fn) for w in weights]
            about = {"name": name, "dtype": dtype, "n": n, "k": k}
            found += [{**about, "m": m, "seconds": _gemm_s(torch, m, weights)} for m in ROWS]
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "gemm": found}))


def _gemm_s(torch: Any, m: int, weights: list[Any]) -> float:
    rows = torch.randn(m, weights[0].shape[1], device="cuda", dtype=torch.bfloat16)
    if weights[0].dtype == torch.bfloat16:
        return _graph_s(torch, [lambda w=w: rows @ w.T for w in _cycled(weights)])
    one, scaled_mm = torch.ones((), device="cuda"), getattr(torch, "_scaled_mm")  # noqa: B009  # its only name so far
    rows = rows.to(torch.float8_e4m3fn)
    return _graph_s(
        torch,
        [
            lambda w=w: scaled_mm(rows, w.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
            for w in _cycled(weights)
        ],
    )


def _cycled(weights: list[Any]) -> list[Any]:
    return [weights[i % len(weights)] for i in range(max(CALLS, len(weights)))]


def _graph_s(torch: Any, calls: list[Any]) -> float:
    """Seconds per call: median of seven replays of one CUDA graph."""
    for call in calls[:3]:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = []
    for _ in range(8):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e-3 / len(calls))
    return float(sorted(times[1:])[3])


def compare(path: Path) -> None:
    """Print measured over predicted."""
    import numpy as np

    from autotune.engines import traits_by_name
    from costmodel.arch import load_model, with_dtypes
    from costmodel.calibration.load import cell_columns, load_calibration
    from costmodel.hardware import Cluster, load_gpu

    document = json.loads(path.read_text(encoding="utf-8"))
    gpu = load_gpu(document["gpu"].split()[1].lower() + "_sxm")
    cluster = Cluster(gpus=1, gpu=gpu, gpus_per_node=gpu.gpus_per_node)
    print(f"{document['gpu']}, PyTorch {document['torch']}")
    for engine, traits in traits_by_name().items():
        calibration = load_calibration(gpu.generation, traits)
        for dtype in DTYPES:
            arch = with_dtypes(load_model("meta-llama/Meta-Llama-3.1-70B"), gemm_dtype=dtype, moe_dtype=None)
            rate = cell_columns([(arch, cluster, traits, arch.kv_dtype)], [calibration]).rates.attention
            ratios = defaultdict(list)
            for g in document["gemm"]:
                if g["dtype"] == dtype:
                    flops, width = 2.0 * g["m"] * g["n"] * g["k"], 1.0 if dtype == "fp8" else 2.0
                    moved = g["n"] * g["k"] * width + g["m"] * (g["n"] + g["k"]) * 2.0
                    law_s = float(rate.seconds(np.array([flops]), np.array([moved]))[0])
                    ratios[g["m"]].append(g["seconds"] / law_s)
            every = np.concatenate([np.array(r) for r in ratios.values()])
            by_rows = ", ".join(f"{m}: {np.median(r):.2f}" for m, r in ratios.items())
            print(
                f"{engine} {dtype}: mean error {np.abs(1.0 / every - 1.0).mean():.1%}, "
                f"median measured / predicted {np.median(every):.2f}; by rows {by_rows}"
            )


if __name__ == "__main__":
    compare(Path(sys.argv[1])) if len(sys.argv) > 1 else measure()
