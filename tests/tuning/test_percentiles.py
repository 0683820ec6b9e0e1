"""Limits on percentiles in a search: the winner of the plans that were simulated is the winner of all plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autotune.cli.stores import study_store
from autotune.report.answer import tune_report
from autotune.report.document import baseline_place, baseline_rank, tune_document
from autotune.scoring.limits import JOINT_PROBABILITY
from autotune.scoring.objective import ranking_value
from autotune.simulation.percentile_limits import percentile_limits
from autotune.simulation.simulate_plan import Traffic, simulate_plan, study_traffic
from autotune.study import Study
from autotune.tuning import TuneResult, tune
from autotune.tuning.answer_study import score_plan
from autotune.tuning.knob_choices import every_choice
from autotune.tuning.simulate_ranking import simulate_ranking
from autotune.tuning.simulated_limits import with_percentiles
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.simulate import ServerModel, Simulated
from tests.tuning.brute import question

pytestmark = pytest.mark.usefixtures("few_requests")
"""Which plan wins follows from the same requests on either side, whatever their number."""


Limits = dict[str, float]
RATE = {"isl": 1009, "osl": 64, "request_rate_per_s": 4.0}


def asked(limits: dict[str, float], **tables: object) -> Study:
    """A study of few plans under arrivals, with limits on percentiles."""
    return question("llama-3.1-8b", 4, workload=RATE, constraints=limits, **tables)


def by_means(study: Study) -> TuneResult:
    """The same study without what only a simulation can check."""
    free = {
        f"{name}_{share}_s": None for name in ("ttft", "tpot", "itl", "e2e") for share in ("p50", "p90", "p95", "p99")
    }
    return tune(replace(study, constraints=replace(study.constraints, attainment_frac=None, **free)))


@pytest.mark.parametrize(
    "limits",
    [{"ttft_p99_ms": 150.0, "itl_p99_ms": 40.0}, {"e2e_p95_ms": 450.0, "ttft_p50_ms": 60.0}, {"tpot_p90_ms": 6.0}],
)
@pytest.mark.parametrize("objective", [{"maximize": "total_tokens_per_s_per_gpu"}, {"minimize": "ttft_s"}])
def test_the_winner_is_the_winner_of_all(limits: dict[str, float], objective: dict[str, str]) -> None:
    """Every plan that keeps the limits on means is simulated by hand with each token budget: the same plans, figures
    and order."""
    study = asked(limits, objective=objective)
    checks, traffic = percentile_limits(study), study_traffic(study)
    means = by_means(study).ranked
    choices = every_choice(study, means)
    assert len(choices) == len(study.search.max_num_batched_tokens) * len(means) >= 3
    every = [with_percentiles(study, plan, checks, traffic) for plan in choices]
    sign = 1.0 if study.objective.direction == "minimize" else -1.0
    kept = sorted((p for p in every if p.feasible), key=lambda p: (sign * ranking_value(study, p), p.plan))
    kept = list({p.plan: p for p in reversed(kept)}.values())[::-1]
    for wanted in (1, 2, 10):
        found = simulate_ranking(study, choices, wanted=wanted)
        assert [p.plan for p in found.ranked] == [p.plan for p in kept[: len(found.ranked)]]
        assert len(found.ranked) >= min(wanted, len(kept))
        assert found.simulated + len(found.left) == len(means)
        assert len(found.ranked) + len(found.behind) + len(found.broken) == found.simulated
    whole = tune(study)
    assert whole.by_percentile is not None
    said = f"percentiles: {whole.by_percentile.simulated:,} plans simulated"
    assert any(said in str(line) for block in tune_report(whole, top=3).blocks for line in block.lines)
    assert [(p.plan, p.knobs) for p in whole.ranked] == [(p.plan, p.knobs) for p in kept[: len(whole.ranked)]]
    assert len(whole.ranked) >= min(10, len(kept))
    for plan in whole.ranked:
        for limit in checks:
            assert plan.breakdown["simulated"][limit.code]["value"] <= limit.bound * limit.factor


def test_more_token_budgets_leave_no_worse_an_answer() -> None:
    """Of four budgets the best by means broke the limit with every plan, and none was said to keep it."""
    small, whole = (
        question(
            "qwen2.5-32b",
            8,
            workload={"isl": {"min": 200, "max": 3000}, "osl": {"min": 50, "max": 600}, "request_rate_per_s": 8},
            constraints={"itl_p99_ms": 45.0},
            objective={"minimize": "tpot_s"},
            baseline={"plan": "R2 TP4"},
            search={"max_num_batched_tokens": budgets},
        )
        for budgets in ([1024], [1024, 2048, 8192, 16384])
    )
    few, all_four = tune(small), tune(whole)
    assert few.ranked
    assert {p.plan for p in few.ranked} <= {p.plan for p in all_four.ranked}
    assert ranking_value(whole, all_four.ranked[0]) <= ranking_value(small, few.ranked[0])
    named = score_plan(whole, all_four.ranked[0].plan).result
    assert named is not None
    assert named.runs_as(all_four.ranked[0])
    assert all_four.baseline is not None
    assert all_four.baseline.result is not None
    assert all_four.baseline.result.feasible


def test_a_limit_on_a_percentile_is_tighter_than_on_the_mean() -> None:
    """What no plan's p99 keeps, all plans' means may; the nearest plans say which limit they break."""
    study = asked({"ttft_p99_ms": 1.0})
    result = tune(study)
    assert by_means(study).ranked
    assert not result.ranked
    assert all(p.violations[0].code == "ttft_p99_ms" for p in result.infeasible)
    assert all(p.violations[0].value > 1.0 for p in result.infeasible)


def test_a_plan_that_is_broken_as_expected_is_simulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It breaks the same limits by as much as with its likely range drawn through the simulation, which others have."""
    study = asked({"ttft_p99_ms": 42.0})
    runs: list[Traffic] = []
    (limit,), traffic = percentile_limits(study), study_traffic(study)
    serve = Traffic.serve

    def counted(offered: Traffic, model: ServerModel | PoolsModel, **options: bool) -> Simulated:
        runs.append(offered)
        return serve(offered, model, **options)

    monkeypatch.setattr(Traffic, "serve", counted)
    found = set()
    for plan in by_means(study).ranked:
        whole = simulate_plan(study, plan, traffic).forecast
        drawn, runs = limit.figure(whole), []
        held = with_percentiles(study, plan, (limit,), traffic)
        shown = held.breakdown["simulated"][limit.code]
        assert shown["value"] == 1e3 * drawn.value
        assert held.feasible is (limit.kept(drawn) and held.p_meets >= study.search.min_p_meets)
        assert (shown["likely_high"] == 1e3 * drawn.high) is limit.kept(drawn)
        assert shown["likely_low"] <= shown["value"] <= shown["likely_high"]
        assert len(runs) == (3 if limit.kept(drawn) else 1)
        found.add(limit.kept(drawn))
    assert found == {True, False}


