"""Closed loops that the closed form misses: the leading plans stand by the means of simulated requests."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.report.document import PROMPTS_FILL, tune_document
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.study import Study
from autotune.tuning import TuneResult, score_plan, tune
from autotune.tuning.simulate_means import (
    SIMULATED_MEANS,
    closed_form_misses,
    prompts_fill,
    simulated_means,
    with_simulated_means,
)
from tests.tuning.brute import question

LENGTHS = {"isl": {"min": 512, "max": 1536}, "osl": {"min": 10, "max": 30}}
IN_FLIGHT = 24


def short(**tables: object) -> Study:
    """Few plans in a closed loop of short outputs."""
    return question("llama-3.1-8b", 2, workload={**LENGTHS, "concurrency": IN_FLIGHT}, **tables)


@pytest.fixture(scope="module")
def answer() -> TuneResult:
    """Of a study whose load is given."""
    return tune(short())


def test_leading_plans_stand_by_simulated_means(answer: TuneResult) -> None:
    """TTFT, TPOT and rate of the first places are those of simulated requests, and parts and Little's law agree."""
    assert answer.with_simulated_means == len(answer.ranked) == 3
    for plan in answer.ranked:
        metrics, formula = plan.metrics, plan.breakdown[SIMULATED_MEANS]["closed_form"]
        ttft_s, tpot_s = simulated_means(answer.study, plan)
        assert metrics["ttft_s"] == pytest.approx(ttft_s, rel=1e-9)
        assert metrics["tpot_s"] == pytest.approx(tpot_s, rel=1e-9)
        assert formula["ttft_s"] != pytest.approx(ttft_s, rel=1e-3)
        assert sum(plan.breakdown["ttft_parts_s"].values()) == pytest.approx(ttft_s, rel=1e-9)
        assert metrics["requests_per_s"] * metrics["e2e_s"] == pytest.approx(IN_FLIGHT, rel=1e-6)


def test_what_simulate_shows_is_what_ranks(answer: TuneResult) -> None:
    """`autotune simulate` serves all replicas: its mean TTFT and its rate are those of the ranking, but for chance."""
    plan = answer.ranked[0]
    found = simulate_plan(answer.study, plan, study_traffic(answer.study, count=2000), with_range=False).forecast
    assert found.latency("ttft", "mean").value == pytest.approx(plan.metrics["ttft_s"], rel=0.04)
    arrivals = found.expected.served.requests.arrival_s
    assert (arrivals.size - 1) / np.ptp(arrivals) == pytest.approx(plan.metrics["requests_per_s"], rel=0.04)


def test_a_plan_alone_is_what_it_is_in_the_ranking(answer: TuneResult) -> None:
    """`evaluate` and `compare` score a plan by itself, and come to the same figures."""
    first = answer.ranked[0]
    alone = score_plan(answer.study, first.plan).result
    assert alone is not None
    assert alone.metrics == first.metrics
    assert tune_document(answer, top=5)["simulated_means"] == {"plans": answer.with_simulated_means, "exact": False}


def test_a_load_that_is_solved_for_keeps_the_limit_that_was_simulated() -> None:
    """A TTFT that the closed form puts too low is found too high by simulation: fewer requests are let in."""
    free = question("llama-3.1-8b", 4, workload=LENGTHS, constraints={"ttft_ms": 200.0}, engine="vllm")
    plan = with_simulated_means(free, score_plan(free, "tp1").result)
    assert plan.feasible
    assert plan.metrics["ttft_longest_s"] <= 0.2
    simulated = simulated_means(free, plan)[0]
    assert plan.metrics["ttft_s"] == pytest.approx(simulated, rel=1e-9)


@pytest.mark.parametrize(
    "workload", [{"isl": 1000, "osl": 20, "request_rate_per_s": 4.0}, {"isl": 400, "osl": 400, "concurrency": 8}]
)
def test_elsewhere_the_closed_form_stands(workload: dict[str, float]) -> None:
    """Requests that arrive whatever the server does do not bunch, and long outputs spread them."""
    study = question("llama-3.1-8b", 4, workload=workload)
    answer = tune(study)
    assert answer.with_simulated_means == 0
    assert not any(closed_form_misses(study, plan) for plan in answer.ranked)
    assert "simulated_means" not in tune_document(answer, top=5)


def test_plans_that_prompts_fill_are_told_apart() -> None:
    """Long prompts and enough of them: stages hardly run anything else. Longer outputs leave time between prompts."""
    for outputs, in_flight, fill in ((80, 24, True), (800, 2, False)):
        lengths = {"isl": 8000, "osl": outputs, "concurrency": in_flight}
        answer = tune(question("llama-3.1-8b", 4, workload=lengths, engine="vllm"))
        assert prompts_fill(answer.ranked[0]) is fill
        assert (PROMPTS_FILL in tune_document(answer, top=1)["assumptions"]) is fill
