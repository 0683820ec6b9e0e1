"""Metrics of servers and gateways: their names, several models, bounds that differ, restarts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from autotune.traffic.options import ReadOptions, read_options
from autotune.traffic.read import read_traffic
from costmodel.errors import InputError
from tests.traffic.helpers import written

STARTED = "process_start_time_seconds 1.7e9\n"
HOUR_S = 3600.0


def histogram(name: str, bounds: Mapping[str, float], total: float, labels: str = "") -> str:
    """One histogram of a scrape, cumulative."""
    comma = f"{labels}," if labels else ""
    count = max(bounds.values())
    rows = [f'{name}_bucket{{{comma}le="{bound}"}} {value}' for bound, value in bounds.items()]
    return "\n".join([*rows, f"{name}_sum{{{labels}}} {total}", f"{name}_count{{{labels}}} {count}"]) + "\n"


PROMPTS = {"1000.0": 100, "2000.0": 800, "+Inf": 1000}
OUTPUTS = {"100.0": 100, "200.0": 800, "+Inf": 1000}
NAMES = {
    "vllm": ("vllm:request_prompt_tokens", "vllm:request_generation_tokens"),
    "vllm_without_colons": ("vllm_request_prompt_tokens", "vllm_request_generation_tokens"),
    "ray": ("ray_vllm_request_prompt_tokens", "ray_vllm_request_generation_tokens"),
    "sglang": ("sglang:prompt_tokens_histogram", "sglang:generation_tokens_histogram"),
    "dynamo": ("dynamo_frontend_input_sequence_tokens", "dynamo_frontend_output_sequence_tokens"),
    "llm-d": ("inference_objective_input_tokens", "inference_objective_output_tokens"),
    "tgi": ("tgi_request_input_length", "tgi_request_generated_tokens"),
}


def profile_of(tmp_path: Path, text: str, options: ReadOptions | None = None) -> Any:
    """The profile of a scrape, an hour after the start."""
    log = read_traffic(written(tmp_path, text), now_s=1.7e9 + HOUR_S, options=options or ReadOptions())
    assert log.refusal is None, log.refusal
    return log.profile()


@pytest.mark.parametrize("name", NAMES)
def test_histograms_by_any_name(name: str, tmp_path: Path) -> None:
    """A thousand requests with the means that the sums say."""
    prompt, output = NAMES[name]
    profile = profile_of(
        tmp_path, STARTED + histogram(prompt, PROMPTS, 1_800_000) + histogram(output, OUTPUTS, 190_000)
    )
    assert profile.num_requests == 1000
    assert profile.prompt_mean == pytest.approx(1800.0)
    assert profile.output_mean == pytest.approx(190.0)
    assert profile.rate.mean_per_s == pytest.approx(1000 / HOUR_S)


@pytest.mark.parametrize("prefix", ["", "agentgateway_"])
def test_one_histogram_of_both_kinds_of_tokens(prefix: str, tmp_path: Path) -> None:
    """OpenTelemetry's gen_ai: prompts and outputs differ by a label."""
    name = f"{prefix}gen_ai_client_token_usage"
    text = histogram(name, PROMPTS, 1_800_000, 'gen_ai_token_type="input",gen_ai_request_model="m"')
    text += histogram(name, OUTPUTS, 190_000, 'gen_ai_token_type="output",gen_ai_request_model="m"')
    profile = profile_of(tmp_path, STARTED + text)
    assert (profile.prompt_mean, profile.output_mean) == (pytest.approx(1800.0), pytest.approx(190.0))


def test_counters_alone_give_means(tmp_path: Path) -> None:
    """TensorRT-LLM counts tokens and requests: mean lengths and cache hits, and that it is only means is said."""
    text = "trtllm_prompt_tokens_total 1800000\ntrtllm_generation_tokens_total 190000\n"
    text += 'trtllm_request_success_total{finished_reason="stop"} 900\n'
    text += 'trtllm_request_success_total{finished_reason="length"} 100\ntrtllm_prompt_cached_tokens_total 450000\n'
    profile = profile_of(tmp_path, STARTED + text)
    assert (profile.prompt_mean, profile.output_mean) == (pytest.approx(1800.0), pytest.approx(190.0))
    assert profile.shared_prefix_frac == pytest.approx(0.25)
    assert any("only mean lengths" in text for text in profile.assumptions)