def test_the_share_within_limits_binds() -> None:
    """`attainment_frac` holds single requests to `ttft_ms`, which then is no limit on the mean."""
    study = asked({"ttft_ms": 60.0, "attainment_frac": 0.5})
    (limit,) = percentile_limits(study)
    plans = tune(study)
    assert plans.ranked
    assert all(p.breakdown["simulated"][limit.code]["value"] >= 0.5 for p in plans.ranked)
    nobody = tune(asked({"ttft_ms": 1.0, "attainment_frac": 0.5}))
    assert not nobody.ranked
    assert nobody.infeasible[0].violations[0].code == "attainment_frac"


def test_pools_are_held_to_percentiles_and_stored_once(tmp_path: Path) -> None:
    """Plans of two pools are simulated beside the others; those ranked keep the limit, and a second run has them."""
    study = asked({"ttft_p99_ms": 400.0, "tpot_p90_ms": 8.0}, search={"disaggregated": "auto"})
    first, second = (tune(study, study_store(study, str(tmp_path / "journal.log"), None)) for _ in range(2))
    assert any(p.pools is not None for p in (*first.ranked, *first.infeasible) if "simulated" in p.breakdown)
    for plan in first.ranked:
        assert plan.breakdown["simulated"]["ttft_p99_ms"]["value"] <= 400.0
    assert [p.plan for p in second.ranked] == [p.plan for p in first.ranked]
    assert (first.scored_now > 0, second.scored_now) == (True, 0)
    free = by_means(study)
    pooled = next(p for p in free.ranked if p.pools is not None)
    held = with_percentiles(study, pooled, percentile_limits(study), study_traffic(study))
    assert held.breakdown["simulated"]["ttft_p99_ms"]["value"] > 1e3 * pooled.metrics["ttft_s"]


