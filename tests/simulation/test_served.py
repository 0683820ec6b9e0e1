"""What a plan serves of the requests that come, below and above what it can do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autotune.disaggregated.rescore import pool_capacities, rescored
from autotune.scoring.best_knobs import score
from autotune.simulation.goodput import capacity_per_s, served_per_s
from autotune.simulation.queue_growth import queue_grows
from autotune.simulation.report_simulation import simulation_document
from autotune.simulation.simulate_plan import at_rate, simulate_plan, study_traffic
from autotune.space import parse_plan, resolve
from autotune.study import Study
from autotune.tuning.answer_study import score_plan
from tests.tuning.brute import question

RATES = (6.0, 12.0, 14.0, 14.6, 15.0, 16.0, 20.0, 30.0, 1000.0, 1e6)


@pytest.mark.parametrize("count", [40, 4000])
def test_no_less_is_served_where_more_comes(count: int) -> None:
    """What comes, then what the plan can do: within 1 % of the closed form's with all its room taken, few or many."""
    study = question(model="qwen3-32b", workload={"isl": 3000, "osl": 300, "request_rate_per_s": 6})
    found = resolve(parse_plan("R2 TP4"), arch=study.arch, gpus=8, engine="vllm", version=study.engine_version)
    (plan,) = score(study, [found.candidate])
    served = []
    for rate in RATES:
        own = at_rate(study, rate)
        traffic = study_traffic(own, count=count)
        served.append(served_per_s(traffic, simulate_plan(own, rescored(own, plan), traffic, with_range=False)))
    assert served == sorted(served)
    assert served[:2] == [6.0, 12.0]
    most = rescored(at_rate(study, 1000.0), plan)
    if count > 40:
        assert served[-1] == pytest.approx(most.metrics["requests_per_s"], rel=0.01)


def _document(study: Study, name: str, count: int = 2000) -> dict[str, Any]:
    plan = score_plan(study, name).result
    assert plan is not None
    traffic = study_traffic(study, count=count)
    return simulation_document(study, plan, traffic, simulate_plan(study, plan, traffic))


def _of_four(rate_per_s: float, ttft_ms: float = 2000) -> Study:
    return question(
        "llama-3.1-8b",
        cluster={"gpus": 4, "gpu": "h100_sxm", "gpus_per_node": 8},
        workload={"isl": 1000, "osl": 200, "request_rate_per_s": rate_per_s},
        constraints={"ttft_ms": ttft_ms, "tpot_ms": 100},
        search={"disaggregated": "auto"},
    )


@pytest.mark.parametrize(
    ("name", "rate_per_s", "ttft_ms"),
    [("R4 TP1", 120, 2000), ("R4 TP1", 149, 2000), ("P1:TP1 + D3:TP1", 60, 1e6), ("P3:TP1 + D1:TP1", 60, 1e6)],
)
def test_a_full_plan_keeps_no_limit_above_what_it_serves(name: str, rate_per_s: float, ttft_ms: float) -> None:
    """Before any queue has formed it is said to be full, and no limit is kept up to more than it serves."""
    document = _document(_of_four(rate_per_s, ttft_ms), name)
    assert document["served_requests_per_s"] < rate_per_s
    assert (document["full"], document["kept"]) == (True, False)
    assert document["goodput_requests_per_s"] <= document["served_requests_per_s"]
    kept_to = [load["rate_per_s"] for load in document["breaking_loads"]]
    assert len(kept_to) == 2
    assert all(0.0 < rate <= document["served_requests_per_s"] for rate in kept_to)


@pytest.mark.parametrize("name", ["P1:TP1 + D3:TP1", "P3:TP1 + D1:TP1"])
def test_pools_serve_what_the_slower_one_does(name: str) -> None:
    """Within 15 % of the closed form's of that pool, whichever it is."""
    study = _of_four(1000)
    plan = score_plan(study, name).result
    assert plan is not None
    found = simulate_plan(study, plan, study_traffic(study), with_range=False)
    each = pool_capacities(study, plan)
    assert capacity_per_s(found) == pytest.approx(min(each), rel=0.15)
    assert max(each) > 2.0 * min(each)


def test_a_pipeline_in_lock_step_is_not_full() -> None:
    """Its queue grows below what it serves, which is no reason to say that more comes; a limit that breaks so is kept
    to less."""
    study = question(
        "llama-3.1-70b",
        engine="trtllm",
        cluster={"gpus": 16, "gpu": "h100_sxm", "gpus_per_node": 8},
        workload={"isl": 2000, "osl": 500, "request_rate_per_s": 10},
        constraints={"ttft_ms": 5000, "tpot_ms": 100},
        search={"max_num_batched_tokens": [2048]},
    )
    document = _document(study, "PP2 TP8", 4000)
    assert document["served_requests_per_s"] == 10.0
    assert (document["full"], document["kept"]) == (False, False)
    assert not any(limit["kept"] for limit in document["limits"])
    assert all(load["rate_per_s"] < 10.0 for load in document["breaking_loads"])
    free = replace(study, constraints=replace(study.constraints, ttft_s=None, tpot_s=None))
    assert _document(free, "PP2 TP8", 4000)["kept"]
    plan = score_plan(study, "PP2 TP8").result
    assert plan is not None
    assert queue_grows(simulate_plan(study, plan, study_traffic(study, count=4000, exactly=True)).forecast.expected)


def _near_its_capacity(rate_per_s: float) -> Study:
    """A cache that holds about 300 such requests: with as many as it holds prompts of, most are thrown out again."""
    return question(
        "llama-3.1-8b",
        cluster={"gpus": 1, "gpu": "h100_sxm", "gpus_per_node": 8},
        workload={"isl": 500, "osl": 2000, "request_rate_per_s": rate_per_s},
        constraints={"ttft_ms": 1500, "tpot_ms": 60},
    )


def test_a_plan_without_a_queue_is_not_full() -> None:
    """Over-filled and in lock step it serves 3.8 requests/s, which was said to be all: at 4.4 no queue grows."""
    document = _document(_near_its_capacity(4.4), "R1 TP1", 4000)
    assert (document["full"], document["kept"]) == (False, True)
    assert document["served_requests_per_s"] == 4.4
    assert all(load["rate_per_s"] > 4.3 for load in document["breaking_loads"])


def test_a_plan_whose_requests_take_ever_longer_is_full() -> None:
    """No more is served than by as many in flight as are best, within a tenth of the closed form."""
    study = _near_its_capacity(5.2)
    document = _document(study, "R1 TP1", 4000)
    assert (document["full"], document["kept"]) == (True, False)
    assert 4.2 < document["served_requests_per_s"] < 5.0
    plan = score_plan(study, "R1 TP1").result
    assert plan is not None
    assert document["served_requests_per_s"] == pytest.approx(plan.metrics["requests_per_s"], rel=0.1)
