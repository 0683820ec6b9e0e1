"""One run of a benchmark, as each tool writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from autotune.study import Study
from autotune.validation.bench import BenchResult, read_results

PER_S, ISL, OSL, TTFT_S, TPOT_S = 2.5, 2000, 500, 0.9, 0.042
E2E_S = TTFT_S + (OSL - 1) * TPOT_S
REQUESTS, FAILED = 640, 3
DURATION_S = REQUESTS / PER_S
IN_FLIGHT = PER_S * E2E_S


def results(folder: Path, study: Study, content: Any, name: str = "result.json") -> tuple[BenchResult, ...]:
    """What is read of a file."""
    path = folder / name
    text = yaml.safe_dump(content) if name.endswith(".yaml") else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return read_results(path, study, "TP4")


def table(mean: float, unit: str, *, mean_name: str = "mean", p50_name: str = "p50") -> dict[str, Any]:
    """Statistics as tools write them."""
    return {"units" if unit.startswith("c") else "unit": unit, mean_name: mean, p50_name: 0.9 * mean, "p99": 2 * mean}


CLASSIC = {
    "completed": REQUESTS, "failed": FAILED, "duration": DURATION_S, "total_input_tokens": REQUESTS * ISL,
    "total_output_tokens": REQUESTS * OSL, "mean_ttft_ms": 1e3 * TTFT_S, "median_ttft_ms": 900 * TTFT_S,
    "p99_ttft_ms": 2e3 * TTFT_S, "mean_tpot_ms": 1e3 * TPOT_S, "max_concurrency": 60, "request_rate": "inf",
}  # fmt: skip
GUIDELLM = {
    "benchmarks": [
        {
            "duration": DURATION_S,
            "config": {"strategy": {"type_": "concurrent", "streams": 60}},
            "metrics": {
                "request_totals": {"successful": REQUESTS, "errored": FAILED},
                "requests_per_second": {"successful": {"mean": PER_S}},
                "request_concurrency": {"successful": {"mean": IN_FLIGHT}},
                "prompt_token_count": {"successful": {"mean": ISL}},
                "output_token_count": {"successful": {"mean": OSL}},
                "time_to_first_token_ms": {
                    "successful": {
                        "mean": 1e3 * TTFT_S, "median": 900 * TTFT_S, "percentiles": {"p99": 2e3 * TTFT_S},
                    }
                },
                "inter_token_latency_ms": {"successful": {"mean": 1e3 * TPOT_S}},
                "time_per_output_token_ms": {"successful": {"mean": 1e3 * E2E_S / OSL}},
                "request_latency": {"successful": {"mean": E2E_S}},
            },
        }
    ]
}  # fmt: skip
LATENCY = {
    "time_to_first_token": {"mean": TTFT_S, "median": 0.9 * TTFT_S, "p99": 2 * TTFT_S},
    "time_per_output_token": {"mean": TPOT_S},
    "request_latency": {"mean": E2E_S},
}
LLM_D = {
    "version": "0.1",
    "scenario": {"model": {"name": "meta-llama/Llama-3.1-70B"}, "load": {"args": {"max_concurrency": 60}}},
    "metrics": {
        "time": {"duration": DURATION_S},
        "requests": {
            "total": REQUESTS + FAILED, "failures": FAILED, "input_length": table(ISL, "count"),
            "output_length": table(OSL, "count"),
        },
        "latency": {
            "time_to_first_token": {"units": "ms", "mean": 1e3 * TTFT_S, "p50": 900 * TTFT_S, "p99": 2e3 * TTFT_S},
            "time_per_output_token": {"units": "ms/token", "mean": 1e3 * TPOT_S},
            "request_latency": {"units": "ms", "mean": 1e3 * E2E_S},
        },
        "throughput": {"requests_per_sec": PER_S},
    },
}  # fmt: skip
AIPERF = {
    "request_throughput": {"unit": "requests/sec", "avg": PER_S},
    "request_count": {"unit": "requests", "avg": REQUESTS},
    "error_request_count": {"unit": "requests", "avg": FAILED},
    "request_latency": table(1e3 * E2E_S, "ms", mean_name="avg"),
    "time_to_first_token": table(1e3 * TTFT_S, "ms", mean_name="avg"),
    "inter_token_latency": table(1e3 * TPOT_S, "ms", mean_name="avg"),
    "output_sequence_length": {"unit": "tokens", "avg": OSL},
    "input_sequence_length": {"unit": "tokens", "avg": ISL},
    "input_config": {"loadgen": {"concurrency": 60}, "endpoint": {"model_names": ["meta-llama/Llama-3.1-70B"]}},
}
LLMPERF = {
    "version": "2023-08-31",
    "num_concurrent_requests": 60,
    "results_ttft_s_mean": TTFT_S,
    "results_ttft_s_quantiles_p50": 0.9 * TTFT_S,
    "results_ttft_s_quantiles_p99": 2 * TTFT_S,
    "results_end_to_end_latency_s_mean": E2E_S,
    "results_inter_token_latency_s_mean": E2E_S / OSL,
    "results_number_input_tokens_mean": ISL,
    "results_number_output_tokens_mean": OSL,
    "results_num_completed_requests": REQUESTS,
    "results_num_completed_requests_per_min": 60 * PER_S,
    "results_number_errors": FAILED,
}