@pytest.mark.parametrize(
    ("asked_for", "follows"),
    [
        ({"tpot_p99_ms": 6.0}, {"tpot_p95_ms": 6.0, "tpot_p90_ms": 6.0, "tpot_p50_ms": 6.0, "tpot_ms": 6.0}),
        ({"ttft_p99_ms": 120.0}, {"ttft_p95_ms": 120.0, "ttft_p50_ms": 120.0, "ttft_p90_ms": 130.0}),
        ({"tpot_p99_ms": 6.0, "ttft_p99_ms": 120.0}, {"e2e_p50_ms": 500.0, "itl_p50_ms": 20.0, "ttft_p50_ms": 120.0}),
    ],
)
def test_limits_that_follow_from_others_take_nothing_away(asked_for: Limits, follows: Limits) -> None:
    """A percentile that is kept whenever a higher one is: the plan is kept as probably, and is not FAILED for it."""
    fewer, more = asked(asked_for), asked({**asked_for, **follows})
    traffic = study_traffic(fewer)
    kept = {plan.plan: plan for plan in by_means(more).ranked}
    assert len(kept) >= 2
    for mean, also in ((plan, kept[plan.plan]) for plan in by_means(fewer).ranked if plan.plan in kept):
        alone, together = (
            with_percentiles(study, plan, percentile_limits(study), traffic)
            for study, plan in ((fewer, mean), (more, also))
        )
        assert together.p_meets == pytest.approx(alone.p_meets, abs=1e-3)
        assert together.feasible is alone.feasible


def test_the_probability_that_is_broken_is_the_final_one() -> None:
    """Of a plan that means and percentiles keep too seldom together what is simulated counts, and is said once."""
    study = asked({"tpot_ms": 5.2, "tpot_p99_ms": 5.3}, search={"min_p_meets": 0.95})
    plans = by_means(study).infeasible
    broken = [plan for plan in plans if any(v.code == JOINT_PROBABILITY for v in plan.violations)]
    assert broken
    for plan in broken:
        checked = with_percentiles(study, plan, percentile_limits(study), study_traffic(study))
        said = [v.value for v in checked.violations if v.code == JOINT_PROBABILITY]
        assert said == [checked.p_meets]
        assert checked.margins[JOINT_PROBABILITY] == pytest.approx(0.95 - checked.p_meets)


@pytest.mark.parametrize("wanted", [1, 10])
def test_every_plan_is_kept_broken_or_not_simulated(monkeypatch: pytest.MonkeyPatch, wanted: int) -> None:
    """However many are ranked, and the plan in production has a place among them or is said to be behind them."""
    monkeypatch.setitem(simulate_ranking.__kwdefaults__, "wanted", wanted)
    plans = by_means(asked({"tpot_p99_ms": 20.0})).ranked
    for base in (plans[0], plans[-1]):
        found = tune(asked({"tpot_p99_ms": 20.0}, baseline={"plan": base.plan, "engine": base.engine}))
        seen, counts = found.by_percentile, tune_document(found, top=0)["counts"]
        assert seen is not None
        assert bool(seen.left) is (wanted == 1)
        assert counts["valid"] == counts["feasible"] + sum(counts["infeasible"].values()) + counts["not_simulated"]
        assert counts["feasible"] == found.kept_count == len(found.ranked) + len(seen.behind)
        assert found.baseline is not None
        rank, said = baseline_rank(found.baseline, found), baseline_place(found.baseline, found)
        if rank is None:
            assert base is plans[-1]
            assert said == f"behind the first {len(found.ranked)}"
        else:
            assert rank <= len(found.ranked)
            assert said == f"rank {rank} of {len(found.ranked)}"


def test_what_had_to_be_simulated_is_ranked() -> None:
    """A closed loop's goodput is known once it is simulated: all plans that keep the limits have a place."""
    study = question(
        "llama-3.1-8b",
        4,
        workload={"isl": 1009, "osl": 64, "concurrency": 40},
        constraints={"ttft_ms": 2000.0, "tpot_ms": 50.0},
        objective={"maximize": "goodput_requests_per_s_per_gpu"},
    )
    checks, found = percentile_limits(study), simulate_ranking(study, by_means(study).ranked)
    assert [limit.code for limit in checks] == ["served_within_limits"]
    assert (found.left, found.behind) == ((), ())
    assert len(found.ranked) == found.simulated > 1
