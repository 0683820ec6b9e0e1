"""Results of other servers than the plan's, of drafted tokens, and results whose figures cannot all be true."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune.study import Study, load_study
from autotune.validation.bench import BenchResult, read_results
from autotune.validation.percentiles import predicted_latencies
from autotune.validation.verify import verify
from costmodel.arch import weight_bytes
from costmodel.errors import InputError
from costmodel.simulation.forecast import Likely
from tests.command import autotune
from tests.studies import FOLDER
from tests.validation.tool_results import (
    AIPERF,
    CLASSIC,
    E2E_S,
    GUIDELLM,
    ISL,
    OSL,
    PER_S,
    REQUESTS,
    TPOT_S,
    TTFT_S,
    results,
)

STUDY = FOLDER / "llama-70b-16xh100.toml"
OTHER = "meta-llama/Llama-3.1-8B-Instruct"
INFERENCEX = {
    "hw": "h100-cw", "tp": 4, "conc": 60, "model": "meta-llama/Llama-3.1-70B", "isl": ISL, "osl": OSL,
    "framework": "vllm", "precision": "bf16", "spec_decoding": "none", "output_tput_per_gpu": PER_S * OSL / 4,
    "tput_per_gpu": PER_S * (ISL + OSL) / 4, "mean_ttft": TTFT_S, "mean_tpot": TPOT_S, "mean_e2el": E2E_S,
}  # fmt: skip
SGLANG = CLASSIC | {"mean_e2e_latency_ms": 1e3 * E2E_S}


@pytest.fixture(scope="module")
def study() -> Study:
    """Four GPUs."""
    return load_study(STUDY, ["cluster.gpus=4"])


def test_another_gpu_and_engine_are_refused_at_once(study: Study, tmp_path: Path) -> None:
    """InferenceX says both; its runners tell machines of one GPU apart after a hyphen."""
    (found,) = results(tmp_path, study, INFERENCEX)
    assert not any("GPU" in note or "precision" in note for note in found.notes)
    with pytest.raises(InputError, match="gpu: must be the plan's, h100_sxm: what ran was on b200_sxm") as error:
        results(tmp_path, study, INFERENCEX | {"hw": "b200", "framework": "dynamo-trt"})
    assert "engine: must be the plan's, vLLM: what ran was TensorRT-LLM" in str(error.value)
    (unknown,) = results(tmp_path, study, INFERENCEX | {"hw": "own-box"})
    assert any("own-box" in note for note in unknown.notes)


def test_a_precision_is_predicted_with_its_own_weights(study: Study, tmp_path: Path) -> None:
    """Four bits take a good quarter of sixteen; a checkpoint that has as many stays as it is."""
    (own,) = results(tmp_path, study, INFERENCEX)
    (found,) = results(tmp_path, study, INFERENCEX | {"precision": "fp4"})
    assert weight_bytes(found.run.entry.arch) < 0.35 * weight_bytes(own.run.entry.arch)
    assert any("precision fp4" in note for note in found.notes)
    stored = replace(study, arch=found.run.entry.arch)
    (same,) = results(tmp_path, stored, {k: v for k, v in (INFERENCEX | {"precision": "fp4"}).items() if k != "model"})
    assert same.run.entry.arch == stored.arch


@pytest.mark.parametrize(
    ("record", "engine", "refused"),
    [
        (SGLANG | {"backend": "sglang"}, "vllm", "SGLang"),
        (SGLANG | {"backend": "sglang-oai"}, "vllm", "SGLang"),
        (SGLANG | {"backend": "vllm"}, "sglang", "vLLM"),
        (SGLANG | {"backend": "sglang"}, "sglang", None),
        (CLASSIC | {"backend": "sglang"}, "vllm", "SGLang"),
        (CLASSIC | {"backend": "tensorrt-llm"}, "vllm", "TensorRT-LLM"),
        (CLASSIC | {"backend": "vllm"}, "sglang", None),
        (CLASSIC | {"backend": "openai-chat"}, "sglang", None),
    ],
)
def test_a_client_says_the_engine_only_where_it_was_told(
    record: dict[str, Any], engine: str, refused: str | None, tmp_path: Path
) -> None:
    """vLLM's client starts as that of vLLM and drives any server; whoever names another engine means it."""
    study = load_study(STUDY, ["cluster.gpus=4", f"engine={engine}"])
    if refused is None:
        assert results(tmp_path, study, record)
    else:
        with pytest.raises(InputError, match=f"engine: must be the plan's.*what ran was {refused}"):
            results(tmp_path, study, record)


