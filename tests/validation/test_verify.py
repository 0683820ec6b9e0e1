"""`autotune verify`: a benchmark against its prediction, learnt, and ranked again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from autotune.cli.main import cli
from autotune.report.vocabulary.plan_names import name_of_key
from autotune.study import load_study
from autotune.study.portable import portable_study
from autotune.tuning import tune
from autotune.tuning.answer_study import score_plan
from autotune.validation.bench import BenchKnobs, read_results
from autotune.validation.verify import verify
from costmodel.errors import InputError
from costmodel.measured.runs import prepare_runs
from tests.remembered import asked_once
from tests.studies import FOLDER

STUDY = FOLDER / "deepseek-v3-128xh200.toml"
PLAN = "vllm:R8/PP1/ATP2/ADP8/MTP1/EP16"
RESULT = {
    "completed": 3050,
    "total_input_tokens": 3050 * 4000,
    "total_output_tokens": 3050 * 1000,
    "mean_ttft_ms": 1150.0,
    "mean_tpot_ms": 41.2,
    "max_concurrency": 305,
    "duration": 430.0,
    "failed": 0,
    "autotune_plan": PLAN,
    "autotune_lengths": "fixed",
    "autotune_replicas": "1",
}


@pytest.fixture(scope="module", autouse=True)
def _answered_once() -> Iterator[None]:
    """The ranking before is that of one study in most tests."""
    with asked_once((import_module("autotune.validation.verify"), "tune"), (sys.modules[__name__], "tune")):
        yield


def write(path: Path, **changes: Any) -> Path:
    """A result with changes; None takes a field out."""
    record = {k: v for k, v in (RESULT | changes).items() if v is not None}
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def test_one_replica_stands_for_all(tmp_path: Path) -> None:
    """A benchmark of one replica of eight is eight times the load and the throughput of the plan."""
    study = load_study(STUDY)
    (one,) = read_results(write(tmp_path / "one.json"), study, None)
    eight = {name: 8 * RESULT[name] for name in ("completed", "total_input_tokens", "total_output_tokens")}
    every = write(tmp_path / "all.json", max_concurrency=2440, autotune_replicas="8", **eight)
    (all_,) = read_results(every, study, None)
    assert one.run.concurrency == all_.run.concurrency == 2440
    assert one.output_tokens_per_s == pytest.approx(all_.output_tokens_per_s)
    assert all_.output_tokens_per_s == pytest.approx(8 * 3050 * 1000 / 430.0)
    assert one.run.same_lengths
    assert not read_results(write(tmp_path / "x.json", autotune_lengths="uniform"), study, None)[0].run.same_lengths


def test_sglang_says_the_same_in_its_tag(tmp_path: Path) -> None:
    """Plan, replicas and lengths stand in the tag of SGLang's lines."""
    study = load_study(STUDY, ["engine=any"])
    plan = "sglang:R8/PP1/ATP2/ADP8/MTP1/EP16"
    path = tmp_path / "result.jsonl"
    line = {k: v for k, v in RESULT.items() if not k.startswith("autotune")} | {
        "tag": f"autotune_plan={plan};autotune_lengths=fixed;autotune_replicas=8"
    }
    path.write_text(f"{json.dumps(line)}\n{json.dumps(line)}\n", encoding="utf-8")
    first, second = read_results(path, study, None)
    assert first.plan == second.plan == plan
    assert (first.replicas, first.run.same_lengths) == (8, True)


@pytest.mark.parametrize(
    ("changes", "plan", "why"),
    [
        ({"autotune_replicas": "9"}, None, "must drive 1 to 8 replicas, says '9'"),
        ({"autotune_replicas": "x"}, None, "must drive 1 to 8 replicas"),
        ({}, "R4/PP2/TP2/DP8/EP16", r"--plan: must be what was measured: .* says vllm:R8"),
        ({"autotune_plan": None}, None, "--plan: is required"),
        ({"autotune_plan": "nonsense"}, None, r"r\.json:1"),
        ({"completed": 0}, None, "must have prompt tokens, output tokens"),
    ],
)
def test_results_that_cannot_be_meant(tmp_path: Path, changes: dict[str, Any], plan: str | None, why: str) -> None:
    """Another plan, more replicas than there are, no plan at all: an error, not a figure."""
    with pytest.raises(InputError, match=why):
        read_results(write(tmp_path / "r.json", **changes), load_study(STUDY), plan)


