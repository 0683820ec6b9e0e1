"""Results of every tool that measures serving: the same run, as each of them writes it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from autotune.study import Study, load_study
from autotune.validation.bench import BenchResult, read_results
from autotune.validation.percentiles import predicted_latencies, run_by_percentiles
from costmodel.arch import weight_bytes
from costmodel.errors import InputError
from tests.studies import FOLDER
from tests.validation.tool_results import (
    AIPERF,
    CLASSIC,
    DURATION_S,
    E2E_S,
    FAILED,
    GUIDELLM,
    IN_FLIGHT,
    ISL,
    LATENCY,
    LLM_D,
    LLMPERF,
    OSL,
    PER_S,
    REQUESTS,
    TPOT_S,
    TTFT_S,
    results,
)


@pytest.fixture(scope="module")
def study() -> Study:
    """Four GPUs."""
    return load_study(FOLDER / "llama-70b-16xh100.toml", ["cluster.gpus=4"])


FILES = {
    "vllm": ("result.json", CLASSIC),
    "sglang": ("result.jsonl", {**CLASSIC, "concurrency": IN_FLIGHT, "mean_e2e_latency_ms": 1e3 * E2E_S}),
    "aiperf": ("profile_export_aiperf.json", AIPERF),
    "genai_perf": (
        "profile_export_genai_perf.json",
        {**AIPERF, "input_config": {"perf_analyzer": {"stimulus": {"concurrency": 60}}}},
    ),
    "guidellm": ("benchmarks.json", GUIDELLM),
    "inference_perf": (
        "summary_lifecycle_metrics.json",
        {
            "load_summary": {"count": REQUESTS + FAILED, "requested_rate": PER_S},
            "successes": {
                "count": REQUESTS, "latency": LATENCY, "throughput": {"requests_per_sec": PER_S},
                "prompt_len": {"mean": ISL}, "output_len": {"mean": OSL},
            },
            "failures": {"count": FAILED},
        },
    ),
    "llmperf": ("llama_2000_500_summary.json", LLMPERF),
    "llm_d_benchmark": ("benchmark_report.json", LLM_D),
    "llm_d_benchmark_yaml": ("benchmark_report.yaml", LLM_D),
}  # fmt: skip


@pytest.mark.parametrize("tool", FILES)
def test_a_run_is_the_same_by_every_tool(tool: str, study: Study, tmp_path: Path) -> None:
    """Lengths, latencies, percentiles, throughput, failures and what was in flight."""
    name, content = FILES[tool]
    (found,) = results(tmp_path, study, content, name)
    assert (found.run.mean_isl, found.run.mean_osl) == (ISL, OSL)
    assert (found.run.ttft_s, found.run.tpot_s) == pytest.approx((TTFT_S, TPOT_S))
    assert found.reported.ttft_s["p50"] == pytest.approx(0.9 * TTFT_S)
    assert found.reported.ttft_s["p99"] == pytest.approx(2 * TTFT_S)
    assert found.output_tokens_per_s == pytest.approx(PER_S * OSL)
    assert found.total_tokens_per_s == pytest.approx(PER_S * (OSL + ISL))
    assert found.failed == FAILED
    assert found.reported.open_loop == (tool == "inference_perf")
    assert found.run.concurrency == pytest.approx(IN_FLIGHT if tool == "inference_perf" else 60, rel=1e-6)


@pytest.mark.parametrize(
    "changes", [{"completed": 100, "duration": 40.0, "max_concurrency": 1024}, {"max_concurrency": 512}]
)
def test_what_was_in_flight_is_what_counts(changes: dict[str, Any], study: Study, tmp_path: Path) -> None:
    """Fewer requests than were asked for in flight, or fewer in flight than asked for: Little's law, and it is said."""
    scaled = {"total_input_tokens": ISL, "total_output_tokens": OSL}
    count = changes.get("completed", REQUESTS)
    content = CLASSIC | changes | {name: tokens * count for name, tokens in scaled.items()}
    (found,) = results(tmp_path, study, content)
    assert found.run.concurrency == pytest.approx(IN_FLIGHT)
    assert any("were asked for" in note for note in found.notes)


def test_arrivals_at_a_rate_are_an_open_loop(study: Study, tmp_path: Path) -> None:
    """A finite request rate; the limit on what is in flight is not what was."""
    (found,) = results(tmp_path, study, CLASSIC | {"request_rate": PER_S, "max_concurrency": None, "burstiness": 0.25})
    assert found.reported.open_loop
    assert found.reported.arrival_cv == 2.0
    assert found.run.concurrency == pytest.approx(IN_FLIGHT)


