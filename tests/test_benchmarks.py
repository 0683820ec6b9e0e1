"""The benchmarks run, on little: what they measure is no test's business."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from autotune.engines import traits_by_name
from autotune.planning import replay
from autotune.space import enumerate_space
from autotune.study import load_study
from benchmarks import __main__ as speed
from benchmarks import gpu, growth, planning, replays
from costmodel.arch import load_model
from costmodel.calibration.load import cell_columns, load_calibration
from costmodel.hardware import Cluster, load_gpu


def test_batch_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """One line with the number of evaluations, 200 loads of each plan, and how many of them a second takes."""
    study = load_study(speed.DEEPSEEK)
    speed.batch_speed(study)
    numbers = [int(n.replace(",", "")) for n in re.findall(r"(\d[\d,]*) (?:plan x|per CPU)", capsys.readouterr().out)]
    plans = enumerate_space(study.arch, gpus=study.cluster.gpus, engine="vllm").candidates
    assert numbers[0] == 200 * len(plans)
    assert numbers[1] > 0


def test_a_row_of_growth() -> None:
    """A whole study in a process of its own, its parts told apart and its evaluations counted."""
    row = growth.measure(("cluster.gpus=8", "baseline.plan=ADP8+EP"))
    assert row["evaluations"] > row["layouts"] > 0
    assert row["stored_mb"] > 0.0
    assert min(row["spent"][part] for part in ("model", "optuna", "output")) > 0.0


def test_gemms_of_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A GPU that does what one engine's law says is in agreement with that one, and not with all."""
    arch, h200 = load_model("meta-llama/Meta-Llama-3.1-70B"), load_gpu("h200_sxm")
    cell = (arch, Cluster(gpus=1, gpu=h200, gpus_per_node=8), traits_by_name()["vllm"], "bf16")
    rate = cell_columns([cell], [load_calibration("hopper", traits_by_name()["vllm"])]).rates.attention
    found = []
    for m in (1, 64, 4096):
        n = k = 4096
        flops, moved = np.array([2.0 * m * n * k]), np.array([2.0 * (n * k + m * (n + k))])
        seconds = float(rate.seconds(flops, moved)[0])
        found += [{"dtype": dtype, "m": m, "n": n, "k": k, "seconds": seconds} for dtype in gpu.DTYPES]
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"gpu": "NVIDIA H200", "torch": "2", "gemm": found}), encoding="utf-8")
    gpu.compare(path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("vllm bf16: mean error 0.0%, median measured / predicted 1.00")
    assert not any("mean error 0.0%" in line for line in lines[2:])


TWO_MODELS = """
engine = "vllm"
cluster = { gpus = 8, gpu = "h100_sxm" }
workload = { isl = 1000, osl = 100, request_rate_per_s = 20 }
models = [{ name = "chat", model = "llama-3.1-8b" }, { name = "search", model = "llama-3.1-8b" }]
"""


def test_planning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A day of few requests is planned and a cluster divided, each in one line with its size and its CPU seconds."""
    (tmp_path / "two.toml").write_text(TWO_MODELS, encoding="utf-8")
    monkeypatch.setattr(planning, "CLUSTER", tmp_path / "two.toml")
    monkeypatch.setattr(replay, "MOST_REQUESTS", 1_000)
    planning.division()
    planning.day(days=1, peak_per_s=0.3, overrides=("cluster.gpus=8",))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["divide", "plan-day"]
    assert "2 models on 8 GPUs" in lines[0]
    assert all(float(re.findall(r"([\d.]+) CPU-s", line)[0]) > 0.0 for line in lines)


def test_replayed_requests_wait_as_they_did(
    shared_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one factor on steps per run, TTFT and end to end of overloaded servers are within 5 % at p50 and p95."""
    monkeypatch.setattr("sys.argv", ["replays", str(shared_dir / "measurements" / "requests")])
    replays.main()
    header, *rows = (line.split(" | ") for line in capsys.readouterr().out.splitlines())
    assert len(rows) == 2
    for row in rows:
        errors = {name: float(cell.rstrip("%")) for name, cell in zip(header[2:], row[2:], strict=True)}
        assert max(abs(errors[name]) for name in ("TTFT p50", "TTFT p95", "E2E p50", "E2E p95")) < 5.0, row
