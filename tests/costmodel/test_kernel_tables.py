"""Which calls of the micro-benchmarks the laws of grouped GEMMs are fitted on."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from autotune.engines import ENGINES
from tools.fit_calibration.__main__ import _borrowed, _untuned
from tools.fit_calibration.kernels import fit_law, predict
from tools.fit_calibration.tables import READERS, Sample, read_kernels

COLUMNS = (
    "gpu,engine,kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,moe_ep_size,"
    "distribution,latency_ms"
)


def _read(folder: Path, *rows: str) -> dict[tuple[str, str, str], list[Sample]]:
    for name in READERS:
        with gzip.open(folder / f"{name}.csv.gz", "wt", encoding="utf-8") as file:
            file.write("gpu\n" if name != "moe" else "\n".join((COLUMNS, *rows)) + "\n")
    return read_kernels(folder, 100, 0)


def _call(gpu: str, engine: str, source: str, dtype: str, *, tokens: int = 64, ep: int = 1, ms: float = 1.0) -> str:
    return f"{gpu},{engine},{source},{dtype},{tokens},2880,2880,4,32,2,{ep},power_law_1.01,{ms}"


@pytest.mark.parametrize(
    ("gpu", "dtype", "source", "kept"),
    [
        ("b200_sxm", "w4a8_mxfp4_mxfp8", "moe_torch_flow", True),
        ("b200_sxm", "w4a16_mxfp4", "moe_torch_flow", False),
        ("h200_sxm", "w4a16_mxfp4", "moe_torch_flow", True),
        ("b200_sxm", "nvfp4", "moe_torch_flow_min_latency", True),
        ("b200_sxm", "nvfp4", "moe_torch_flow_cutlass", False),
        ("b200_sxm", "bfloat16", "moe_torch_flow_cutlass", True),
    ],
)
def test_kernels_that_widen(tmp_path: Path, gpu: str, dtype: str, source: str, *, kept: bool) -> None:
    """On Blackwell those that keep 16-bit activations are left out; Hopper has no others."""
    assert bool(_read(tmp_path, _call(gpu, "trtllm", source, dtype))) == kept


def test_the_fastest_kernel_without_expert_parallelism(tmp_path: Path) -> None:
    """Of one shape the fastest call; none that ran a share of the experts, whose tokens lie unevenly."""
    found = _read(
        tmp_path,
        _call("h200_sxm", "vllm", "triton", "fp8", ms=3.0),
        _call("h200_sxm", "vllm", "cutlass", "fp8", ms=2.0),
        _call("h200_sxm", "vllm", "cutlass", "fp8", ep=4, ms=0.5),
    )
    (((generation, engine, law), samples),) = found.items()
    assert (generation, engine, law) == ("hopper", "vllm", "moe_fp8")
    (sample,) = samples
    assert sample.seconds == pytest.approx(2e-3)
    # 64 tokens of 4 experts each, both halves of the gated matrices and the one back, a share of two ranks
    assert sample.math_s == pytest.approx(2 * 64 * 4 * 3 * 2880 * 2880 / 2 / 1979e12, rel=0.01)
    # every row once at 4.8 TB/s, whatever the ranks share; a row of padding for each of the 32 experts, all hit
    assert sample.pass_s == pytest.approx(64 * 4 * 2880 * 2 / 4.8e12, rel=0.01)
    assert sample.pad_s == pytest.approx(sample.math_s * 32 / (64 * 4), rel=0.01)


def test_a_law_finds_the_passes_of_rows() -> None:
    """Calls that a law with seven passes of their rows makes are fitted with about seven, and to three percent."""
    tokens, tp = (grid.ravel() for grid in np.meshgrid(2.0 ** np.arange(15), 2.0 ** np.arange(4)))
    parts_s = (tokens * 4e-8 / tp, (9e-5 + tokens * 1e-9) / tp, 6e-8 / tp, tokens * 2e-9)
    seconds = predict(np.array([2e-5, 0.5, 0.8, 0.9, 8.0, 7.0]), *parts_s)
    samples = [
        Sample("hopper", "vllm", "moe_fp8", "h200_sxm", (float(i),), whole, math_s, hbm_s, pad_s, pass_s)
        for i, (whole, math_s, hbm_s, pad_s, pass_s) in enumerate(zip(seconds, *parts_s, strict=True))
    ]
    law = fit_law(samples)
    assert law["row_passes"] == pytest.approx(7.0, rel=0.2)
    assert law["held_out_mape"] < 0.03


def test_experts_of_untuned_kernels_are_another_engines() -> None:
    """FP8 that reads a weight in more time than bf16 does is no measurement of a server: those tune their kernels."""
    bf16, slow, quick = ({"t0_s": 1e-5, "hbm_eff": share} for share in (0.9, 0.4, 0.8))
    tables = {
        ("hopper", "vllm"): {"moe_bf16": bf16, "moe_fp8": slow},
        ("hopper", "trtllm"): {"moe_bf16": bf16, "moe_fp8": quick},
        ("hopper", "sglang"): {"moe_bf16": bf16},
    }
    found = _borrowed(tables)
    assert found["hopper", "trtllm"]["moe_fp8"] == quick
    for engine in ("vllm", "sglang"):
        assert found["hopper", engine]["moe_fp8"] == {**quick, "borrowed_from": "trtllm"}


@pytest.mark.parametrize("engine", ENGINES)
def test_narrower_experts_are_read_no_more_slowly(engine: str) -> None:
    """Decoding few tokens is reading weights: of each shipped law of narrower ones, in less time than bf16's."""
    for path in files("costmodel.calibration.data").iterdir():
        if path.name.endswith(f"-{engine}.json") and not path.name.startswith("residual"):
            kernels = json.loads(path.read_text(encoding="utf-8"))["kernels"]
            assert {"moe_bf16", "moe_fp8"} <= kernels.keys()
            assert _untuned(kernels) == set()