def test_what_was_not_served_is_left_out(tmp_path: Path) -> None:
    """Requests that a proxy's counter says failed, and embeddings."""
    text = "litellm_input_tokens_metric_total 1800000\nlitellm_output_tokens_metric_total 190000\n"
    for status, count in (("200", 1000), ("429", 500)):
        text += f'litellm_proxy_total_requests_metric_total{{status_code="{status}"}} {count}\n'
    assert profile_of(tmp_path, STARTED + text).num_requests == 1000
    name, text = "gen_ai_client_token_usage", ""
    for kind, operation in (("input", "chat"), ("output", "chat"), ("input", "embeddings")):
        bounds, total = (OUTPUTS, 190_000) if kind == "output" else (PROMPTS, 1_800_000)
        text += histogram(name, bounds, total, f'gen_ai_token_type="{kind}",gen_ai_operation_name="{operation}"')
    assert profile_of(tmp_path, STARTED + text).num_requests == 1000


def test_a_frontend_goes_before_the_servers_behind_it(tmp_path: Path) -> None:
    """Prefill and decode servers both count a request, the frontend once."""
    text = "".join(
        histogram(prompt, {b: k * v for b, v in PROMPTS.items()}, k * 1_800_000)
        + histogram(output, {b: k * v for b, v in OUTPUTS.items()}, k * 190_000)
        for k, (prompt, output) in ((2, NAMES["vllm"]), (1, NAMES["dynamo"]))
    )
    assert profile_of(tmp_path, STARTED + text).num_requests == 1000


def test_bounds_that_differ_are_added_apart(tmp_path: Path) -> None:
    """Two servers, one with a bound at 1,500 and one with 1,000 and 2,000: each request lies in its own bucket."""
    prompt, output = NAMES["vllm"]
    text = histogram(prompt, {"1500": 500, "+Inf": 500}, 500_000, 'engine="0"')
    text += histogram(prompt, {"1000": 0, "2000": 500, "+Inf": 500}, 700_000, 'engine="1"')
    text += "".join(histogram(output, {"100": 500, "+Inf": 500}, 25_000, f'engine="{i}"') for i in (0, 1))
    profile = profile_of(tmp_path, STARTED + text)
    assert profile.num_requests == 1000
    assert profile.prompt_mean == pytest.approx(1200.0, rel=0.01)
    assert profile.longest_prompt < 2100


def answer(series: Sequence[tuple[dict[str, str], Sequence[float]]]) -> str:
    """What a range query answers, a sample every five minutes; nan: the server was not there."""
    result = [
        {"metric": labels, "values": [[1.77e9 + 300.0 * i, str(v)] for i, v in enumerate(values) if v == v]}
        for labels, values in series
    ]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})


def both(counts: Sequence[float], **labels: str) -> list[tuple[dict[str, str], Sequence[float]]]:
    """Histograms of requests with 1,000 prompt and 100 output tokens."""
    out: list[tuple[dict[str, str], Sequence[float]]] = []
    for name, tokens in zip(NAMES["vllm"], (1000.0, 100.0), strict=True):
        out += [({"__name__": f"{name}_bucket", "le": bound, **labels}, counts) for bound in ("5000", "+Inf")]
        out.append(({"__name__": f"{name}_sum", **labels}, [tokens * c for c in counts]))
        out.append(({"__name__": f"{name}_count", **labels}, counts))
    return out


def test_several_models_are_asked_about(tmp_path: Path) -> None:
    """Asked which, or the study's, or the one that is matched."""
    series = both([0, 300, 600, 900, 1200], model_name="deepseek-ai/DeepSeek-V3")
    series += both([0, 30, 60, 90, 120], model_name="Qwen/Qwen3-8B")
    source = written(tmp_path, answer(series))
    with pytest.raises(InputError, match=r"--match: is required.*2 models.*model_name="):
        read_traffic(source)
    named = read_traffic(source, options=read_options(match=("model_name=Qwen/Qwen3-8B",)))
    assert named.profile().num_requests == 120
    known = read_traffic(source, options=ReadOptions(model="deepseek-ai/DeepSeek-V3"))
    assert known.profile().num_requests == 1200
    assert any("alone, of 2 models" in text for text in known.assumptions)


