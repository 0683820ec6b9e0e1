"""One launch has one breaking load and one capacity, whatever rate a simulation is asked about."""

from __future__ import annotations

from typing import Any

import pytest

from autotune.disaggregated.rescore import rescored
from autotune.scoring.plan_result import PlanResult
from autotune.simulation.goodput import capacity_per_s
from autotune.simulation.report_simulation import (
    SWEEP_POINTS,
    breaking_loads,
    limits_of_requests,
    simulation_document,
)
from autotune.simulation.simulate_plan import PlanSimulation, at_rate, simulate_plan, study_traffic
from autotune.study import Study, load_study
from autotune.tuning.answer_study import score_plan
from tests.studies import FOLDER

LITTLE, MUCH = 1.0, 19.5
"""Requests per second: next to none, and more than any of the plans serves."""


def _asked(name: str) -> tuple[Study, PlanResult]:
    """A launch with one token budget, scored for 8 requests per second."""
    study = load_study(FOLDER / "llama-70b-16xh100.toml", ["search.max_num_batched_tokens=[1024]"])
    plan = score_plan(study, name).result
    assert plan is not None
    return study, plan


def _simulated(name: str, rate: float) -> tuple[Study, PlanResult, PlanSimulation]:
    study, launch = _asked(name)
    own = at_rate(study, rate)
    plan = rescored(own, launch)
    return own, plan, simulate_plan(own, plan, study_traffic(own), with_range=False)


def _document(name: str, rate: float) -> dict[str, Any]:
    study, plan, found = _simulated(name, rate)
    return simulation_document(study, plan, study_traffic(study), found)


@pytest.mark.parametrize(
    ("name", "rates"), [("R4 TP4", (LITTLE, 12.0, MUCH)), ("R2 TP8", (LITTLE, MUCH)), ("P8:TP4+D8:TP4", (LITTLE, MUCH))]
)
def test_limits_break_at_one_load_whatever_is_asked(name: str, rates: tuple[float, ...]) -> None:
    """Kept up to 16.0/s was said where 1/s was asked about, and up to 13.4/s where 19.5/s was, of R4 TP4."""
    documents = [_document(name, rate) for rate in rates]
    served = documents[-1]["served_requests_per_s"]
    assert served < MUCH
    for rows in zip(*(found["breaking_loads"] for found in documents), strict=True):
        kept = [row["rate_per_s"] for row in rows]
        assert max(kept) - min(kept) <= 1.01 * served / SWEEP_POINTS
        assert all(0.0 < rate <= served * 1.01 for rate in kept)


def test_a_limit_is_kept_where_it_is_said_to_be() -> None:
    """Asked about just below its breaking load a plan keeps the limit on TPOT, and just above it breaks it."""
    study, plan, found = _simulated("R2 TP8", LITTLE)
    (limit,) = (limit for limit in limits_of_requests(study) if limit.code == "tpot_ms")
    full_per_s = capacity_per_s(found)
    loads = breaking_loads(study, plan, study_traffic(study), found, full_per_s=full_per_s)
    (highest,) = (load.rate_per_s for load in loads if load.code == "tpot_ms")
    assert highest is not None
    step = 1.5 * full_per_s / SWEEP_POINTS
    kept = [
        limit.kept(limit.figure(_simulated("R2 TP8", rate)[2].forecast)) for rate in (highest - step, highest + step)
    ]
    assert kept == [True, False]


@pytest.mark.parametrize("name", ["R4 TP4", "R2 TP8", "P8:TP4+D8:TP4"])
def test_a_plan_serves_as_much_whatever_comes(name: str) -> None:
    """Steps of a full plan are those of a full one: they were as long as with what was asked about."""
    little, much = (capacity_per_s(_simulated(name, rate)[2]) for rate in (LITTLE, MUCH))
    assert little == pytest.approx(much, rel=0.01)
