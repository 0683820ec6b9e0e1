"""Runs that contradict physics are found by rules, and others are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autotune.engines import traits_by_name
from costmodel.measured.implausible import contradiction, overloaded, plausible
from costmodel.measured.load_runs import LoadRun
from costmodel.measured.load_runs_csv import read_load_runs
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
    found = contradiction(replace(run, **changed))  # type: ignore[arg-type]  # all are floats
    assert found is not None
    assert rule in found.rule


@pytest.mark.parametrize(
    ("changed", "column", "least_ms", "seconds"),
    [
        # 65.5 GB at 6.7 TB/s; 2 x 32.8e9 x 1,024 products at 1,979 TFLOP/s
        ({"tpot_s": 16e-6}, "tpot_ms", 9.78, True),
        ({"tpot_s": 0.009}, "tpot_ms", 9.78, False),
        ({"ttft_s": 400e-6}, "ttft_ms", 33.9, True),
    ],
)
def test_what_is_below_the_least_possible_says_by_how_much(
    run: Run, changed: dict[str, float], column: str, least_ms: float, seconds: bool
) -> None:
    """Run, column, value and bound are told; a thousandth is in seconds, what is near may be of other weights."""
    found = contradiction(replace(run, **changed))  # type: ignore[arg-type]  # all are floats
    assert found is not None
    assert found.impossible
    assert (found.run, found.column, found.other_unit) == (run.id, column, seconds)
    assert found.bound_s * 1e3 == pytest.approx(least_ms, rel=0.01)
    (value,) = changed.values()
    assert found.measured_s == value
    assert f"got {value * 1e3:.3g}" in found.problem.message


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


LOAD_COLUMNS = (
    "gpu,engine,model,attn_tp,request_rate_per_s,max_num_seqs,isl_mean,osl_mean,osl_p5,osl_p50,osl_p95,"
    "ttft_mean_ms,ttft_p50_ms,e2e_mean_ms,e2e_p50_ms,tpot_mean_ms"
)


def _load_run(tmp_path: Path, **changed: float) -> LoadRun:
    """CodeLlama-34B on two H100, a tenth of whose outputs were counted as a fifth as long as the others."""
    values = {"rate": 5, "mean": 200, "ttft_mean": 45, "e2e_mean": 2905, "e2e_p50": 3600} | changed
    path = tmp_path / "runs.csv"
    row = (
        f"h100_sxm,vllm,codellama/CodeLlama-34b-Instruct-hf,2,{values['rate']},128,590,{values['mean']},50,250,252,"
        f"{values['ttft_mean']},45,{values['e2e_mean']},{values['e2e_p50']},14.4"
    )
    path.write_text(f"{LOAD_COLUMNS}\n{row}\n", encoding="utf-8")
    (found,) = read_load_runs(path, traits_by_name())
    return found


def test_outputs_that_took_longer_than_their_count_are_as_long_as_the_median(tmp_path: Path) -> None:
    """The mean of outputs is a fifth below their median, and the mean of times is the median: none was short."""
    found = _load_run(tmp_path, e2e_mean=3600)
    outputs = found.drawn()[2]
    assert outputs.min() >= 247
    assert ("tpot", "mean") not in found.measured
    assert any("counted" in said for said in found.assumptions)


@pytest.mark.parametrize("changed", [{}, {"e2e_mean": 3600, "ttft_mean": 900}])
def test_outputs_that_took_the_time_of_their_count_stay(tmp_path: Path, changed: dict[str, float]) -> None:
    """Short outputs that took less time were short; where first tokens take long, times say nothing of it."""
    found = _load_run(tmp_path, **changed)
    assert found.output.mean == 200
    assert found.drawn()[2].min() < 60
    assert ("tpot", "mean") in found.measured


@pytest.mark.parametrize(("e2e_mean", "expected"), [(2905, False), (50_000, False), (52_000, True)])
def test_a_server_is_overloaded_when_twice_its_seats_are_under_way(
    tmp_path: Path, e2e_mean: float, expected: bool
) -> None:
    """Five requests a second for 51.2 s each are 256, and 128 of them have a seat."""
    assert overloaded(_load_run(tmp_path, e2e_mean=e2e_mean, ttft_mean=40_000)) is expected