def test_a_restart_that_no_bucket_shows(tmp_path: Path) -> None:
    """A server restarts, and one of its counters has grown beyond its old value meanwhile: all are counted anew."""
    prompt, output = NAMES["vllm"]
    series = []
    for name in (prompt, output):
        series += [
            ({"__name__": f"{name}_bucket", "le": "50"}, [10, 20, 30, 35]),
            ({"__name__": f"{name}_bucket", "le": "+Inf"}, [100, 200, 40, 60]),
            ({"__name__": f"{name}_count"}, [100, 200, 40, 60]),
        ]
    log = read_traffic(written(tmp_path, answer(series)))
    assert log.num_requests == 100 + 40 + 20
    assert log.profile().grid.total == pytest.approx(160, abs=2)
    short = sum(p.weight for p in log.profile().points if p.isl <= 50)
    assert short == pytest.approx((10 + 30 + 5) / 160, abs=0.05)


def test_a_server_that_comes_later_counts_from_nought(tmp_path: Path) -> None:
    """A pod that begins within the range had served nobody before."""
    nan = float("nan")
    series = [*both([100, 200, 300, 400, 500], pod="a"), *both([nan, nan, 50, 150, 250], pod="b")]
    log = read_traffic(written(tmp_path, answer(series)))
    assert log.num_requests == 400 + 250
    assert log.profile().rate.mean_per_s == pytest.approx(650 / 1200.0)


def test_samples_that_cover_a_part_of_the_window(tmp_path: Path) -> None:
    """The rate is that of the time sampled."""
    log = read_traffic(written(tmp_path, answer(both([0, 300, 600, 900, 1200]))), window_s=86400.0)
    assert log.profile().rate.mean_per_s == pytest.approx(1.0)
    assert any("of the window" in text for text in log.assumptions)


def test_servers_for_prefill_do_not_count_twice(tmp_path: Path) -> None:
    """A request that one server prefills and another answers is one; prefixes are found where prompts are computed."""
    prompt, output = NAMES["vllm"]
    text = STARTED
    for pod, outputs, total, hits in (("p", {"1": 1000, "+Inf": 1000}, 1000, 900_000), ("d", OUTPUTS, 190_000, 0)):
        text += histogram(prompt, PROMPTS, 1_800_000, f'pod="{pod}"') + histogram(
            output, outputs, total, f'pod="{pod}"'
        )
        text += f'vllm:prefix_cache_hits_total{{pod="{pod}"}} {hits}\n'
        text += f'vllm:prefix_cache_queries_total{{pod="{pod}"}} 1800000\n'
    profile = profile_of(tmp_path, text)
    assert (profile.num_requests, profile.output_mean) == (1000, pytest.approx(190.0))
    assert profile.shared_prefix_frac == pytest.approx(0.5)


def test_servers_for_prefill_do_not_count_twice_by_counters(tmp_path: Path) -> None:
    """TensorRT-LLM has counters alone, its requests by why they ended: the prompt's tokens that were found stay."""
    text = STARTED
    for pod, outputs, hits in (("c", 1000, 900_000), ("g", 190_000, 0)):
        text += f'trtllm_prompt_tokens_total{{pod="{pod}"}} 1800000\n'
        text += f'trtllm_generation_tokens_total{{pod="{pod}"}} {outputs}\n'
        text += f'trtllm_request_success_total{{pod="{pod}",finished_reason="stop"}} 900\n'
        text += f'trtllm_request_success_total{{pod="{pod}",finished_reason="length"}} 100\n'
        text += f'trtllm_prompt_cached_tokens_total{{pod="{pod}"}} {hits}\n'
    profile = profile_of(tmp_path, STARTED + text)
    assert (profile.num_requests, profile.prompt_mean, profile.output_mean) == (1000, 1800.0, 190.0)
    assert profile.shared_prefix_frac == pytest.approx(0.5)
    assert any("1 of 2 servers answer with one token" in text for text in profile.assumptions)


def test_series_as_victoriametrics_exports_them(tmp_path: Path) -> None:
    """A series per line, times in milliseconds."""
    rows = [
        {"metric": labels, "values": list(values), "timestamps": [int(1.77e12 + 3e5 * i) for i in range(len(values))]}
        for labels, values in both([0, 300, 600, 900, 1200])
    ]
    log = read_traffic(written(tmp_path, "\n".join(json.dumps(row) for row in rows)))
    assert log.profile().rate.mean_per_s == pytest.approx(1.0)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """Metrics without lengths or counters say whose are read."""
    refusal = read_traffic(written(tmp_path, "# TYPE x counter\nx 5\n")).refusal
    assert refusal is not None
    assert "TensorRT-LLM" in refusal