def test_what_was_predicted_is_inside_and_changes_nothing(tmp_path: Path) -> None:
    """A benchmark that measures the prediction itself lies inside at ratio 1, and the same plan leads."""
    study = load_study(STUDY)
    knobs = BenchKnobs(batched_tokens=16384.0, max_num_seqs=58.0)
    (blank,) = read_results(write(tmp_path / "r.json"), study, None, knobs)
    estimate = prepare_runs([blank.run]).evaluate()
    exact = replace(
        blank,
        run=replace(blank.run, ttft_s=float(estimate.ttft_s[0]), tpot_s=float(estimate.tpot_s[0])),
        output_tokens_per_s=float(estimate.output_tokens_per_s[0]),
        total_tokens_per_s=float(estimate.total_tokens_per_s[0]),
    )
    found = verify(study, [exact])
    assert found.inside
    assert not found.changes
    for quantity in found.runs[0].quantities:
        assert quantity.p10 < quantity.measured == quantity.predicted < quantity.p90
        assert quantity.p90 / quantity.predicted == pytest.approx(quantity.predicted / quantity.p10)


def test_the_prediction_is_the_plans_own(tmp_path: Path) -> None:
    """But for a benchmark's beginning, in which all wait, verify predicts at the plan's load what the ranking holds."""
    study = load_study(STUDY)
    best = tune(study).ranked[0]
    changes = {
        "max_concurrency": best.knobs.concurrency,
        "autotune_lengths": "uniform",
        "autotune_replicas": str(best.layout.replicas),
        "duration": None,
    }
    knobs = BenchKnobs(batched_tokens=float(best.knobs.max_num_batched_tokens))
    (result,) = read_results(write(tmp_path / "r.json", autotune_plan=best.plan, **changes), study, None, knobs)
    benchmark = prepare_runs([result.run])
    steady = replace(benchmark, load=replace(benchmark.load, waves=np.zeros(1)))
    estimate = steady.evaluate()
    assert float(estimate.tpot_s[0]) == pytest.approx(best.metrics["tpot_s"], rel=1e-6)
    assert float(estimate.ttft_s[0]) == pytest.approx(best.metrics["ttft_s"], rel=1e-6)
    assert float(benchmark.evaluate().ttft_s[0]) > best.metrics["ttft_s"]


def test_what_arrives_at_a_rate_does_not_begin_all_at_once(tmp_path: Path) -> None:
    """A run at a request rate is predicted as the ranking has that load, though its requests have the same lengths."""
    study = load_study(STUDY)
    best = tune(study).ranked[0]
    rate = best.metrics["requests_per_s"] / best.layout.replicas
    changes = {
        "autotune_plan": best.plan,
        "request_rate": rate,
        "max_concurrency": None,
        "duration": RESULT["completed"] / rate,
        "mean_ttft_ms": 1e3 * best.metrics["ttft_s"],
        "mean_tpot_ms": 1e3 * best.metrics["tpot_s"],
    }
    knobs = BenchKnobs(batched_tokens=float(best.knobs.max_num_batched_tokens))
    (result,) = read_results(write(tmp_path / "r.json", **changes), study, None, knobs)
    assert result.run.same_lengths
    assert result.run.concurrency == pytest.approx(best.knobs.concurrency, rel=0.01)
    assert prepare_runs([result.run]).evaluate().ttft_s[0] == pytest.approx(best.metrics["ttft_s"], rel=0.01)
    closed = replace(result.run, open_loop=False)
    assert prepare_runs([closed]).evaluate().ttft_s[0] > 1.1 * best.metrics["ttft_s"]


def test_means_and_percentiles_are_of_one_prediction(tmp_path: Path) -> None:
    """At a rate beyond what a plan serves the mean lies within the percentiles, and both grow with the run's length."""
    study = load_study(STUDY)
    predicted = []
    for completed in (3000, 6000):
        changes = {
            "completed": completed,
            "total_input_tokens": completed * 4000,
            "total_output_tokens": completed * 1000,
            "request_rate": 50.0,
            "max_concurrency": None,
            "duration": completed / 6.0,
            "mean_ttft_ms": 1e3 * completed / 14.0,
            "median_ttft_ms": 1e3 * completed / 14.0,
            "p99_ttft_ms": 1e3 * completed / 7.0,
        }
        knobs = BenchKnobs(batched_tokens=16384.0, max_num_seqs=8.0)
        (result,) = read_results(write(tmp_path / "r.json", **changes), study, None, knobs)
        (run,) = verify(study, [result]).runs
        found = {q.name: q.predicted for q in run.quantities}
        assert len(found) == len(run.quantities)
        assert found["ttft_s"] == pytest.approx(found["ttft_p50_s"], rel=0.2)
        assert found["ttft_s"] < found["ttft_p99_s"] < 3.0 * found["ttft_s"]
        predicted.append(found["ttft_p99_s"])
    assert predicted[1] == pytest.approx(2.0 * predicted[0], rel=0.2)


