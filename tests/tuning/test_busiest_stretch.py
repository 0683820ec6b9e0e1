"""What a plan breaks in the busiest stretch of a log it breaks in all of it; only the rest is simulated whole."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from autotune.scoring.best_knobs import score
from autotune.scoring.plan_order import rank
from autotune.scoring.plan_result import PlanResult
from autotune.simulation.percentile_limits import percentile_limits
from autotune.simulation.simulate_plan import recorded_traffic, simulate_plan, study_traffic
from autotune.study import Study
from autotune.study.sections import Constraints
from autotune.tuning import simulate_ranking as ranking
from autotune.tuning.busiest_stretch import SHORT_LOG, broken_in_stretch, busiest_stretch
from autotune.tuning.knob_choices import simulated_plans, worth_simulating
from autotune.tuning.simulated_limits import simulated_once
from autotune.tuning.study_space import study_space
from costmodel.simulation.requests import Requests
from tests.tuning.brute import question

LIMITS = {
    "attainment": Constraints(ttft_s=0.4, tpot_s=0.016, attainment_frac=0.82),
    "percentile": Constraints(ttft_p95_s=0.15),
    "mean": Constraints(ttft_s=0.1, ttft_p95_s=2.0),
}


@cache
def logged(limits: str) -> Study:
    """An 8B model under a log of 2,100 requests, five hundred of which come within ten seconds."""
    random = np.random.default_rng(11)
    gaps_s = random.exponential(np.where(np.arange(2100) // 500 == 3, 0.02, 0.5))
    rows = Requests(
        arrival_s=np.cumsum(gaps_s),
        prompt=random.integers(200, 4000, 2100),
        cached=np.zeros(2100, dtype=np.int64),
        output=random.integers(20, 300, 2100),
    )
    study = question("llama-3.1-8b", 4, workload={"isl": 2100, "osl": 160, "request_rate_per_s": 8.0})
    return replace(study, workload=replace(study.workload, recorded=rows), constraints=LIMITS[limits])


def plans_of(study: Study) -> list[PlanResult]:
    """What a search looks at, without pipelines."""
    return worth_simulating(study, score(study, [c for c in study_space(study).candidates if c.layout.pp == 1]))


@pytest.mark.parametrize("limits", LIMITS)
def test_who_breaks_a_limit_in_the_stretch_breaks_it_in_the_log(limits: str) -> None:
    """And some plans do, so that it is worth looking at."""
    study = logged(limits)
    checks, traffic = percentile_limits(study), study_traffic(study)
    stretch = busiest_stretch(traffic, checks)
    assert stretch is not None
    assert stretch.sample is not None
    assert len(stretch.sample.requests) < len(traffic.requests) / 2
    broken = 0
    for plan in plans_of(study):
        if (found := broken_in_stretch(study, plan, checks, stretch, simulate_plan)) is None:
            continue
        (whole,) = simulated_plans(study, [plan])
        assert not whole.feasible
        assert {v.code for v in found.violations} <= {v.code for v in whole.violations} | {"request_rate_per_s"}
        broken += 1
    assert broken > 0


@pytest.mark.parametrize("limits", ["attainment", "mean"])
def test_the_answer_is_that_of_all_of_the_log(limits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same plans keep the limits, in the same order, as where every plan is simulated under the whole log."""
    study = logged(limits)
    plans = plans_of(study)
    quick = ranking.simulate_ranking(study, plans)
    monkeypatch.setattr("autotune.tuning.knob_choices.busiest_stretch", lambda *_: None)
    whole = ranking.simulate_ranking(study, plans)
    assert [p.plan for p in quick.ranked] == [p.plan for p in whole.ranked]
    assert quick.ranked
    assert {p.plan for p in quick.broken} == {p.plan for p in whole.broken}


def test_the_nearest_have_figures_of_the_whole_log() -> None:
    """Where no plan keeps every limit, what the nearest break is known of all requests."""
    study = replace(logged("attainment"), constraints=Constraints(ttft_s=0.05, tpot_s=0.008, attainment_frac=0.95))
    found, seen = ranking.simulate_ranking(study, plans_of(study), wanted=2), simulated_once()
    assert not found.ranked
    nearest = rank(study, found.broken)[1][:2]
    for plan in nearest:
        value = plan.breakdown["simulated"]["attainment_frac"]["value"]
        own = seen(study, plan, study_traffic(study)).in_proportion
        assert value == pytest.approx(own.attainment(ttft_s=0.05, tpot_s=0.008, e2e_s=None).value)


def test_a_short_log_is_simulated_at_once() -> None:
    """There is nothing to be gained."""
    study = logged("attainment")
    rows = study.workload.recorded
    assert rows is not None
    short = recorded_traffic(rows.take(np.arange(SHORT_LOG - 1)))
    assert busiest_stretch(short, percentile_limits(study)) is None
