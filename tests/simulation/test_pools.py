"""Disaggregated plans served request by request: two queues in series, held against the closed form and by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from autotune.scoring.plan_result import PlanResult
from autotune.simulation.plan_models import pools_model
from autotune.simulation.report_simulation import simulation_document
from autotune.simulation.simulate_plan import PlanSimulation, Traffic, simulate_plan, study_traffic
from autotune.study import Study
from autotune.tuning.answer_study import score_plan
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.requests import Requests
from tests.tuning.brute import question

PLAN = "P4:TP4+D4:R2 TP2"


@lru_cache(maxsize=8)
def _plan(engine: str = "vllm", **workload: float) -> tuple[Study, PlanResult]:
    study = question(
        "llama-3.1-8b",
        cluster={"gpus": 8, "gpu": "h100_sxm", "gpus_per_node": 8},
        engine=engine,
        workload={"isl": 2003, "osl": 101, **workload},
        search={"max_num_batched_tokens": [8192], "disaggregated": "only"},
    )
    found = score_plan(study, PLAN).result
    assert found is not None
    return study, found


def _served(study: Study, plan: PlanResult, count: int = 300) -> tuple[Traffic, PlanSimulation]:
    traffic = study_traffic(study, count=count)
    return traffic, simulate_plan(study, plan, traffic, with_range=False)


@pytest.mark.parametrize(("engine", "in_flight"), [("vllm", 8), ("vllm", 64), ("sglang", 64), ("trtllm", 64)])
def test_a_closed_loop_settles_where_the_closed_form_says(engine: str, in_flight: int) -> None:
    """Means of TPOT and of the time of a request agree, whether a pool idles or requests wait for a seat."""
    study, plan = _plan(engine, concurrency=in_flight)
    _, found = _served(study, plan)
    tpot, e2e = (found.forecast.latency(name, "mean").value for name in ("tpot", "e2e"))
    assert tpot == pytest.approx(plan.metrics["tpot_s"], rel=0.06)
    assert e2e == pytest.approx(plan.metrics["e2e_s"], rel=0.12)


def test_an_idle_pair_answers_after_prefill_and_hand_over() -> None:
    """One request in flight meets no queue: its first token comes after a prompt's pass and the hand-over."""
    study, plan = _plan(concurrency=1)
    _, found = _served(study, plan, 50)
    model, _ = pools_model(study, plan)
    served = found.forecast.expected.served
    assert np.ptp(served.ttft_s) < 0.02 * served.ttft_s.mean()
    assert model.between_s < served.ttft_s.mean()
    assert served.ttft_s.mean() == pytest.approx(plan.metrics["ttft_s"], rel=0.15)


def _drawn(count: int, gap_s: float) -> Requests:
    random = np.random.default_rng(7)
    return Requests(
        arrival_s=np.arange(count) * gap_s,
        prompt=random.integers(500, 3000, count),
        cached=np.zeros(count, dtype=np.int64),
        output=random.integers(1, 150, count),
    )


def _model() -> PoolsModel:
    return pools_model(*_plan(concurrency=64))[0]


def test_twice_the_pace_takes_twice_the_time() -> None:
    """With every step and every gap twice as long, all times but tokenizing are."""
    model, requests = _model(), _drawn(120, 0.05)
    free = replace(model.prefill.table, frontend_s=0.0, token_s=0.0)
    model = replace(model, prefill=replace(model.prefill, table=free))
    once = model.open_loop(requests).served
    twice = model.paced(2.0).open_loop(replace(requests, arrival_s=2.0 * requests.arrival_s)).served
    assert twice.finish_s == pytest.approx(2.0 * once.finish_s, rel=1e-9)


def test_more_requests_never_make_the_first_ones_quicker() -> None:
    """Every request is served once, first token before last, and a busier open loop is no quicker in the mean."""
    model = _model()
    slow, busy = (model.open_loop(_drawn(200, gap)).served for gap in (0.5, 0.02))
    for served in (slow, busy):
        assert np.isfinite(served.finish_s).all()
        assert (served.first_token_s > served.requests.arrival_s + model.between_s).all()
        assert (served.finish_s >= served.first_token_s).all()
    assert busy.ttft_s.mean() > slow.ttft_s.mean()
    assert busy.tpot_s.mean() > slow.tpot_s.mean()


def test_seats_of_the_decode_pool_bind() -> None:
    """With one seat on each worker two requests decode at a time, and the rest waits in front."""
    model = _model()
    seated = replace(model.decode, limits=replace(model.decode.limits, max_num_seqs=1))
    few = replace(model, decode=seated)
    requests = _drawn(60, 1e-4)
    done = few.open_loop(requests, timeline=True)
    decoding = max(float(events[:, 1].max()) for events in done.timeline[model.prefill.replicas :])
    assert decoding == 1.0
    assert done.served.ttft_s.mean() > 2.0 * model.open_loop(requests).served.ttft_s.mean()


def test_a_closed_loop_is_the_open_loop_of_its_own_arrivals() -> None:
    """Arrivals that a closed loop found, played as an open one, end as they did: no event came too late."""
    model, drawn = _model(), _drawn(150, 0.0)
    closed = model.closed_loop(drawn.prompt, drawn.cached, drawn.output, concurrency=6).served
    again = model.open_loop(closed.requests).served
    assert again.finish_s == pytest.approx(closed.finish_s, rel=0.02)


def test_the_document_has_percentiles_and_a_timeline() -> None:
    """What `autotune simulate` shows of a disaggregated plan is what it shows of any."""
    study, plan = _plan(request_rate_per_s=4)
    study = replace(study, constraints=replace(study.constraints, tpot_s=0.05))
    traffic = study_traffic(study, count=300)
    document = simulation_document(study, plan, traffic, simulate_plan(study, plan, traffic))
    ttft = document["latencies"]["ttft"]
    assert ttft["p50"]["value"] < ttft["p99"]["value"]
    assert ttft["p99"]["low"] < ttft["p99"]["value"] < ttft["p99"]["high"]
    assert document["limits"][0]["kept"]
    assert max(point["decoding"] for point in document["timeline"]) > 0.0
    assert 0.0 < document["utilisation"] <= 1.0