BENCHMARK = GUIDELLM["benchmarks"][0]
CONFIG = BENCHMARK["config"]


@pytest.mark.parametrize(
    "record",
    [
        {"benchmarks": [{**BENCHMARK, "config": {**CONFIG, "backend": {"model": OTHER}}}]},
        {**GUIDELLM, "args": {"model": OTHER}},
        {**GUIDELLM, "config": {"spec": {"backend": {"kind": "openai_http", "model": OTHER}}}},
        {"benchmarks": [{**BENCHMARK, "worker": {"type_": "generative", "backend_model": OTHER}}]},
        {**AIPERF, "input_config": {"model_names": [OTHER], "endpoint": {"type": "chat"}}},
        {**AIPERF, "input_config": {"model": [OTHER], "formatted_model_name": "x", "concurrency": 60}},
        SGLANG | {"server_info": {"model_path": OTHER}},
    ],
)
def test_another_model_is_seen_wherever_a_tool_names_it(record: Any, study: Study, tmp_path: Path) -> None:
    """GuideLLM's benchmarks, arguments and workers, GenAI-Perf's settings, and what SGLang's server says of itself."""
    with pytest.raises(InputError, match=f"model: must be the study's.*{OTHER}"):
        results(tmp_path, study, record)


@pytest.mark.parametrize("fields", [{"spec_decode_acceptance_rate": 70.0}, {"accept_length": 2.8}])
def test_drafted_tokens_are_compared_and_never_learnt(fields: dict[str, float], study: Study, tmp_path: Path) -> None:
    """Several tokens of a step say nothing of how long steps are; nor do they in a study that drafts."""
    (found,) = results(tmp_path, study, CLASSIC | fields)
    verified = verify(replace(study, baseline=None), [found])
    assert (verified.learnt, len(verified.runs)) == (False, 1)
    assert any("decode speculatively" in note for note in verified.assumptions)
    drafting = load_study(STUDY, ["cluster.gpus=4", "speculative.draft_tokens=3", "speculative.accepted_per_step=2.8"])
    (plain,) = results(tmp_path, drafting, CLASSIC)
    assert plain.teaches_nothing is not None


def test_calibrate_takes_no_drafted_runs(tmp_path: Path) -> None:
    """Every run of the file is named, and no profile is written."""
    path, out = tmp_path / "runs.jsonl", tmp_path / "own.toml"
    path.write_text("\n".join([json.dumps(CLASSIC | {"spec_decode_acceptance_rate": 0.7})] * 5), encoding="utf-8")
    done = autotune("calibrate", str(path), "--study", str(STUDY), "--plan", "R2 TP8", "--out", str(out))
    assert done.returncode == 2
    assert "runs.jsonl:5: teaches nothing: it is of servers that decode speculatively" in done.stderr
    assert not out.exists()


def _predicted(found: BenchResult) -> dict[str, Likely]:
    return {name: likely for name, likely, _ in predicted_latencies(found, None, {})}


def test_a_rate_that_a_cap_holds_back_is_a_closed_loop(study: Study, tmp_path: Path) -> None:
    """At ten times the rate that 60 at once let through it is what 55 of a closed loop are, as those were in flight."""
    (found,) = results(tmp_path, study, CLASSIC | {"request_rate": 10 * PER_S})
    (closed,) = results(tmp_path, study, CLASSIC | {"max_concurrency": None, "concurrency": found.run.concurrency})
    assert not found.reported.open_loop
    assert not found.run.open_loop
    assert found.run.concurrency == pytest.approx(PER_S * E2E_S)
    assert _predicted(found) == _predicted(closed)
    assert any("a closed loop" in note for note in found.notes)
    (free,) = results(tmp_path, study, CLASSIC | {"request_rate": PER_S, "max_concurrency": 200})
    assert free.reported.open_loop


def _at_rate(rate_per_s: float, tpot_s: float, in_all_s: float) -> dict[str, Any]:
    percentiles = {name: value for name, value in CLASSIC.items() if name[:3] in ("med", "p99")}
    return {k: v for k, v in CLASSIC.items() if k not in percentiles} | {
        "request_rate": rate_per_s, "max_concurrency": None, "mean_tpot_ms": 1e3 * tpot_s, "duration": in_all_s,
    }  # fmt: skip


