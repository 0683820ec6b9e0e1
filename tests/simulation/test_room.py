"""Plans without KV room for a request are not simulated: not by a loop without end, and not one request at a time."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.engines import policies_by_name
from autotune.evaluation import evaluate
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.requests import Requests
from costmodel.simulation.simulate import NoRoomError, simulate, simulate_closed
from tests.simulation.helpers import small_server, small_table
from tests.tuning.brute import question

TABLE = small_table(prompt_token_s=1e-6, step_s=1e-3)
PROMPT, CACHED, OUTPUT = np.array([1000, 5000]), np.array([0, 0]), np.array([300, 300])
REQUESTS = Requests(arrival_s=np.array([0.0, 1.0]), prompt=PROMPT, cached=CACHED, output=OUTPUT)


@pytest.mark.parametrize(("engine", "needed"), [("vllm", 1008), ("sglang", 1008), ("trtllm", 1312)])
def test_where_no_request_can_be_admitted_there_is_no_simulation(engine: str, needed: int) -> None:
    """A block more than the smallest request takes is room enough; a token less is none, open and closed loop alike."""
    policy = policies_by_name()[engine]
    enough, short = (small_server(TABLE, policy, kv_tokens=float(tokens)) for tokens in (needed, needed - 1))
    assert np.isfinite(simulate(enough, REQUESTS).served.finish_s).all()
    with pytest.raises(NoRoomError, match=f"takes {needed:,} tokens .* room for {needed - 1:,}"):
        simulate(short, REQUESTS)
    with pytest.raises(ValueError, match="the smallest request takes"):
        simulate_closed(short.paced(2.0), PROMPT, CACHED, OUTPUT, concurrency=1)


@pytest.mark.parametrize("side", ["prefill", "decode"])
def test_a_pool_without_room_serves_nothing(side: str) -> None:
    """Whichever of the two it is, at a rate and in a closed loop."""
    prefill, decode = (small_server(TABLE, kv_tokens=0.0 if name == side else 1e6) for name in ("prefill", "decode"))
    model = PoolsModel(prefill=prefill, decode=decode, between_s=1e-3)
    with pytest.raises(NoRoomError, match="room for 0"):
        model.open_loop(REQUESTS)
    with pytest.raises(NoRoomError, match="room for 0"):
        model.closed_loop(PROMPT, CACHED, OUTPUT, concurrency=1)


def test_limits_on_percentiles_leave_out_a_plan_without_room() -> None:
    """`evaluate` says what does not fit and that percentiles were not looked at; plans that fit are ranked."""
    study = question(
        "llama-3.1-70b",
        cluster={"gpus": 4, "gpu": "h100_sxm", "gpus_per_node": 4},
        engine="vllm",
        workload={"isl": 1009, "osl": 11, "request_rate_per_s": 1.0},
        constraints={"ttft_p99_ms": 5000.0},
        search={"max_num_batched_tokens": [8192]},
    )
    found = evaluate(study, "R4 TP1")
    assert not found.passed
    assert next(c.name for c in found.checks if not c.passed) == "kv_capacity"
    assert all(c.name != "ttft_p99_ms" for c in found.checks)
    assert any("percentiles are not looked at" in text for text in found.assumptions)
    assert found.best is not None
