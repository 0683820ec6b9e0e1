"""Two plans on a log: requests within the limits are counted one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autotune.comparison import best, compare, simulated_requests
from autotune.comparison.compare_plans import on_traffic
from autotune.report.comparison import comparison_document
from autotune.report.comparison_text import comparison_report
from autotune.scoring.plan_result import PlanResult
from autotune.simulation import simulate_plan as traffic_of
from autotune.simulation.simulate_plan import PlanSimulation, Traffic, recorded_traffic, simulate_plan
from autotune.study import Study
from autotune.traffic.profile import profile_of_arrays
from autotune.traffic.read import read_traffic
from autotune.traffic.replayed import requests_of_log
from autotune.tuning import tune
from costmodel.simulation.requests import Requests
from tests.tuning.brute import question

TTFT_S, TPOT_S = 0.15, 0.009


def test_requests_within_the_limits_are_counted(tmp_path: Path) -> None:
    """What both plans are worth is the requests per second of the log that keep the limits, simulated."""
    random = np.random.default_rng(8)
    times = np.sort(np.concatenate([random.uniform(0.0, 60.0, 150), random.uniform(30.0, 32.0, 80)]))
    rows = [f"{t:.3f},{random.integers(500, 2500)},{random.integers(20, 90)}" for t in times]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["timestamp,input_tokens,output_tokens", *rows]) + "\n")
    study = question(
        "llama-3.1-8b",
        4,
        workload={"isl": 1500, "osl": 55, "request_rate_per_s": 4.0},
        constraints={"ttft_ms": 1e3 * TTFT_S, "tpot_ms": 1e3 * TPOT_S},
    )
    log = read_traffic(str(path))
    requests = requests_of_log(str(path), log, 0.0)
    found = compare(study, "R4/TP1", "TP4", traffic=log.profile(), requests=requests, scenarios=False)
    assert len(found.simulated) == 2
    for side, simulated in zip((found.current, found.candidate), found.simulated, strict=True):
        assert side is not None
        assert side.result is not None
        done = simulate_plan(found.study, side.result, recorded_traffic(requests), with_range=False).forecast.expected
        kept = (done.served.ttft_s <= TTFT_S) & (done.served.tpot_s <= TPOT_S)
        assert simulated.within_limits_frac.value == pytest.approx(kept.mean())
        assert simulated.within_limits_per_s.value == pytest.approx(kept.sum() / (times[-1] - times[0]), rel=1e-4)
        low, high = simulated.within_limits_per_s.low, simulated.within_limits_per_s.high
        assert low - 1e-9 <= side.value_per_s <= high + 1e-9
    document = comparison_document(found)
    assert document["simulated"]["current"]["requests"] == len(times)
    assert any(block.key == "simulated" for block in comparison_report(document).blocks)
    # where a latency is minimised, requests in the limits count the more the less they have of it
    quick = replace(study, objective=question(objective={"minimize": "tpot_s"}).objective)
    least = compare(quick, "R4/TP1", "TP4", traffic=log.profile(), requests=requests, scenarios=False)
    assert least.candidate is not None
    tpot = [side.result.metrics["tpot_s"] for side in (least.current, least.candidate) if side.result is not None]
    kept = [one.within_limits_per_s.value for one in least.simulated]
    assert least.candidate.value_per_s == pytest.approx(kept[1] * tpot[0] / tpot[1])
    # without a limit on latencies every request that is served counts, as before
    free = replace(study, constraints=type(study.constraints)())
    assert not compare(free, "R4/TP1", "TP4", traffic=log.profile(), requests=requests, scenarios=False).simulated


@pytest.mark.parametrize("long_log", [10**9, 100])
def test_a_proposed_plan_serves_the_log_once(monkeypatch: pytest.MonkeyPatch, long_log: int) -> None:
    """Of plans that are close in capacity each is simulated once, though one is then compared: on long logs too."""
    times = np.linspace(0.0, 1800.0, 3600)
    prompt, output = np.full(times.size, 1000), np.full(times.size, 100)
    requests = Requests(arrival_s=times, prompt=prompt, cached=0 * prompt, output=output)
    study = question(
        "llama-3.1-8b",
        4,
        engine="vllm",
        workload={"isl": 1000, "osl": 100, "request_rate_per_s": 2.0},
        constraints={"ttft_ms": 900, "tpot_ms": 45},
    )
    served: list[str] = []

    def counted(study: Study, plan: PlanResult, traffic: Traffic) -> PlanSimulation:
        served.append(plan.plan)
        return simulate_plan(study, plan, traffic)

    monkeypatch.setattr(traffic_of, "LONG_LOG", long_log)
    monkeypatch.setattr(simulated_requests, "simulate_plan", counted)
    monkeypatch.setattr(best, "CLOSE_FRAC", 1.0)
    profile = profile_of_arrays(times, prompt, output, start_s=0.0, end_s=1800.0)
    found = compare(study, "PP4", traffic=profile, requests=requests, scenarios=False)
    assert found.candidate is not None
    assert found.candidate.plan in served
    assert len(served) == best.COUNTED + 1
    assert len(set(served)) == len(served)
    assert [one.requests for one in found.simulated] == [times.size, times.size]


def test_of_plans_that_serve_all_the_best_is_the_first_that_keeps_the_percentiles() -> None:
    """Capacities tell nothing apart that all serve: the plan that `tune` ranks first on the same log is taken."""
    random = np.random.default_rng(3)
    times = np.sort(random.uniform(0.0, 1800.0, 3600))
    prompt, output = random.integers(500, 2500, times.size), random.integers(20, 90, times.size)
    requests = Requests(arrival_s=times, prompt=prompt, cached=0 * prompt, output=output)
    study = question(
        "llama-3.1-8b",
        4,
        workload={"isl": 1500, "osl": 55, "request_rate_per_s": 2.0},
        constraints={"ttft_p99_ms": 900, "itl_p99_ms": 60},
    )
    own = on_traffic(study, profile_of_arrays(times, prompt, output, start_s=0.0, end_s=1800.0))
    own = replace(own, workload=replace(own.workload, recorded=requests))
    found, first = best.best_plan(own), tune(own).ranked[0]
    assert found is not None
    assert found.plan == first.plan
    assert found.feasible