def test_what_is_served_of_an_open_loop_is_what_comes(study: Study, tmp_path: Path) -> None:
    """Below capacity throughput is the offered one whatever latency was measured; beyond it, it is the plan's."""
    offered, rows = 1.0, []
    for tpot_s in (0.02, 0.05, 0.1):
        (found,) = results(tmp_path, study, _at_rate(offered, tpot_s, REQUESTS / offered + OSL * tpot_s))
        rows.append(_predicted(found)["output_tokens_per_s"])
    assert rows[0] == rows[1] == rows[2]
    assert rows[0].value == pytest.approx(offered * OSL, rel=0.1)
    assert rows[0].low < offered * OSL < rows[0].high
    (much,) = results(tmp_path, study, _at_rate(50.0, 0.1, 300.0))
    (more,) = results(tmp_path, study, _at_rate(100.0, 0.1, 300.0))
    served = [_predicted(run)["output_tokens_per_s"].value for run in (much, more)]
    assert served[0] < 0.5 * 50.0 * OSL
    assert served[1] == pytest.approx(served[0], rel=0.1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"max_concurrency": 1}, r"let through at once must be at least 55.*got 1$"),
        ({"duration": CLASSIC["duration"] / 10}, r"at least 546, as 25 a second take 21\.86 s each .*got 60"),
        ({"concurrency": 5.0, "mean_e2e_latency_ms": 1e3 * E2E_S}, "seen at once must be at least 55"),
        ({"mean_ttft_ms": 9e5, "mean_tpot_ms": 4.2e4}, r"must be at most the run's 256 s, got 2\.186e\+04 s"),
        ({"mean_e2el_ms": 1e3 * E2E_S / 3}, r"mean time of 7\.286 s contradicts its TTFT and 500 tokens"),
        ({"p99_ttft_ms": 200.0}, r"TTFT p50 must be at most p99, got 0\.81 s and 0\.2 s"),
    ],
)
def test_figures_that_contradict_each_other_are_refused(
    changes: dict[str, float], why: str, study: Study, tmp_path: Path
) -> None:
    """Little's law, the length of the run, the parts of a request and the order of percentiles."""
    with pytest.raises(InputError, match=why):
        results(tmp_path, study, CLASSIC | changes)


def test_a_result_without_output_tokens_lacks_them(study: Study, tmp_path: Path) -> None:
    """What is missing is said, whatever else follows from it."""
    with pytest.raises(InputError, match="must have output tokens"):
        results(tmp_path, study, CLASSIC | {"total_output_tokens": 0})


def test_everything_that_is_no_figure_is_told_at_once(study: Study, tmp_path: Path) -> None:
    """Negative numbers and texts are no measurements; a NaN and what a tool left out are let be."""
    bad = CLASSIC | {"mean_ttft_ms": -5.0, "median_ttft_ms": "301.0", "completed": True, "mean_tpot_ms": math.nan}
    aiperf = AIPERF | {"time_to_first_token": {"unit": "ms", "avg": "352", "p50": None, "p99": -1}}
    with pytest.raises(InputError) as error:
        results(tmp_path, study, [bad, aiperf])
    assert [str(p).rpartition("result.json:")[2] for p in error.value.problems] == [
        "1: completed must be a number of at least 0, got True",
        "1: mean_ttft_ms must be a number of at least 0, got -5.0",
        "1: median_ttft_ms must be a number of at least 0, got '301.0'",
        "2: time_to_first_token.avg must be a number of at least 0, got '352'",
        "2: time_to_first_token.p99 must be a number of at least 0, got -1",
    ]


@pytest.mark.parametrize(
    ("loadgen", "cv"),
    [
        ({"arrival_pattern": "constant"}, 0.0),
        ({"request_rate_mode": "constant"}, 0.0),
        ({"arrival_pattern": "poisson"}, 1.0),
        ({"arrival_pattern": "gamma", "arrival_smoothness": 0.25}, 2.0),
        ({"arrival_pattern": "gamma"}, 1.0),
        ({}, 1.0),
    ],
)
def test_aiperf_says_how_requests_come(loadgen: dict[str, Any], cv: float, study: Study, tmp_path: Path) -> None:
    """Of a gamma distribution with smoothness s the gaps vary by one over the root of s."""
    (found,) = results(tmp_path, study, AIPERF | {"input_config": {"loadgen": {"request_rate": PER_S, **loadgen}}})
    assert found.reported.open_loop
    assert found.reported.arrival_cv == cv


def test_a_report_in_words_is_no_measurement(study: Study, tmp_path: Path) -> None:
    """What was asked for may be in words, as settings are; only what came of it has to be numbers."""
    settings = {"input_config": {"loadgen": {"concurrency": 60, "request_rate": "none"}, "duration": "long"}}
    assert results(tmp_path, study, AIPERF | settings)
    assert read_results(tmp_path / "result.json", study, "TP4")
