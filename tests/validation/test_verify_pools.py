"""A benchmark of a disaggregated plan against its prediction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autotune.report.verification import verification_document, verification_report
from autotune.study import Study
from autotune.tuning.answer_study import score_plan
from autotune.validation.bench import read_results
from autotune.validation.pool_prediction import predicted_pool_latencies
from autotune.validation.verify import verify
from costmodel.errors import InputError
from tests.command import autotune
from tests.tuning.brute import question

PLAN = "P4:TP4+D4:R2 TP2"
IN_FLIGHT = 64


def _study(**workload: float) -> Study:
    return question(
        "llama-3.1-8b",
        cluster={"gpus": 8, "gpu": "h100_sxm", "gpus_per_node": 8},
        workload={"isl": 2003, "osl": 101, **workload},
        search={"max_num_batched_tokens": [8192], "disaggregated": "only"},
    )


def _result(path: Path, *, tpot: float = 1.0, **fields: object) -> Path:
    """As the closed loop has it, with another TPOT if it is told so."""
    plan = score_plan(_study(concurrency=IN_FLIGHT), PLAN).result
    assert plan is not None
    took_s = 100.0
    completed = round(plan.metrics["requests_per_s"] * took_s)
    record = {
        "completed": completed,
        "total_input_tokens": completed * 2003,
        "total_output_tokens": completed * 101,
        "mean_ttft_ms": 1e3 * plan.metrics["ttft_s"],
        "mean_tpot_ms": 1e3 * plan.metrics["tpot_s"] * tpot,
        "p99_ttft_ms": 2e3 * plan.metrics["ttft_s"],
        "max_concurrency": IN_FLIGHT,
        "duration": took_s * tpot,
        "failed": 0,
        "autotune_plan": plan.plan,
        **fields,
    }
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def test_what_was_predicted_is_inside_and_teaches_nothing(tmp_path: Path) -> None:
    """Means and a percentile lie in their intervals; both rankings are one, and its first plan leads."""
    study = _study()
    found = verify(study, read_results(_result(tmp_path / "r.json"), study, None))
    document = verification_document(found, source="r.json")
    metrics = document["runs"][0]["metrics"]
    assert document["plan"] == "vllm:P4:R1/PP1/ATP4/ADP1/MTP1/EP1+D4:R2/PP1/ATP2/ADP1/MTP1/EP1"
    assert document["inside"]
    assert set(metrics) == {"ttft_s", "tpot_s", "output_tokens_per_s", "total_tokens_per_s", "ttft_p99_s"}
    for name in ("ttft_s", "tpot_s", "output_tokens_per_s"):
        assert metrics[name]["measured_over_predicted"] == pytest.approx(1.0, rel=0.1)
    assert not document["ranking"]["learnt"]
    assert not document["ranking"]["changes"]
    assert any(row["plan"] == document["plan"] for row in document["ranking"]["plans"])
    assert verification_report(document).blocks


def test_percentiles_of_a_closed_loop_lie_about_its_mean(tmp_path: Path) -> None:
    """Requests of one length: the simulated percentiles are those of the mean that is predicted beside them."""
    study = _study()
    fields = {"median_ttft_ms": 400.0, "p99_ttft_ms": 800.0}
    (run,) = verify(study, read_results(_result(tmp_path / "r.json", **fields), study, None)).runs
    found = {q.name: q.predicted for q in run.quantities}
    (point,) = read_results(_result(tmp_path / "s.json", **fields), study, None)
    assert point.pooled is not None
    plain = {name: likely.value for name, likely, _ in predicted_pool_latencies(study, point.pooled, point, {})}
    assert found["ttft_p99_s"] / found["ttft_p50_s"] == pytest.approx(
        plain["ttft_p99_s"] / plain["ttft_p50_s"], rel=1e-9
    )
    assert found["ttft_p99_s"] != pytest.approx(plain["ttft_p99_s"], rel=1e-3)
    assert found["ttft_p99_s"] > found["ttft_s"]


def test_a_slow_run_is_outside(tmp_path: Path) -> None:
    """Three times the predicted TPOT lies beyond the interval of a plan whose like was not measured, too."""
    study = _study()
    found = verify(study, read_results(_result(tmp_path / "r.json", tpot=3.0), study, None))
    assert not found.inside
    assert next(q for q in found.runs[0].quantities if q.name == "tpot_s").inside is False


def test_calibrate_takes_no_pools(tmp_path: Path) -> None:
    """A calibration of one's own is of servers that prefill and decode."""
    study = tmp_path / "study.toml"
    study.write_text(
        'engine = "vllm"\nmodel = "llama-3.1-8b"\n[cluster]\ngpus = 8\ngpu = "h100_sxm"\n[workload]\nisl = 2003\n'
        "osl = 101\n",
        encoding="utf-8",
    )
    words = ["calibrate", str(_result(tmp_path / "r.json")), "--study", str(study), "--out", str(tmp_path / "own.json")]
    done = autotune(*words)
    assert done.returncode == 2
    assert "is of the disaggregated plan" in done.stderr


def test_a_plan_that_cannot_run_is_refused(tmp_path: Path) -> None:
    """A pool that breaks a rule, and another plan than the result names, are errors, not figures."""
    path = _result(tmp_path / "r.json", autotune_plan="P5:TP5+D3:TP3")
    with pytest.raises(InputError, match="must be a plan that can run"):
        read_results(path, _study(), None)
    with pytest.raises(InputError, match="must be what was measured"):
        read_results(_result(tmp_path / "s.json"), _study(), "P4:TP4+D4:TP4")


def test_means_at_a_rate_beyond_the_plan_are_those_of_the_percentiles(tmp_path: Path) -> None:
    """At twice what the pools serve the mean wait is about half of the longest, and no less."""
    study = _study()
    lengths = {"completed": 2000, "total_input_tokens": 2000 * 2003, "total_output_tokens": 2000 * 101}
    changes = {"request_rate": 200.0, "max_concurrency": None, "duration": 50.0}
    (run,) = verify(study, read_results(_result(tmp_path / "r.json", **lengths, **changes), study, None)).runs
    found = {q.name: q.predicted for q in run.quantities}
    assert len(found) == len(run.quantities)
    assert 0.3 * found["ttft_p99_s"] < found["ttft_s"] < 0.7 * found["ttft_p99_s"]
