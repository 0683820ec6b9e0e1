"""Servers that are started without CUDA graphs launch every step kernel by kernel."""

from __future__ import annotations

import pytest

from autotune.scoring.reach import unmeasured
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.tuning import score_plan
from tests.tuning.brute import question


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("plan", ["R4 TP2", "R2 PP2 TP2", "P4:R2 TP2+D4:R2 TP2"])
def test_every_step_is_launched(engine: str, plan: str) -> None:
    """Decoding of a few sequences takes as long as launching its layers, in the estimate as in the simulation."""
    tpot_s, served_s, reach = {}, {}, {}
    for graphs in (True, False):
        study = question(
            "llama-3.1-8b",
            cluster={"gpus": 8, "gpu": "h100_sxm", "gpus_per_node": 8},
            engine=engine,
            workload={"isl": 2003, "osl": 101, "concurrency": 16},
            search={"max_num_batched_tokens": [8192], "disaggregated": "auto"},
            engine_options={"cuda_graphs": graphs},
        )
        found = score_plan(study, plan).result
        assert found is not None
        served = simulate_plan(study, found, study_traffic(study, count=300), with_range=False)
        tpot_s[graphs], reach[graphs] = found.metrics["tpot_s"], set(unmeasured(study, found))
        served_s[graphs] = served.forecast.latency("tpot", "mean").value
    assert tpot_s[False] > 1.5 * tpot_s[True]
    assert served_s[False] == pytest.approx(tpot_s[False], rel=0.1)
    assert reach[False] - reach[True] == {"eager"}
