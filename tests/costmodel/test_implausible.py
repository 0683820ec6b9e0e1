"""Runs that contradict physics are found by rules, and others are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autotune.engines import traits_by_name
from costmodel.measured.implausible import contradiction, plausible
from costmodel.measured.runs import Run
from costmodel.measured.runs_csv import read_runs

ROWS = """gpu,engine,model,isl,osl,concurrency,attn_tp,ttft_ms,tpot_ms
h100_sxm,vllm,Qwen/Qwen3-32B,1024,512,16,2,400,16
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Qwen3-32B in bf16 on two H100: 64 GB at 6.7 TB/s take 9.8 ms to read."""
    path = tmp_path / "runs.csv"
    path.write_text(ROWS, encoding="utf-8")
    (found,) = read_runs(path, traits_by_name())
    return found


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"tpot_s": 0.009}, "read time"),
        ({"ttft_s": 0.01}, "at the GPUs' peak"),
        ({"ttft_s": 28.9}, "multiple of the time"),
    ],
)
def test_what_cannot_be_is_found(run: Run, changed: dict[str, float], rule: str) -> None:
    """Each rule finds its own case."""
    assert rule in (contradiction(replace(run, **changed)) or "")  # type: ignore[arg-type]  # all are floats


@pytest.mark.parametrize(
    "changed",
    [{}, {"ttft_s": float("nan")}, {"tpot_s": 0.0105}, {"ttft_s": 28.9, "concurrency": 256.0}, {"ttft_s": 8.0}],
)
def test_what_can_be_is_kept(run: Run, changed: dict[str, float]) -> None:
    """A slow server, an overloaded one and one without a TTFT are no contradictions."""
    assert contradiction(replace(run, **changed)) is None  # type: ignore[arg-type]  # all are floats


def test_they_are_counted_by_rule(run: Run) -> None:
    """What is left out is named, so that it can be looked at."""
    kept, left_out = plausible([run, replace(run, id="odd", ttft_s=28.9)])
    assert kept == (run,)
    assert list(left_out.values()) == [("odd",)]
