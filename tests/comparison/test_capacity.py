"""What plans take within the limits in each draw of the errors, and the best plan under traffic that goes by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autotune.comparison import best
from autotune.comparison.best import SHARES, at_capacity, best_plan, capacity_study, drawn_capacities
from autotune.comparison.compare_plans import on_traffic
from autotune.comparison.robustness import swept
from autotune.comparison.simulated_requests import ServedLog
from autotune.scoring.joint_uncertainty import DRAWS, Draws, joint_draws
from autotune.study import Study, study_from_document
from autotune.traffic.profile import profile_of_arrays
from autotune.tuning import PlanResult
from autotune.tuning.answer_study import score_plan
from costmodel.plan.columns import Floats
from costmodel.simulation.requests import Requests


def dense(**constraints: float) -> Study:
    """A dense 8B model on 16 GPUs under an open load."""
    document = {
        "name": "small",
        "engine": "vllm",
        "model": "llama-3.1-8b",
        "cluster": {"gpus": 16, "gpu": "h100_sxm"},
        "workload": {"isl": 1009, "osl": 211, "request_rate_per_s": 50.0},
        "constraints": {"tpot_ms": 20.0, **constraints},
        "search": {"max_num_batched_tokens": [4096]},
    }
    return study_from_document(document, Path("small.toml"))


def most(study: Study, text: str) -> PlanResult:
    """A plan at its capacity."""
    found = score_plan(study, text).result
    assert found is not None
    taken = at_capacity(study, found)
    assert taken is not None
    return taken


def slower(monkeypatch: pytest.MonkeyPatch, factors: Sequence[float]) -> None:
    """Plans whose times per output token are their estimates times these, in turn."""

    def drawn(study: Study, plans: Sequence[PlanResult]) -> Draws:
        tpot = np.resize(np.array(factors), (len(plans), DRAWS))
        return replace(joint_draws(study, plans), ttft_factor=np.ones_like(tpot), tpot_factor=tpot)

    monkeypatch.setattr(best, "joint_draws", drawn)


def test_a_plan_that_turns_out_slower_lets_fewer_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """As estimated: its capacity. A fifth slower: the most at which 1.2 times the time per token keeps the limit."""
    study = dense()
    asked, plan = capacity_study(study), most(study, "TP2")
    slower(monkeypatch, (1.0, 0.5, 1.2 * 0.02 / plan.metrics["tpot_s"]))
    first, faster, slow = drawn_capacities(asked, [plan])[0, :3]
    assert first == pytest.approx(plan.metrics["requests_per_s"], rel=1e-6)
    # nothing but the time per token changes: Little's law at the same number in flight
    m = plan.metrics
    whole = m["ttft_s"] + 210.0 * m["tpot_s"]
    assert faster == pytest.approx(first * whole / (m["ttft_s"] + 105.0 * m["tpot_s"]), rel=1e-6)
    at = swept(asked, plan, np.maximum(plan.knobs.concurrency * SHARES, 1.0))
    times = at.tpot_s * 1.2 * 0.02 / m["tpot_s"]
    kept = np.flatnonzero(times <= 0.02)
    assert 0 < kept.size < SHARES.size
    last = kept[-1]
    assert slow == pytest.approx(
        at.requests_per_s[last] * (at.ttft_s[last] + 210.0 * at.tpot_s[last]) / (at.ttft_s[last] + 210.0 * times[last]),
        rel=1e-6,
    )
    assert 0.0 < slow < first


def test_a_plan_that_keeps_no_limit_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred times slower than estimated no number in flight keeps the limit; no plan takes nothing in any draw."""
    study = dense()
    slower(monkeypatch, (100.0,))
    drawn = drawn_capacities(capacity_study(study), (most(study, "TP2"), None))
    assert drawn.shape == (2, DRAWS)
    assert not drawn.any()
    assert drawn_capacities(capacity_study(study), ()).shape == (0, DRAWS)


@pytest.mark.parametrize(("draws", "wanted"), [((40.0, 40.0), 0), ((10.0, 90.0), 1)])
def test_the_best_plan_under_traffic_serves_most_of_what_comes(
    monkeypatch: pytest.MonkeyPatch, draws: tuple[float, float], wanted: int
) -> None:
    """30 come each second: of two that serve them all the first is taken; one that takes 10 or 90 serves 20 of them."""
    times = np.linspace(0.0, 1800.0, 54000)
    lengths = np.full(times.size, 1000.0)
    study = on_traffic(dense(), profile_of_arrays(times, lengths, lengths / 5.0, start_s=0.0, end_s=1800.0))
    ranked: list[PlanResult] = []

    def drawn(study: Study, plans: Sequence[PlanResult]) -> Floats:  # noqa: ARG001
        ranked[:] = plans
        out = np.zeros((len(plans), 2))
        out[0], out[1] = draws, 30.0
        return out

    monkeypatch.setattr(best, "drawn_capacities", drawn)
    found = best_plan(study)
    assert found is not None
    assert found.plan == ranked[wanted].plan


@pytest.mark.parametrize(("second", "wanted"), [(29.9, 1), (29.0, 0)])
def test_plans_that_serve_alike_are_held_against_the_log(
    monkeypatch: pytest.MonkeyPatch, second: float, wanted: int
) -> None:
    """Of two that take as much within a percent the one is taken that serves more of the log's requests in time."""
    times = np.linspace(0.0, 1800.0, 5400)
    lengths = np.full(times.size, 1000)
    study = on_traffic(dense(), profile_of_arrays(times, lengths, lengths / 5.0, start_s=0.0, end_s=1800.0))
    requests = Requests(arrival_s=times, prompt=lengths, cached=0 * lengths, output=lengths // 5)
    study = replace(study, workload=replace(study.workload, recorded=requests))
    ranked: list[PlanResult] = []
    held: list[str] = []

    def drawn(study: Study, plans: Sequence[PlanResult]) -> Floats:  # noqa: ARG001
        ranked[:] = plans
        out = np.zeros((len(plans), 2))
        out[0], out[1] = 3.0, second / 10.0
        return out

    def counted(study: Study, log: ServedLog, plans: Sequence[PlanResult]) -> tuple[tuple[()], Floats]:  # noqa: ARG001
        held[:] = [plan.plan for plan in plans]
        return (), np.array([[2.0, 2.0], [1.5, 2.6]])

    monkeypatch.setattr(best, "drawn_capacities", drawn)
    monkeypatch.setattr(best, "simulated_requests", counted)
    found = best_plan(study)
    assert found is not None
    assert found.plan == ranked[wanted].plan
    assert held == [plan.plan for plan in ranked[: 2 * wanted]]