def test_inferencex_counts_per_gpu_and_in_seconds(study: Study, tmp_path: Path) -> None:
    """Its aggregates have seconds, and throughput for each GPU."""
    content = {
        "hw": "h100", "tp": 4, "conc": 60, "model": "x/Llama-3.1-70B", "isl": ISL, "osl": OSL,
        "tput_per_gpu": PER_S * (ISL + OSL) / 4, "output_tput_per_gpu": PER_S * OSL / 4, "mean_ttft": TTFT_S,
        "mean_tpot": TPOT_S, "p99_ttft": 2 * TTFT_S, "mean_e2el": E2E_S,
    }  # fmt: skip
    (found,) = results(tmp_path, study, [content])
    assert (found.run.ttft_s, found.run.tpot_s, found.run.concurrency) == (TTFT_S, TPOT_S, 60)
    assert found.output_tokens_per_s == pytest.approx(PER_S * OSL)
    assert found.total_tokens_per_s == pytest.approx(PER_S * (ISL + OSL))
    eight = {"tp": 8, "tput_per_gpu": PER_S * (ISL + OSL) / 8, "output_tput_per_gpu": PER_S * OSL / 8}
    with pytest.raises(InputError, match="was measured on 8 GPUs"):
        results(tmp_path, study, {**content, **eight})
    (one,) = read_results(tmp_path / "result.json", load_study(FOLDER / "llama-70b-16xh100.toml"), "TP8")
    assert (one.replicas, one.run.concurrency) == (1, 120)
    with pytest.raises(InputError, match="was measured on 12 GPUs"):
        results(tmp_path, study, {**content, "num_prefill_gpu": 4, "num_decode_gpu": 8})


def logged(i: int, form: str) -> dict[str, Any]:
    """One request of a client's log."""
    start, end = i / PER_S, i / PER_S + E2E_S
    if form == "aiperf":
        return {
            "metadata": {"request_start_ns": int(1e9 * start), "request_end_ns": int(1e9 * end)},
            "metrics": {
                "time_to_first_token": {"value": 1e3 * TTFT_S, "unit": "ms"},
                "input_sequence_length": {"value": ISL}, "output_sequence_length": {"value": OSL},
            },
            "error": None,
        }  # fmt: skip
    return {
        "start_time": start, "end_time": end, "error": None,
        "info": {"input_tokens": ISL, "output_tokens": OSL, "output_token_times": [start + TTFT_S, end]},
    }  # fmt: skip


@pytest.mark.parametrize("form", ["aiperf", "inference_perf"])
def test_a_log_of_requests_is_a_run(form: str, study: Study, tmp_path: Path) -> None:
    """Means, percentiles and what was in flight, by requests one by one; those with an error have failed."""
    rows = [logged(i, form) for i in range(REQUESTS)] + [{**logged(0, form), "error": {"message": "x"}}]
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (found,) = read_results(path, study, "TP4")
    assert (found.run.ttft_s, found.run.tpot_s) == pytest.approx((TTFT_S, TPOT_S), rel=1e-6)
    assert found.reported.e2e_s["p99"] == pytest.approx(E2E_S)
    assert found.run.concurrency == pytest.approx(IN_FLIGHT, rel=0.1)
    assert (found.failed, found.run.same_lengths) == (1, True)


def test_requests_that_warm_up_or_are_cancelled_do_not_count(study: Study, tmp_path: Path) -> None:
    """By what AIPerf's records say of themselves, and their latencies in the unit that they name."""
    rows = [logged(i, "aiperf") for i in range(10)]
    rows[0]["metadata"]["benchmark_phase"] = "warmup"
    rows[1]["metadata"]["was_cancelled"] = True
    for row in rows[2:]:
        row["metrics"]["time_to_first_token"] = {"value": TTFT_S, "unit": "s"}
    path = tmp_path / "profile_export.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (found,) = read_results(path, study, "TP4")
    assert (found.reported.completed, found.failed) == (8, 1)
    assert found.run.ttft_s == pytest.approx(TTFT_S)


