"""Limits on means under a log that is simulated: what its requests meet decides, alike in every command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from autotune.evaluation import evaluate, evaluate_plan
from autotune.scoring.best_knobs import score
from autotune.scoring.limits import LOAD_SERVED, MEAN_LATENCIES
from autotune.simulation.report_simulation import limits_of_requests
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.study import Study
from autotune.traffic.load import load_study
from autotune.tuning import TuneResult, tune
from autotune.tuning.knob_choices import worth_simulating
from autotune.tuning.remedy import find_remedy
from autotune.tuning.simulate_ranking import simulate_ranking
from autotune.tuning.simulated_limits import with_percentiles
from tests.remembered import asked_once
from tests.tuning.brute import question

BUSY = (1.2, 1.5, 1.8, 2.0, 2.6, 4.0)
"""Requests per second in three minutes of a log that has 0.6 otherwise."""


@pytest.fixture(scope="module", autouse=True)
def _answered_once() -> Iterator[None]:
    """An evaluation is of the answer that `tune` gives to its study."""
    with asked_once((sys.modules[__name__], "tune"), (evaluate_plan, "tune")):
        yield


@cache
def logged(busy_per_s: float, gpus: int = 2) -> Study:
    """A 70B model under a log of forty minutes, three of which are busy."""
    random = np.random.default_rng(7)
    times, now = [], 0.0
    while now < 2400.0:
        now += random.exponential(1.0 / (busy_per_s if 1200.0 <= now < 1380.0 else 0.6))
        times.append(now)
    rows = [f"{t:.3f},{random.integers(150, 2200)},{random.integers(100, 420)}" for t in times]
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "log.csv").write_text("\n".join(["timestamp,input_tokens,output_tokens", *rows]) + "\n")
        (folder / "study.toml").write_text(
            f"""engine = "vllm"
