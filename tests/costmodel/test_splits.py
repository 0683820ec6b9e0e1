"""What is left out of a fit, and what stays in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autotune.engines import traits_by_name
from costmodel.measured.runs import Run, prepare_runs
from costmodel.measured.runs_csv import read_runs
from tools.fit_calibration.splits import splits_of

HEADER = "gpu,engine,engine_version,model,precision,gemm_dtype,isl,osl,lengths,concurrency,attn_tp,ttft_ms,tpot_ms"
CELLS = (
    ("h100_sxm", "vllm", "0.9.2", "Qwen/Qwen3-32B", "bf16,"),
    ("h200_sxm", "vllm", "0.9.2", "Qwen/Qwen3-32B", "bf16,"),
    ("h100_sxm", "vllm", "0.10.0", "Qwen/Qwen3-32B", "bf16,"),
    ("h100_sxm", "vllm", "0.10.0rc1", "Qwen/Qwen3-32B", "bf16,"),
    ("h100_sxm", "vllm", "nightly-1", "Qwen/Qwen3-32B", "bf16,"),
    ("h100_sxm", "vllm", "", "meta-llama/Llama-3.1-8B-Instruct", "fp8,fp8"),
)

LOADS = ((8, "fixed"), (16, "uniform"))


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Run, ...]:
    """Two runs of each cell."""
    rows = [f"{','.join(cell)},1024,512,{lengths},{n},2,100,20" for cell in CELLS for n, lengths in LOADS]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    return read_runs(path, traits_by_name())


def test_no_run_is_predicted_by_itself(runs: tuple[Run, ...]) -> None:
    """Nor by what a fold leaves out with it; every run is predicted where nothing is hidden by its version."""
    splits = splits_of(runs)
    for folds in splits.values():
        assert not any((fold.test & fold.train).any() for fold in folds)
        assert np.sum([fold.test for fold in folds], axis=0).max() <= 1
    for name in ("deployment", "model", "gpu", "precision", "source"):
        assert np.sum([fold.test for fold in splits[name]], axis=0).min() == 1, name


def test_what_all_runs_have_in_common_is_left_out_nowhere(runs: tuple[Run, ...]) -> None:
    """Nothing would be left to fit on."""
    splits = splits_of(runs)
    assert not {"generation", "kind"} & splits.keys()
    assert all(fold.train.any() for name in ("model", "gpu", "version", "precision") for fold in splits[name])


def test_versions_are_left_out_everywhere(runs: tuple[Run, ...]) -> None:
    """On all GPUs; runs that name none are no version; a release is newer than its candidates and any nightly build."""
    splits = splits_of(runs)
    assert {fold.name: int(fold.test.sum()) for fold in splits["version"]} == {
        "vllm 0.10.0": 2,
        "vllm 0.10.0rc1": 2,
        "vllm 0.9.2": 4,
        "vllm nightly-1": 2,
    }
    (newest,) = splits["newest version"]
    assert {runs[i].engine_version for i in np.flatnonzero(newest.test)} == {"0.10.0"}


def test_a_gpu_and_its_versions_are_left_out_together(runs: tuple[Run, ...]) -> None:
    """Other GPUs' runs of the versions are not fitted on either, nor the GPU's runs of any version."""
    fold = next(f for f in splits_of(runs)["gpu and version"] if f.name == "h200_sxm vllm")
    assert {(r.gpu, r.engine_version) for r, there in zip(runs, fold.test, strict=True) if there} == {
        ("h200_sxm", "0.9.2")
    }
    assert not any(r.gpu == "h200_sxm" or r.engine_version == "0.9.2" for r in _of(runs, fold.train))


def _of(runs: tuple[Run, ...], mask: np.ndarray) -> list[Run]:
    return [run for run, there in zip(runs, mask, strict=True) if there]


def test_a_ladder_of_powers_of_two_begins_all_at_once(tmp_path: Path) -> None:
    """Requests of a server that was measured at other numbers in flight too do not stay in step."""
    cells = [("h100_sxm", n) for n in (8, 16)] + [("h200_sxm", n) for n in (8, 12)]
    rows = [f"{gpu},vllm,0.9.2,Qwen/Qwen3-32B,bf16,,1024,512,fixed,{n},2,100,20" for gpu, n in cells]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    runs = read_runs(path, traits_by_name())
    assert [r.staggered for r in runs] == [False, False, True, True]
    assert prepare_runs(runs).load.same_lengths.tolist() == [1.0, 1.0, 0.0, 0.0]