def test_llm_d_benchmark_counts_lost_requests_and_durations_in_words(study: Study, tmp_path: Path) -> None:
    """Requests that are incomplete are none that were served; its second version writes `PT4M16S`."""
    metrics = {**LLM_D["metrics"], "requests": {**LLM_D["metrics"]["requests"], "incomplete": 5}, "throughput": {}}  # type: ignore[dict-item]  # a table
    content = {"run": {"time": {"duration": "PT4M16S"}}, "results": {**metrics, "time": None}}
    (found,) = results(tmp_path, study, content)
    assert found.failed == FAILED + 5
    assert found.output_tokens_per_s == pytest.approx((REQUESTS - 5) * OSL / 256.0)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (
            {"batch_size": 64, "input_len": 5, "output_len": 5, "latency": 2.0, "overall_throughput": 7.0},
            "of one batch",
        ),
        ({"avg_latency": 2.0, "latencies": [2.0], "percentiles": {"50": 2.0}}, "the latency of one batch"),
        ({"elapsed_time": 4.0, "num_requests": 9, "requests_per_second": 2.0, "tokens_per_second": 5.0}, "offline"),
        ({"backend": "engine", "successful_requests": 9, "total_latency": 5.0}, "offline throughput"),
        ({"performance": {"request_throughput_req_s": 2.0}, "request_info": {}}, "trtllm-bench"),
        ({"experiments": []}, "raw export"),
        ({"request_throughput": {"avg": 2}, "request_latency": {"avg": 9}}, "measure with --streaming"),
        ([{"ttft_s": 0.2, "end_to_end_latency_s": 2.0, "number_output_tokens": 9}], "one of LLMPerf's responses"),
        ({"hello": 1}, "must be a result of vllm bench serve"),
        (5, "must be an object"),
    ],
)
def test_what_is_no_serving_run_is_called_so(content: Any, why: str, study: Study, tmp_path: Path) -> None:
    """Static batches and offline throughput are named, and so is what is none of the tools'."""
    with pytest.raises(InputError, match=why):
        results(tmp_path, study, content)


def test_results_one_after_the_other(study: Study, tmp_path: Path) -> None:
    """As `vllm bench serve --append-result` writes them, in one file."""
    path = tmp_path / "result.json"
    path.write_text("\n".join(json.dumps(CLASSIC | {"max_concurrency": n}, indent=1) for n in (60, 62)))
    assert [found.run.concurrency for found in read_results(path, study, "TP4")] == [60, 62]


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "zai-org/GLM-4.5-Air"])
def test_another_model_is_refused(name: str, study: Study, tmp_path: Path) -> None:
    """A result that names a model of the catalog which is not the study's is an error, as a command of one is."""
    with pytest.raises(InputError, match=rf"result\.json:1: model: must be the study's.*{name}"):
        results(tmp_path, study, CLASSIC | {"model_id": name})


def test_a_name_that_nobody_knows_is_said(study: Study, tmp_path: Path) -> None:
    """What servers are asked by may be any name: it is taken for the study's model, which is said."""
    (found,) = results(tmp_path, study, CLASSIC | {"model_id": "house-llm"})
    assert any("house-llm" in note for note in found.notes)


def test_a_checkpoint_in_another_precision_has_its_own_weights(study: Study, tmp_path: Path) -> None:
    """The study's model in FP8 is predicted with the weights that were served, and is said."""
    (own,) = results(tmp_path, study, CLASSIC)
    (found,) = results(tmp_path, study, CLASSIC | {"model_id": "RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8"})
    assert weight_bytes(found.run.entry.arch) < 0.6 * weight_bytes(own.run.entry.arch)
    assert any("FP8" in note for note in found.notes)


@pytest.mark.parametrize("changes", [{}, {"request_rate": PER_S, "max_concurrency": None}])
def test_percentiles_are_held_against_a_simulation(changes: dict[str, Any], study: Study, tmp_path: Path) -> None:
    """Those that the result has get a prediction with its interval, open loop or closed."""
    (found,) = results(tmp_path, study, CLASSIC | changes)
    rows = {name: (likely, measured) for name, likely, measured in predicted_latencies(found, None, {})}
    served = {"output_tokens_per_s", "total_tokens_per_s"}
    means = {"ttft_s", "tpot_s", *served} if found.reported.open_loop else set()
    assert rows.keys() == {"ttft_p50_s", "ttft_p99_s"} | means
    assert all(0.0 < likely.low < likely.value < likely.high for likely, _ in rows.values())
    assert rows["ttft_p50_s"][1] == pytest.approx(0.9 * TTFT_S)
    assert rows["ttft_p50_s"][0].value <= rows["ttft_p99_s"][0].value


