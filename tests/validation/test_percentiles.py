"""Percentiles of a closed loop: what is learnt beside a mean, and what a verdict is drawn from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.report.verification import verification_document
from autotune.study import Study, load_study
from autotune.validation.bench import BenchResult, read_results
from autotune.validation.percentiles import predicted_latencies, run_by_percentiles
from autotune.validation.verify import UNJUDGED, verify
from tests.studies import FOLDER

ISL, OSL = 2000, 500


@pytest.fixture(scope="module")
def study() -> Study:
    """Llama-3.1-70B on two servers of eight H100."""
    return load_study(FOLDER / "llama-70b-16xh100.toml")


def closed_loop(path: Path, study: Study, in_flight: int, ttft_ms: float, tpot_ms: float) -> BenchResult:
    """What `vllm bench serve` writes of a closed loop by two TP8 servers; lengths are not said."""
    requests = 10 * in_flight
    record = {
        "completed": requests,
        "total_input_tokens": requests * ISL,
        "total_output_tokens": requests * OSL,
        "max_concurrency": in_flight,
        "duration": 10.0 * (ttft_ms + (OSL - 1) * tpot_ms) / 1e3,
        "mean_ttft_ms": ttft_ms,
        "median_ttft_ms": 0.95 * ttft_ms,
        "p99_ttft_ms": 2.2 * ttft_ms,
        "mean_tpot_ms": tpot_ms,
    }
    file = path / f"{in_flight}.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    (found,) = read_results(file, study, "R2 TP8")
    return found


@pytest.mark.parametrize(("in_flight", "ttft_ms"), [(8, 150.0), (16, 180.0), (64, 330.0)])
def test_a_mean_that_was_measured_is_learnt_from(in_flight: int, ttft_ms: float, study: Study, tmp_path: Path) -> None:
    """Whatever percentiles stand beside it, and whatever a simulation makes of them."""
    found = closed_loop(tmp_path, study, in_flight, ttft_ms, 12.0)
    run, percentiles = run_by_percentiles(found)
    assert run.ttft_s == pytest.approx(ttft_ms / 1e3)
    assert percentiles == 0


def test_requests_whose_lengths_are_not_said_are_not_in_step(study: Study, tmp_path: Path) -> None:
    """Some wait longer than others however few there are, and the median grows with the number in flight."""
    medians = []
    for in_flight in (8, 16, 32, 64):
        found = closed_loop(tmp_path, study, in_flight, 150.0, 12.0)
        rows = {name: likely.value for name, likely, _ in predicted_latencies(found, None, {})}
        assert rows["ttft_p50_s"] < 0.8 * rows["ttft_p99_s"]
        medians.append(rows["ttft_p50_s"])
    assert medians == sorted(medians)


def test_no_verdict_is_drawn_from_percentiles_of_a_closed_loop(study: Study, tmp_path: Path) -> None:
    """Means as they were predicted, and percentiles that were not: those are shown, said, and not held against it."""
    found = verify(study, [closed_loop(tmp_path, study, 128, 500.0, 26.0)])
    assert any(q.inside is False for run in found.runs for q in run.quantities)
    assert found.inside
    assert UNJUDGED in found.assumptions
    metrics = verification_document(found, source="r.json")["runs"][0]["metrics"]
    assert {name: row["judged"] for name, row in metrics.items() if "p50" in name or name == "ttft_s"} == {
        "ttft_s": True,
        "ttft_p50_s": False,
    }
