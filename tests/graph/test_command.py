"""`autotune dag` as a user runs it: outputs, exit codes, time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.cli.main import main
from tests.command import autotune
from tests.graph.plans import DEEPSEEK, REFERENCE


def _dag(*arguments: str) -> str:
    """What the command prints."""
    done = autotune("dag", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_document_on_stdout() -> None:
    """Without `--out` the document itself comes out, and nothing else."""
    document = json.loads(_dag(REFERENCE, "--collapse", "layer", "--phase", "prefill"))
    assert document["graph"]["phase"] == "prefill"
    assert document["graph"]["collapse"] == "layer"
    assert _dag(REFERENCE, "--collapse", "layer", "--format", "dot").startswith("digraph")


def test_summary_of_what_was_written(tmp_path: Path) -> None:
    """JSON in a pipe: both steps, where the file lies, what was assumed; the table says the same."""
    out = tmp_path / "graph.json"
    summary = json.loads(_dag(REFERENCE, "--out", str(out)))
    assert summary["out"] == str(out)
    assert summary["scheduled_step_s"] == pytest.approx(summary["model_step_s"], rel=0.05)
    assert sum(summary["seconds_by_group"].values()) < summary["scheduled_step_s"]
    assert summary["assumptions"]
    assert json.loads(out.read_text(encoding="utf-8"))["graph"]["num_nodes"] == summary["num_nodes"]
    table = " ".join(_dag(REFERENCE, "--out", str(out), "--table").split())
    assert f"{summary['model_step_s'] * 1e3:.3f} ms" in table
    assert all(text in table for text in summary["assumptions"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "engine=trtllm", "--plan", "EP16/PP2/TP4/DP4"], 3, "breaks attention_dp_all_or_nothing"),
        (["--plan", "TP7xPP2"], 2, "--plan"),
        (["--plan", "QQ7"], 2, "cannot read 'qq7'"),
        (["--plan", "EP16/PP2/TP4/DP4", "--set", "workload.isl=-1"], 2, "$.workload.isl"),
        (["--replicas", "5"], 2, "replicas: must be from 1 to the plan's 4, got 5"),
        (["--replicas", "0"], 2, "--replicas"),
        (["--phase", "train"], 2, "--phase"),
        (["--format", "svg"], 2, "--format"),
        (["--format", "chakra"], 2, "--out: chakra writes a file per GPU: name a folder"),
        (["--format", "chakra", "--out", "x", "--collapse", "rank"], 2, "--collapse"),
        (["--out", "/dev/null/x.json"], 2, "must lie in a folder that exists"),
    ],
)
def test_wrong_input(
    arguments: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The rule or the field is named, the exit code says which of the two it is, and nothing is on stdout."""
    monkeypatch.setattr(sys, "argv", ["autotune", "dag", REFERENCE, *arguments])
    with pytest.raises(SystemExit, match=f"^{code}$"):
        main()
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_reference_plan_as_traces(tmp_path: Path) -> None:
    """One replica of the reference plan, a trace for each of its 32 GPUs."""
    _dag(REFERENCE, "--format", "chakra", "--out", str(tmp_path / "traces"))
    assert len(list((tmp_path / "traces").glob("*.et"))) == 32


ALL_FORMATS = """
import resource, sys
from autotune.cli.main import cli
study, folder = sys.argv[1:]
for form in ("json", "dot", "perfetto", "chakra"):
    arguments = ["dag", study, "--plan", "R1/PP8/TP4/DP4/EP16", "--format", form, "--out", f"{folder}/{form}"]
    cli(arguments, standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_128_gpus_in_every_format(tmp_path: Path) -> None:
    """DeepSeek-V3's 61 layers on all of 128 GPUs, the four formats one after the other: within 2 GB."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_FORMATS, DEEPSEEK, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[-1]) < 2_000_000
    assert all((tmp_path / form).stat().st_size > 0 for form in ("json", "dot", "perfetto"))
    assert len(list((tmp_path / "chakra").glob("rank.*.et"))) == 128