model = "llama-70b"
[cluster]
gpus = {gpus}
gpu = "h100_sxm"
[workload]
traffic = "log.csv"
[search]
max_num_batched_tokens = [2048, 8192]
[constraints]
ttft_ms = 1000
tpot_ms = 40
ttft_p95_ms = 20000
"""
        )
        return load_study(folder / "study.toml")


@cache
def answer(busy_per_s: float) -> TuneResult:
    """What `tune` says under such a log."""
    return tune(logged(busy_per_s))


@pytest.mark.parametrize("busy_per_s", BUSY)
def test_tune_evaluate_and_simulate_agree_on_means(busy_per_s: float) -> None:
    """A plan keeps its limits, and has the mean TTFT, that the simulation of the log says, however full its busiest
    minutes are.
    """
    study, result = logged(busy_per_s), answer(busy_per_s)
    plan = next(p for p in (*result.ranked, *result.infeasible) if p.layout.attn_tp == 2)
    forecast = simulate_plan(study, plan, study_traffic(study)).forecast
    kept = all(limit.kept(limit.figure(forecast)) for limit in limits_of_requests(study))
    assert plan.feasible is kept
    assert plan.metrics["ttft_s"] == pytest.approx(forecast.latency("ttft", "mean").value)
    assert not MEAN_LATENCIES & plan.margins.keys()
    evaluation = evaluate(study, "TP2")
    assert evaluation.passed is kept
    said = {check.name: check for check in evaluation.checks}
    assert said["ttft_mean_ms"].value == pytest.approx(1e3 * forecast.latency("ttft", "mean").value)
    assert LOAD_SERVED in said


def test_more_load_makes_no_plan_feasible() -> None:
    """Once the busiest minutes are too full a plan stays out."""
    kept = [bool(answer(busy).ranked) for busy in BUSY]
    assert kept == sorted(kept, reverse=True)
    assert set(kept) == {True, False}


@pytest.mark.parametrize("busy_per_s", BUSY)
def test_knobs_that_carry_the_fullest_bin_go_before_those_that_do_not(busy_per_s: float) -> None:
    """Of token budgets one that serves the fullest bin is taken where there is one, whatever latencies others seem to
    have at full seats.
    """
    study = logged(busy_per_s)
    (candidate,) = {
        p.candidate for p in answer(busy_per_s).ranked + answer(busy_per_s).infeasible if p.plan.count("ATP2")
    }
    budgets = study.search.max_num_batched_tokens
    each = [
        score(replace(study, search=replace(study.search, max_num_batched_tokens=(b,))), [candidate])[0]
        for b in budgets
    ]
    carrying = {p.knobs.max_num_batched_tokens for p in each if all(v.code != LOAD_SERVED for v in p.violations)}
    chosen = score(study, [candidate])[0].knobs.max_num_batched_tokens
    assert chosen in (carrying or set(budgets))


def test_plans_that_are_not_simulated_cannot_be_among_the_first() -> None:
    """The best plans under a log are those of all plans simulated by hand, with what is left out behind them."""
    study = logged(1.5, gpus=8)
    free = replace(study, constraints=replace(study.constraints, ttft_s=None, tpot_s=None, ttft_p95_s=None))
    every = tune(free)
    plans = score(study, [p.candidate for p in (*every.ranked, *every.infeasible)])
    able = [plan for plan in plans if plan.has_room]
    by_hand = simulate_ranking(study, able, wanted=len(able)).ranked
    assert len(by_hand) >= 3
    found = tune(study).ranked
    assert [p.plan for p in found] == [p.plan for p in by_hand[: len(found)]]
    asked = worth_simulating(study, plans)
    few = simulate_ranking(study, asked, wanted=1)
    assert few.ranked[0].plan == by_hand[0].plan
    assert few.left


def test_a_plan_that_serves_less_than_comes_over_a_log_breaks_that() -> None:
    """Its queue grows from the first to the last request, whatever its limits on percentiles leave to it."""
    study = logged(4.0)
    plan = answer(4.0).infeasible[0]
    rows = study.workload.recorded
    assert rows is not None
    often = replace(study, workload=replace(study.workload, recorded=replace(rows, arrival_s=rows.arrival_s / 4.0)))
    loose = replace(often, constraints=replace(study.constraints, ttft_s=1e6, tpot_s=1e3, ttft_p95_s=1e6))
    scored = score(loose, [plan.candidate])[0]
    held = with_percentiles(loose, scored, (), study_traffic(loose))
    assert [v.code for v in held.violations] == [LOAD_SERVED]


def test_what_would_have_to_give_under_a_log_does() -> None:
    """A plan that falls short of the fullest bin keeps looser limits, which are found and named as a study does."""
    found = find_remedy(answer(2.6))
    assert found.settings
    study = logged(2.6)
    given = dict(setting.removeprefix("constraints.").split("=") for setting in found.settings)
    fields = {code.removesuffix("_ms") + "_s": float(value) / 1e3 for code, value in given.items()}
    assert tune(replace(study, constraints=replace(study.constraints, **fields))).ranked


def test_a_plan_that_just_misses_a_mean_gives_under_percentiles() -> None:
    """Nobody simulated a plan that misses a limit on its mean: a remedy is looked for all the same."""
    asked = {"isl": 1009, "osl": 64, "request_rate_per_s": 4.0}
    limits = {"tpot_ms": 100.0, "ttft_p95_ms": 2000.0}
    free = tune(question("llama-3.1-8b", 4, workload=asked, constraints=limits))
    least = min(plan.metrics["tpot_s"] for plan in free.ranked)
    tight = question("llama-3.1-8b", 4, workload=asked, constraints={**limits, "tpot_ms": 990.0 * least})
    result = tune(tight)
    assert not result.ranked
    found = find_remedy(result)
    assert [setting.split("=")[0] for setting in found.settings] == ["constraints.tpot_ms"]
    value = float(found.settings[0].split("=")[1])
    assert tune(replace(tight, constraints=replace(tight.constraints, tpot_s=value / 1e3))).ranked
