"""The comparison as a whole: sums that must close, verdicts, robustness."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.comparison import Comparison, compare
from autotune.comparison.best import capacity_study, drawn_capacities
from autotune.comparison.operators import gpu_s_per_request, time_rows, where_from
from autotune.comparison.probability_better import p_better
from autotune.comparison.robustness import load_order
from autotune.comparison.verdict import duration_words
from autotune.disaggregated.rescore import rescored
from autotune.scoring.gpu_time import operator_words
from autotune.scoring.joint_uncertainty import confidence, p_greater
from autotune.scoring.reach import SURE_BEYOND_REACH
from autotune.scoring.value_and_gain import served_within_limits, value_per_s
from autotune.study import Study, load_study
from autotune.text.numbers import number
from autotune.tuning.answer_study import score_plan
from costmodel.errors import InputError
from tests.comparison.helpers import dense, scored

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "studies"


@pytest.fixture(scope="module")
def reference() -> Study:
    """The study that the project started from."""
    return load_study(STUDIES / "reference-128.toml")


@pytest.fixture(scope="module")
def of_reference(reference: Study) -> Comparison:
    """Its baseline against its best plan."""
    return compare(reference)


def test_gpu_seconds_of_operators_sum_to_gpus_over_requests() -> None:
    """Operators and the rest are all the GPU-seconds that a request takes: 16 GPUs over requests per second."""
    plan = scored(dense(), "TP2/PP2")
    parts = gpu_s_per_request(plan)
    assert sum(parts.values()) == pytest.approx(16.0 / plan.metrics["requests_per_s"])
    busy = sum(seconds for (phase, _), seconds in parts.items() if phase != "rest")
    assert 0.5 < busy / sum(parts.values()) < 1.5


def test_gains_sum_to_the_change_of_throughput() -> None:
    """The gains of all operators are together what the GPU-seconds of a request changed by."""
    study = dense()
    before, after = scored(study, "TP8"), scored(study, "TP2")
    rows = time_rows(before, after)
    change = before.metrics["requests_per_s"] / after.metrics["requests_per_s"]
    assert sum(r.gain_frac for r in rows) == pytest.approx(1.0 - change)


def test_tensor_parallelism_less_shows_as_all_reduce() -> None:
    """From TP8 to TP1 there is no all-reduce any more, and the words say so."""
    study = dense()
    rows = time_rows(scored(study, "TP8"), scored(study, "TP1"))
    assert any(f"no {operator_words('tp_all_reduce', 'decode')} any more" in text for text in where_from(rows, top=9))


def test_the_reference_study_switches_for_its_limits() -> None:
    """The baseline breaks the tokens per stage, the winner keeps them, and neither kind of plan was ever measured."""
    of_reference = compare(load_study(STUDIES / "reference-128.toml", ["retune.min_p_better=0.7"]))
    assert (of_reference.verdict.verdict, of_reference.verdict.rule) == ("undecided", "not_measured")
    assert "min_stage_tokens_per_s_per_gpu" in of_reference.verdict.reason
    margins = {m.code: m for m in of_reference.margins}["min_stage_tokens_per_s_per_gpu"]
    assert margins.current_excess > 0.0 > margins.candidate_excess


def test_a_switch_for_the_limits_says_what_it_costs() -> None:
    """The plan that keeps the limit serves fewer tokens than the one that breaks it, and the reason says how many."""
    found = compare(load_study(STUDIES / "reference-128.toml"), "R16/TP8/EP8", scenarios=False)
    current, candidate = found.current.result, found.candidate and found.candidate.result
    assert current is not None
    assert candidate is not None
    metric = found.study.objective.metric
    lost = 1.0 - candidate.metrics[metric] / current.metrics[metric]
    assert lost > 0.0
    assert f"{lost:.0%} fewer tokens" in found.verdict.reason


def test_robustness_counts_scenarios_and_draws(of_reference: Comparison) -> None:
    """Lengths and load in 27 combinations, one other skew, one other share of prefix hits: 29; shares are shares."""
    found = of_reference.robustness
    assert found is not None
    assert len(found.scenarios) == 29
    assert [s.changes for s in found.scenarios].count({}) == 1
    for share in (found.workload_wins_frac, found.joint_wins_frac, found.calibration_wins_frac):
        assert share is not None
        assert 0.0 <= share <= 1.0


def test_the_same_plan_is_kept() -> None:
    """Compared with itself a plan has the same figures, even odds, and nothing to switch."""
    found = compare(dense(), "TP2", "TP2")
    assert (found.verdict.verdict, found.verdict.rule, found.p_better) == ("keep", "same_plan", 0.5)
    assert all(m.current == m.candidate and m.p_better in (None, 0.5) for m in found.metrics)
    assert found.switch is not None
    assert not found.switch.restart


def test_a_candidate_that_cannot_be_launched_is_kept_out() -> None:
    """Sixteen-fold tensor parallelism cuts FP8 blocks of 128: the rule is the reason, and there is no switch."""
    study = load_study(STUDIES / "qwen3-235b-64xh100.toml", ["engine=vllm", "engine_version=0.28.0"])
    found = compare(study, None, "TP16")
    assert (found.verdict.verdict, found.verdict.rule) == ("keep", "candidate_cannot_run")
    assert found.candidate is not None
    assert found.candidate.rules_broken
    assert found.switch is None


def test_a_current_plan_that_cannot_be_launched_is_replaced() -> None:
    """Where today's plan breaks an engine's rule, any plan that keeps the limits is a reason to switch."""
    study = load_study(STUDIES / "qwen3-235b-64xh100.toml", ["engine=vllm", "engine_version=0.28.0"])
    found = compare(study, "TP16", "TP8/EP8")
    assert (found.verdict.verdict, found.verdict.rule) == ("switch", "current_cannot_run")
    assert found.metrics == ()


def test_a_candidate_that_breaks_a_limit_is_kept_out() -> None:
    """A plan too slow for the limit on TPOT is no reason to leave one that keeps it."""
    study = dense(constraints={"tpot_ms": 6.0})
    found = compare(study, "TP8", "TP1", scenarios=False)
    assert (found.verdict.verdict, found.verdict.rule) == ("keep", "candidate_breaks_limit")
    assert "tpot_ms" in found.verdict.reason


def test_a_gain_that_does_not_pay_within_the_horizon_is_kept_out() -> None:
    """With three minutes to pay for itself no restart does."""
    study = dense(workload={"isl": 1009, "osl": 211}, retune={"horizon_h": 0.05})
    found = compare(study, "TP8", scenarios=False)
    assert (found.verdict.verdict, found.verdict.rule) == ("keep", "switch_costs_more")


def test_a_large_gain_is_a_switch() -> None:
    """An 8B model on TP8 wastes its GPUs; the best plan pays for the switch within the day."""
    found = compare(dense(workload={"isl": 1009, "osl": 211}), "TP8", scenarios=False)
    assert (found.verdict.verdict, found.verdict.rule) == ("switch", "gain")
    assert found.p_better >= 0.9


def test_another_engine_starts_in_its_own_time() -> None:
    """A change of engine is compared like any other, with the start-up seconds of the new one."""
    study = dense(engine="any", switch={})
    found = compare(study, "vllm:R8/PP1/ATP2/ADP1/MTP1/EP1", "trtllm:R8/PP1/ATP2/ADP1/MTP1/EP1", scenarios=False)
    assert found.switch is not None
    assert found.switch.startup_s == 180.0
    assert found.candidate is not None
    assert found.candidate.engine == "trtllm"


def test_without_a_current_plan_the_input_is_wrong() -> None:
    """A study without a baseline needs --current."""
    with pytest.raises(InputError, match=r"\$\.baseline: must name the plan in production, or give --current"):
        compare(dense())


def test_cost_of_a_million_tokens_by_hand() -> None:
    """16 GPUs at 2.5 dollars an hour over tokens per second, times a million."""
    study = dense(cluster={"gpus": 16, "gpu": "h100_sxm", "gpus_per_node": 8, "price_per_gpu_hour": 2.5})
    found = compare(study, "TP8", "TP2", scenarios=False)
    assert found.price_per_million_tokens is not None
    tokens = scored(study, "TP8").metrics["total_tokens_per_s"]
    assert found.price_per_million_tokens[0] == pytest.approx(16 * 2.5 / 3600.0 / tokens * 1e6)


@pytest.mark.parametrize("load", [{}, {"request_rate_per_s": 20.0}, {"concurrency": 64}], ids=str)
def test_draws_agree_with_the_ranking(load: dict[str, float]) -> None:
    """P(better) of a pair is one figure: in the ranking, among other plans, and in the comparison of the two."""
    study = dense(workload={"isl": 1009, "osl": 211, **load}, constraints={"tpot_ms": 30.0})
    before, after, other = (scored(study, plan) for plan in ("TP8", "TP2", "TP4"))
    ranked = confidence(study, [other, after], before)[after.plan].p_better_than_baseline
    assert ranked == p_better(study, before, after) == compare(study, "TP8", after, scenarios=False).p_better
    assert p_better(study, before, after) + p_better(study, after, before) == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40))
def test_ties_count_half(values: list[float]) -> None:
    """P(a > b) + P(b > a) is one, ties included, and a thing is even with itself."""
    a = np.array(values)
    b = a[::-1]
    assert p_greater(a, b) + p_greater(b, a) == pytest.approx(1.0)
    assert p_greater(a, a) == 0.5


def test_the_order_flips_where_both_plans_are_equal() -> None:
    """At the flip the new leader is ahead, one step of the sweep before it was not."""
    study = dense(workload={"isl": 1009, "osl": 211})
    before, after = scored(study, "TP8"), scored(study, "TP2")
    low, flips, reach = load_order(study, before, after)
    assert low == "current"
    assert len(flips) == 1
    assert flips[0].better_above == "candidate"
    metric = study.objective.metric

    def at(load: int) -> tuple[float, float]:
        own = replace(study, workload=replace(study.workload, concurrency=load))
        return rescored(own, before).metrics[metric], rescored(own, after).metrics[metric]

    behind, ahead = at(round(flips[0].in_flight * 0.8)), at(round(flips[0].in_flight * 1.2))
    assert behind[0] > behind[1]
    assert ahead[0] < ahead[1]
    assert flips[0].in_flight < reach


def test_value_is_nothing_where_a_hard_limit_breaks_and_less_where_limits_are_risky() -> None:
    """A plan without memory is worth 0; one that keeps its limits with probability p is worth p of what it serves."""
    study = dense(constraints={"tpot_ms": 8.0})
    plan = scored(study, "TP4")
    assert value_per_s(study, plan, plan) == pytest.approx(plan.metrics["requests_per_s"] * plan.p_meets)
    big = dense(model="llama-3.1-70b")
    broken = score_plan(big, "TP1").result
    assert broken is not None
    assert value_per_s(big, broken, broken) == 0.0


def test_an_open_load_is_worth_what_is_taken_of_it() -> None:
    """Under 5 requests a second a plan that takes them all is worth 5, whatever it could take beyond."""
    study = dense(workload={"isl": 1009, "osl": 211, "request_rate_per_s": 5.0})
    plan = scored(study, "TP8")
    assert value_per_s(study, plan, plan) == pytest.approx(5.0 * plan.p_meets)


def test_beyond_both_capacities_the_one_that_takes_more_is_better() -> None:
    """Under a load that neither can take, the share within the limits decides, with certainty where it is large."""
    study = dense(workload={"isl": 1009, "osl": 211, "request_rate_per_s": 1e4}, constraints={"tpot_ms": 30.0})
    found = compare(study, "TP8/PP2", "TP2", scenarios=False)
    assert found.candidate is not None
    assert not found.current.keeps
    assert not found.candidate.keeps
    assert found.candidate.capacity_requests_per_s > 1.5 * found.current.capacity_requests_per_s
    assert found.p_better == SURE_BEYOND_REACH  # a plan of two stages: surer than anybody measured
    # more comes than either takes in any draw, so that values are mean capacities
    plans = (found.current.at_capacity, found.candidate.at_capacity)
    for side, drawn in zip(
        (found.current, found.candidate), drawn_capacities(capacity_study(study), plans), strict=True
    ):
        assert side.value_per_s == pytest.approx(drawn.mean(), rel=0.02)
    back = compare(study, "TP2", "TP8/PP2", scenarios=False)
    assert back.p_better + found.p_better == pytest.approx(1.0, abs=0.03)


def test_a_tie_counts_half() -> None:
    """Of four draws one is larger, two are equal and one is smaller."""
    assert p_greater(np.array([2.0, 1.0, 1.0, 0.0]), np.ones(4)) == 0.5
    assert p_greater(np.ones(4), np.ones(4)) == 0.5


def test_what_a_plan_is_worth() -> None:
    """What the current plan serves, times the chance to keep the limits, times how much better the ranked metric is."""
    study = dense(constraints={"tpot_ms": 8.0})
    before, after = scored(study, "TP8"), replace(scored(study, "TP2"), p_meets=0.25)
    metric = study.objective.metric
    by_hand = before.metrics["requests_per_s"] * 0.25 * after.metrics[metric] / before.metrics[metric]
    assert value_per_s(study, after, before) == pytest.approx(by_hand)


def test_what_is_served_within_limits_by_hand() -> None:
    """Under 10 a second draws of 4, 10, 16 serve 4, 10, 10; under 2, 8 and 20 in turn their mean."""
    study = dense(workload={"isl": 1009, "osl": 211, "request_rate_per_s": 10.0})
    capacities = np.array([[4.0, 10.0, 16.0], [20.0, 20.0, 20.0]])
    served = served_within_limits(study, capacities)
    assert served is not None
    assert served.tolist() == [[4.0, 10.0, 10.0], [10.0, 10.0, 10.0]]
    recorded = replace(study, workload=replace(study.workload, rate_levels_per_s=(2.0, 8.0, 20.0)))
    served = served_within_limits(recorded, capacities)
    assert served is not None
    assert served.mean(axis=1).tolist() == pytest.approx([(10.0 + 20.0 + 26.0) / 9.0, 10.0])
    assert served_within_limits(dense(), capacities) is None


def test_words_for_seconds_and_figures() -> None:
    """Durations in the unit that people use, figures without exponents."""
    said = [duration_words(s) for s in (45.0, 1980.0, 12240.0, 432000.0)]
    assert said == ["45 s", "33 min", "3.4 h", "5 days"]
    assert [number(x, 4) for x in (25904.2, 0.30412, 1e12)] == ["25,904", "0.3041", "1e12"]


@pytest.mark.usefixtures("few_requests")
def test_limits_on_percentiles_count_for_both_plans() -> None:
    """A plan that breaks one breaks it here as well: verdict, margins and probabilities are of what is simulated."""
    study = dense(
        workload={"isl": 1009, "osl": 211, "request_rate_per_s": 20.0},
        constraints={"itl_p99_ms": 12.0, "tpot_ms": 20.0},
    )
    loose = replace(study, constraints=replace(study.constraints, itl_p99_s=None))
    over, within = scored(loose, "TP8"), scored(loose, "TP1")
    assert over.feasible
    assert over.p_meets > 0.9
    for current, candidate, verdict in (
        (over, within, ("switch", "limit_broken")),
        (within, over, ("keep", "candidate_breaks_limit")),
    ):
        found = compare(study, current.plan, candidate.plan, scenarios=False)
        assert (found.verdict.verdict, found.verdict.rule) == verdict
        sides = {side.plan: side for side in (found.current, found.candidate) if side is not None}
        assert sides[within.plan].keeps
        assert not sides[over.plan].keeps
        broken = sides[over.plan].result
        assert broken is not None
        assert broken.p_meets < 0.1
        assert [v.code for v in broken.violations] == ["itl_p99_ms"]
        row = next(row for row in found.margins if row.code == "itl_p99_ms")
        assert (row.limit, row.unit) == (12.0, "ms")
        excess = {current.plan: row.current_excess, candidate.plan: row.candidate_excess}
        assert excess[within.plan] < 0.0 < excess[over.plan] == broken.violations[0].excess
        assert (found.p_better > 0.9) is (candidate is within)
        assert sides[over.plan].value_per_s < 0.1 * sides[within.plan].value_per_s
