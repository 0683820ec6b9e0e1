"""What is said to hold requests back: seats, the KV cache, prompts, or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from autotune.simulation.report_simulation import simulation_document
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.tuning.answer_study import score_plan
from tests.tuning.brute import question


def _limited_by(engine: str, name: str, workload: dict[str, Any], **engine_options: object) -> str:
    study = question(
        "llama-3.1-70b",
        engine=engine,
        cluster={"gpus": 8, "gpu": "h200_sxm", "gpus_per_node": 8},
        workload=workload,
        constraints={"ttft_ms": 200000, "tpot_ms": 200},
        search={"disaggregated": "auto"},
        engine_options=engine_options,
    )
    plan = score_plan(study, name).result
    assert plan is not None
    traffic = study_traffic(study, count=300)
    found = simulate_plan(study, plan, traffic, with_range=False)
    said: str = simulation_document(study, plan, traffic, found)["limited_by"]
    return said


@pytest.mark.parametrize("seats", [1, 4])
def test_seats_that_are_taken_hold_requests_back(seats: int) -> None:
    """It was said that nothing limits a plan of which 31 of 32 requests wait for its only seat."""
    said = _limited_by("vllm", "TP8", {"isl": 2000, "osl": 400, "concurrency": 32}, max_num_seqs=seats)
    assert said.startswith("Seats hold requests back")
    assert f"max_num_seqs lets {seats} in" in said
    assert "of 32 requests in flight" in said


def test_a_cache_without_room_holds_requests_back() -> None:
    """TensorRT-LLM lets in what has room to its end: none is thrown out, and the others wait."""
    load = {"isl": 200, "osl": 2000, "concurrency": 400}
    said = _limited_by("trtllm", "TP8", load, gpu_memory_utilization=0.16)
    assert said.startswith("The KV cache holds requests back")


def test_prompts_hold_requests_back() -> None:
    """Where there are seats and room, first tokens wait for the prompts before them."""
    assert _limited_by("vllm", "TP8", {"isl": 20000, "osl": 20, "concurrency": 32}).startswith("Prompts hold")


def test_of_pools_the_one_that_holds_requests_back_is_named() -> None:
    """Prompts wait in front of one prefill worker."""
    said = _limited_by("vllm", "P4:TP4 + D4:TP4", {"isl": 20000, "osl": 20, "concurrency": 32})
    assert said.startswith("Prompts hold requests back in the prefill pool")


@pytest.mark.parametrize("workload", [{"concurrency": 2}, {"request_rate_per_s": 0.5}])
def test_nothing_holds_back_what_is_served_as_it_comes(workload: dict[str, Any]) -> None:
    """A first token that waits for its own prompt alone is not held back."""
    assert _limited_by("vllm", "TP8", {"isl": 2000, "osl": 400, **workload}).startswith("Nothing limits it")
