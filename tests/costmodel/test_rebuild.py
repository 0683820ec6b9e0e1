"""The calibration files are rebuilt from measurements by one command, the same to the last byte."""

from __future__ import annotations

import itertools
import shutil
from importlib.resources import files
from pathlib import Path

import pytest

import tools.fit_calibration.residual
import tools.fit_calibration.serving
import tools.fit_calibration.splits
from tools.fit_calibration.__main__ import main

COLUMNS = "id,gpu,engine,engine_version,model,precision,isl,osl,lengths,concurrency,attn_tp,ttft_ms,tpot_ms"
MODELS, LENGTHS = ("Qwen/Qwen3-32B", "openai/gpt-oss-120b"), ("fixed", "uniform")
KINDS = ("h100_sxm,vllm", "h200_sxm,vllm", "h100_sxm,sglang")
SERVERS = tuple(itertools.product(KINDS, ("0.9.2", "0.10.0"), MODELS))
FEW, MANY = 2, 20


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs of every reach in several folds, and of one server as many as the score of eight runs asks for."""
    rows = [
        f"{i}-{n},{kind},{version},{model},bf16,1024,512,{LENGTHS[n % 2]},{4 + n},{1 + n % 2},{160 + n},{30 + n}"
        for i, (kind, version, model) in enumerate(SERVERS)
        for n in range(FEW if i else MANY)
    ]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([COLUMNS, *rows]), encoding="utf-8")
    return path


def test_two_builds_are_alike_to_the_byte(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and predictions out of sample; the fits may stop early, as they are not what is asked for here."""
    for module, name in (
        (tools.fit_calibration.serving, "ITERATIONS"),
        (tools.fit_calibration.serving, "ITERATIONS_ON"),
        (tools.fit_calibration.residual, "ITERATIONS"),
        (tools.fit_calibration.residual, "ROBUST_ROUNDS"),
    ):
        monkeypatch.setattr(module, name, 1)
    monkeypatch.setattr(tools.fit_calibration.splits, "DEPLOYMENT_FOLDS", 2)
    shipped = Path(str(files("costmodel.calibration") / "data"))
    built = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        shutil.copytree(shipped, folder)
        splits = folder / "splits.csv"
        monkeypatch.setattr("sys.argv", ["fit", "--runs", str(runs), "--out", str(folder), "--splits", str(splits)])
        main()
        built.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert built[0] == built[1]
    changed = {name for name, content in built[0].items() if name.endswith(".json") and name != "pools.json"}
    assert all(built[0][name] != (shipped / name).read_bytes() for name in changed)
    assert len(changed) == len(list(shipped.iterdir())) - 1
