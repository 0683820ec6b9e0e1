"""Requests at a rate are served until the servers have filled, by one of the parts of a plan that are alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autotune.scoring.plan_result import PlanResult
from autotune.simulation.draw_requests import study_requests
from autotune.simulation.report_simulation import simulation_document
from autotune.simulation.simulate_plan import PlanSimulation, simulate_plan, study_traffic
from autotune.study import Study
from autotune.tuning.answer_study import score_plan
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.simulate import Routing, simulate
from tests.tuning.brute import question

EACH_PER_S = 3.6


def _long_outputs(gpus: int, each_per_s: float = EACH_PER_S, cv: float = 1.0) -> Study:
    """Requests of half a minute, of which each GPU has about a hundred in flight."""
    return question(
        "llama-3.1-8b",
        cluster={"gpus": gpus, "gpu": "h100_sxm", "gpus_per_node": 8},
        workload={"isl": 500, "osl": 2000, "request_rate_per_s": each_per_s * gpus, "arrivals": {"cv": cv}},
        constraints={"ttft_ms": 1500, "tpot_ms": 60},
        search={"disaggregated": "auto" if gpus > 1 else "off"},
    )


def _scored(study: Study, name: str) -> PlanResult:
    plan = score_plan(study, name).result
    assert plan is not None
    return plan


def _simulated(study: Study, name: str, *, with_range: bool = False) -> PlanSimulation:
    return simulate_plan(study, _scored(study, name), study_traffic(study), with_range=with_range)


def test_equal_loads_of_each_replica_have_equal_percentiles() -> None:
    """Of 1, 4, 16 and 64 replicas: a little less with more of them, whose arrivals are evener, and never below the
    mean. They were 16.7, 14.9, 11.9 and 8.3 ms: larger fleets were still filling up when the last request came."""
    p99, mean = [], []
    for gpus in (1, 4, 16, 64):
        forecast = _simulated(_long_outputs(gpus), f"R{gpus} TP1").forecast
        p99.append(forecast.latency("tpot", "p99").value)
        mean.append(forecast.latency("tpot", "mean").value)
    assert p99 == sorted(p99, reverse=True)
    assert p99[-1] > 0.88 * p99[0]
    assert mean == pytest.approx([mean[0]] * 4, rel=0.02)
    assert all(worst > average for worst, average in zip(p99, mean, strict=True))


@pytest.mark.parametrize("each_per_s", [2.0, EACH_PER_S, 4.3])
def test_what_counts_has_settled(each_per_s: float) -> None:
    """Requests take as long at the beginning of what counts, within a tenth, as in the end, and in the closed form."""
    study = _long_outputs(8, each_per_s)
    plan = _scored(study, "R8 TP1")
    served = simulate_plan(study, plan, study_traffic(study), with_range=False).forecast.expected.served
    eighth = len(served.requests) // 8
    assert served.e2e_s[:eighth].mean() == pytest.approx(served.e2e_s[-eighth:].mean(), rel=0.1)
    assert served.e2e_s.mean() == pytest.approx(plan.metrics["e2e_s"], rel=0.1)


@pytest.mark.parametrize("cv", [0.0, 1.0, 2.0])
def test_one_replica_meets_what_all_do(cv: float) -> None:
    """What all replicas together meet, but for chance: it moves the median of so many requests by 1 %, p99 by 2 %."""
    study = _long_outputs(4, cv=cv)
    found = simulate_plan(study, _scored(study, "R4 TP1"), study_traffic(study, count=12_000), with_range=False)
    assert (found.alike, found.part.replicas, found.model.replicas) == (4, 1, 4)
    count = 48_000
    drawn = study_requests(study, count=count, rate_per_s=4 * EACH_PER_S)
    whole = simulate(found.server.paced(found.forecast.errors.pace), drawn).counted(count // 4, count * 3 // 4)
    ours = found.forecast.expected.served.tpot_s
    for share, chance in ((50, 0.03), (99, 0.06)):
        assert np.percentile(ours, share) == pytest.approx(np.percentile(whole.served.tpot_s, share), rel=chance)


def test_gaps_of_one_of_several_parts_are_sums_of_gaps() -> None:
    """Their mean is so many times as long, and they vary less by the square root of that."""
    study = _long_outputs(1)
    gaps = np.diff(study_requests(study, count=20_000, rate_per_s=90.0, alike=9).arrival_s)
    assert gaps.mean() == pytest.approx(0.1)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0 / 3.0, rel=0.03)


def test_a_part_of_pools_meets_what_all_of_them_do() -> None:
    """Two prefill and four decode workers are twice one and two."""
    study = _long_outputs(6, 2.0)
    found = _simulated(study, "P2:TP1 + D4:TP1")
    assert isinstance(found.part, PoolsModel)
    assert isinstance(found.model, PoolsModel)
    assert (found.alike, found.part.prefill.replicas, found.part.decode.replicas) == (2, 1, 2)
    count = 8000
    drawn = study_requests(study, count=count, rate_per_s=12.0)
    whole = found.model.paced(found.forecast.errors.pace).open_loop(drawn).counted(count // 4, count * 3 // 4)
    ours = found.forecast.expected.served
    for share in (50, 99):
        assert np.percentile(ours.tpot_s, share) == pytest.approx(np.percentile(whole.served.tpot_s, share), rel=0.03)
        assert np.percentile(ours.ttft_s, share) == pytest.approx(np.percentile(whole.served.ttft_s, share), rel=0.05)


def test_replicas_that_are_fed_by_their_load_are_simulated_together() -> None:
    """What goes to one depends on the others."""
    study = _long_outputs(2)
    routed = Routing.LEAST_OUTSTANDING
    plan = _scored(study, "R2 TP1")
    found = simulate_plan(study, plan, study_traffic(study), routing=routed, with_range=False)
    assert (found.alike, found.part.replicas) == (1, 2)


def test_so_many_requests_are_drawn_as_are_asked_for_exactly() -> None:
    """As a benchmark sends them, which begins with empty servers."""
    study = _long_outputs(4)
    traffic = study_traffic(study, count=500, exactly=True)
    found = simulate_plan(study, _scored(study, "R4 TP1"), traffic, with_range=False)
    assert (found.alike, len(found.traffic.requests)) == (1, 500)


def test_what_is_said_is_of_the_whole_plan() -> None:
    """Rate, goodput, and what is at the plan over time; what was simulated is said to be one of its replicas."""
    study = _long_outputs(16)
    plan, traffic = _scored(study, "R16 TP1"), study_traffic(study)
    document = simulation_document(study, plan, traffic, simulate_plan(study, plan, traffic))
    assert document["traffic"]["served_by"] == "1 of 16 replicas"
    assert document["served_requests_per_s"] == pytest.approx(16 * EACH_PER_S)
    assert document["goodput_requests_per_s"] == pytest.approx(16 * EACH_PER_S, rel=0.01)
    in_flight = 16 * EACH_PER_S * document["latencies"]["e2e"]["mean"]["value"]
    later = document["timeline"][len(document["timeline"]) // 2]
    assert later["decoding"] + later["waiting"] == pytest.approx(in_flight, rel=0.1)
    assert 0.9 < document["utilisation"] <= 1.0


def test_requests_that_take_far_longer_than_was_thought_are_drawn_anew() -> None:
    """A plan of which the closed form says a hundredth of the time of its requests is simulated as long as it takes."""
    study = _long_outputs(1, 4.3)
    plan = _scored(study, "R1 TP1")
    hasty = replace(plan, metrics={**plan.metrics, "e2e_s": plan.metrics["e2e_s"] / 100.0})
    means = [
        simulate_plan(study, one, study_traffic(study, count=200), with_range=False)
        .forecast.latency("e2e", "mean")
        .value
        for one in (plan, hasty)
    ]
    assert means[1] == pytest.approx(means[0], rel=0.1)


def test_pools_out_of_proportion_have_a_part_that_is_nearly_in_it() -> None:
    """15 and 49 workers are 4 and 13 but for half a percent, of which the pool with fewer has its whole share to do."""
    found = _simulated(_long_outputs(64, 2.0), "P15:TP1 + D49:TP1")
    assert isinstance(found.part, PoolsModel)
    assert (found.part.prefill.replicas, found.part.decode.replicas) == (4, 13)
    assert found.alike == 15 / 4