def test_a_slow_measurement_is_outside_and_changes_the_ranking(tmp_path: Path) -> None:
    """One engine measured three times slower than predicted falls behind the others, and the report says so."""
    study = load_study(STUDY, ["engine=any", "constraints=", "workload.concurrency=2048"])
    leader = tune(study).ranked[0]
    engine = leader.plan.partition(":")[0]
    factor = 3.0
    changes = {
        "autotune_plan": leader.plan,
        "autotune_replicas": str(leader.layout.replicas),
        "max_concurrency": 2048,
        "mean_ttft_ms": leader.metrics["ttft_s"] * 1e3 * factor,
        "mean_tpot_ms": leader.metrics["tpot_s"] * 1e3 * factor,
        "duration": 3050 * 1000 / leader.metrics["output_tokens_per_s"] * factor,
    }
    found = verify(study, read_results(write(tmp_path / "r.json", **changes), study, None))
    assert not found.inside
    assert found.changes
    assert found.best_before == leader.plan
    assert found.best_after is not None
    assert not found.best_after.startswith(engine)
    assert found.p_best_after_is_better is not None
    assert found.p_best_after_is_better > 0.5
    place = next(p for p in found.places if p.plan == leader.plan)
    assert place.before == 1
    assert place.after is None or place.after > 1


SECONDS = {"mean_ttft_ms": 1.15, "mean_tpot_ms": 0.0412}


def test_a_result_in_seconds_is_refused(tmp_path: Path) -> None:
    """37B active parameters in FP8 are not read in 0.04 ms: the error says the least, and asks for the unit."""
    study = load_study(STUDY)
    results = read_results(write(tmp_path / "r.json", **SECONDS), study, None)
    with pytest.raises(InputError, match=r"r\.json:1: tpot_ms must be at least .*got 0\.0412: is it in seconds"):
        verify(study, results)


def test_percentiles_in_seconds_are_refused_too(tmp_path: Path) -> None:
    """A result without a mean TTFT is held against what its percentiles say of it."""
    changes = {"mean_ttft_ms": None, "median_ttft_ms": 1.15, "p99_ttft_ms": 2.0}
    study = load_study(STUDY)
    with pytest.raises(InputError, match=r"ttft_ms must be at least .*is it in seconds"):
        verify(study, read_results(write(tmp_path / "r.json", **changes), study, None))


def test_a_run_that_cannot_be_is_left_out_of_several(tmp_path: Path) -> None:
    """The others are compared and learnt as if it were not there."""
    study = load_study(STUDY)
    path = tmp_path / "r.json"
    path.write_text(json.dumps([RESULT, RESULT | SECONDS]), encoding="utf-8")
    found = verify(study, read_results(path, study, None))
    alone = verify(study, read_results(path, study, None)[:1])
    assert found.runs == alone.runs
    assert found.places == alone.places
    (said,) = set(found.assumptions) - set(alone.assumptions)
    assert "r.json:2: tpot_ms" in said


def test_a_run_that_waited_is_compared_and_not_learnt(tmp_path: Path) -> None:
    """A TTFT of minutes with eight in flight is what was measured, and says nothing of other plans."""
    study = load_study(STUDY)
    changes = {"completed": 80, "total_input_tokens": 80 * 4000, "total_output_tokens": 80 * 1000, "duration": None}
    path = write(tmp_path / "r.json", max_concurrency=8, mean_ttft_ms=400_000.0, autotune_replicas="8", **changes)
    found = verify(study, read_results(path, study, None))
    assert len(found.runs) == 1
    assert (found.learnt, found.changes) == (False, False)


@pytest.mark.parametrize(("tpot_ms", "refused"), [(0.3, False), (0.0412, True)])
def test_drafted_tokens_take_less_than_a_step(tpot_ms: float, refused: bool, tmp_path: Path) -> None:
    """With speculative decoding a token may take less than the weights' read time, but not a thousandth of it."""
    study = load_study(STUDY)
    changes = {"mean_tpot_ms": tpot_ms, "spec_decode_acceptance_length": 3.1, "duration": None}
    results = read_results(write(tmp_path / "r.json", **changes), study, None)
    if refused:
        with pytest.raises(InputError, match="is it in seconds"):
            verify(study, results)
    else:
        assert not verify(study, results).learnt