def test_percentiles_lie_about_the_mean_of_a_closed_loop(study: Study, tmp_path: Path) -> None:
    """Twice the mean are twice the percentiles, which lie on both sides of it; those of an open loop are simulated."""
    closed, opened = (
        results(tmp_path, study, CLASSIC | c)[0] for c in ({}, {"request_rate": PER_S, "max_concurrency": None})
    )

    def values(run: BenchResult, mean_s: float) -> list[float]:
        return [likely.value for _, likely, _ in predicted_latencies(run, None, {"ttft": mean_s})]

    assert values(closed, 2.0) == pytest.approx([2.0 * value for value in values(closed, 1.0)])
    assert 0.3 < values(closed, 1.0)[0] < 2.0 < values(closed, 2.0)[1]
    assert values(opened, 2.0) == values(opened, 1.0)


def test_a_median_is_no_mean(study: Study, tmp_path: Path) -> None:
    """A run with percentiles alone has the mean that they say: the further from the simulation's, the further."""
    plain = {name: value for name, value in CLASSIC.items() if "ttft" not in name}
    (given,) = results(tmp_path, study, plain | {"median_ttft_ms": 1000.0, "p90_ttft_ms": 2000.0})
    simulated = {name: likely.value for name, likely, _ in predicted_latencies(given, None, {})}
    assert math.isnan(given.run.ttft_s)
    means = []
    for factor in (1.0, 1.3):
        p50_ms, p90_ms = (1e3 * factor * simulated[f"ttft_{p}_s"] for p in ("p50", "p90"))
        (found,) = results(tmp_path, study, plain | {"median_ttft_ms": p50_ms, "p90_ttft_ms": p90_ms})
        run, percentiles = run_by_percentiles(found)
        assert percentiles == 2
        means.append(run.ttft_s)
    assert means[1] == pytest.approx(1.3 * means[0])
    assert abs(means[0] / simulated["ttft_p50_s"] - 1.0) > 0.05


def test_a_percentile_needs_requests_beyond_it(study: Study, tmp_path: Path) -> None:
    """Of 640 requests six lie beyond the 99th percentile, too few to count; a mean alone stays as it is."""
    (found,) = results(tmp_path, study, CLASSIC)
    assert run_by_percentiles(found)[1] == 1
    (alone,) = results(tmp_path, study, {k: v for k, v in CLASSIC.items() if k[:3] not in ("med", "p99")})
    assert run_by_percentiles(alone) == (alone.run, 0)


def test_requests_one_by_one_give_the_percentiles_that_are_left_out(study: Study, tmp_path: Path) -> None:
    """Detailed results hold each request's first token and gaps; one that failed has none, and what is said stands."""
    each = [(0.1 * (i + 1), [0.01 * (i + 1)] * 4) for i in range(10)]
    details = {
        "ttfts": [*(ttft for ttft, _ in each), 0.0], "itls": [*(gaps for _, gaps in each), []],
        "input_lens": [ISL] * 11, "output_lens": [5] * 10 + [0], "total_output_tokens": REQUESTS * 5,
    }  # fmt: skip
    (found,) = results(tmp_path, study, CLASSIC | details)
    assert found.reported.ttft_s["p90"] == pytest.approx(0.91)
    assert found.reported.tpot_s["p99"] == pytest.approx(0.0991)
    assert found.reported.e2e_s["mean"] == pytest.approx(0.55 + 4 * 0.055)
    assert found.reported.ttft_s["mean"] == pytest.approx(TTFT_S)


def test_guidellm_counts_where_its_scheduler_does(study: Study, tmp_path: Path) -> None:
    """Later versions have counts and times among the scheduler's metrics, and call a strategy's type its kind."""
    whole = GUIDELLM["benchmarks"][0]
    later = {
        "config": {"strategy": {"kind": "concurrent", "streams": 60}},
        "scheduler_metrics": {
            "start_time": 10.0, "end_time": 10.0 + DURATION_S,
            "requests_made": {"successful": REQUESTS, "errored": FAILED},
        },
        "metrics": {name: value for name, value in whole["metrics"].items() if name != "request_totals"},
    }  # fmt: skip
    (found,) = results(tmp_path, study, {"benchmarks": [later]})
    assert (found.reported.completed, found.reported.failed) == (REQUESTS, FAILED)
    assert found.reported.duration_s == pytest.approx(DURATION_S)
    assert not found.reported.open_loop