def test_runs_of_several_plans_are_not_mixed(tmp_path: Path) -> None:
    """Two plans in one file have no one prediction: an error that names both."""
    study = load_study(STUDY)
    path = tmp_path / "r.json"
    other = RESULT | {"autotune_plan": "vllm:R8/PP1/ATP4/ADP4/MTP1/EP16"}
    path.write_text(json.dumps([RESULT, other]), encoding="utf-8")
    with pytest.raises(InputError, match=r"must hold runs of one plan, got vllm:R8/PP1/ATP2.*ATP4"):
        verify(study, read_results(path, study, None))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that export wrote."""
    out = tmp_path_factory.mktemp("verify") / "launch"
    done = CliRunner().invoke(cli, ["export", str(STUDY), "--target", "vllm", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    return out


def test_a_result_in_an_exports_folder_needs_nothing_else(exported: Path) -> None:
    """Study, plan and knobs are read from beside the result; the fields of the answer are a contract."""
    written = json.loads((exported / "plan.json").read_text())
    plan, load, replicas = written["plan"], written["load"], written["layout"]["replicas"]
    write(
        exported / "result.json",
        failed=7,
        autotune_plan=plan,
        max_concurrency=load["concurrency"] / replicas,
        mean_ttft_ms=load["ttft_s"] * 1.1e3,
        mean_tpot_ms=load["tpot_s"] * 1.1e3,
        duration=1.1 * replicas * RESULT["total_output_tokens"] / load["output_tokens_per_s"],
    )
    done = CliRunner().invoke(cli, ["verify", str(exported / "result.json"), "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (found["plan"], found["study"], found["inside"]) == (plan, "deepseek-v3-128xh200", True)
    (run,) = found["runs"]
    assert set(run["metrics"]) == {"ttft_s", "tpot_s", "output_tokens_per_s", "total_tokens_per_s"}
    assert set(run["metrics"]["ttft_s"]) == {
        "predicted",
        "p10",
        "p90",
        "measured",
        "measured_over_predicted",
        "inside",
        "judged",
    }
    assert found["ranking"]["changes"] is False
    assert found["ranking"]["plans"][0] == {"plan": plan, "before": 1, "after": 1}
    said = " ".join(found["assumptions"])
    assert "7 requests failed" in said
    assert f"1 of {replicas} replicas were driven" in said
    assert run["metrics"]["ttft_s"]["predicted"] == pytest.approx(load["ttft_s"], rel=1e-6)
    shown = CliRunner().invoke(cli, ["verify", str(exported / "result.json"), "--table"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert name_of_key(plan) in shown.stdout


def test_calibrate_takes_the_same_files(exported: Path, tmp_path: Path) -> None:
    """Five results of the script make a profile, without a word on study or plan."""
    names = []
    for load in (50, 100, 200, 305, 400):
        path = write(exported / f"result-{load}.json", max_concurrency=load, duration=None)
        run = read_results(path, load_study(STUDY), None)[0].run
        slower = 1.4e3 * float(prepare_runs([run]).evaluate().tpot_s[0])
        names.append(str(write(path, max_concurrency=load, duration=None, mean_tpot_ms=slower)))
    done = CliRunner().invoke(cli, ["calibrate", *names, "--out", str(tmp_path / "p.toml"), "--json"])
    assert done.exit_code == 0, done.output
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["runs"] == 5
    assert cell["tpot_after"] < cell["tpot_before"] == pytest.approx(1 - 1 / 1.4, rel=0.05)


def test_a_result_alone_asks_for_its_study(tmp_path: Path) -> None:
    """Away from its export a result does not say what it ran on: --study is asked for, and is enough."""
    path = write(tmp_path / "r.json")
    with pytest.raises(InputError, match="--study: is required"):
        CliRunner().invoke(cli, ["verify", str(path)], catch_exceptions=False)
    done = CliRunner().invoke(cli, ["verify", str(path), "--study", str(STUDY), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["plan"] == PLAN


def test_a_study_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """study.json with its profile answers as the study does, overrides, config.json and calibration included."""
    (tmp_path / "here").mkdir()
    config = {**json.loads(_config()), "_name_or_path": "own/model"}
    (tmp_path / "here" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    study = tmp_path / "here" / "study.toml"
    study.write_text((FOLDER / "llama-70b-16xh100.toml").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    overrides = ("model=./config.json", "constraints.tpot_ms=77")
    files = portable_study(load_study(study, overrides))
    (tmp_path / "there").mkdir()
    for name, text in files.items():
        (tmp_path / "there" / name).write_text(text, encoding="utf-8")
    moved, stayed = load_study(tmp_path / "there" / "study.json"), load_study(study, overrides)
    assert replace(moved, path=stayed.path, arch=stayed.arch, overrides=overrides) == stayed
    assert moved.arch.name == "own/model"
    assert np.isclose(
        score_plan(moved, "TP8").result.metrics["tpot_s"],  # type: ignore[union-attr]
        score_plan(stayed, "TP8").result.metrics["tpot_s"],  # type: ignore[union-attr]
    )


def _config() -> str:
    return json.dumps(
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "num_attention_heads": 64,
            "num_hidden_layers": 80,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "vocab_size": 128256,
            "torch_dtype": "bfloat16",
        }
    )
