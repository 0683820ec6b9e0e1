"""A given request rate: no plan serves more than what arrives, and equals are told apart by time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.study import Study, load_study
from autotune.tuning import tune
from autotune.tuning.answer_study import score_plan
from autotune.tuning.study_space import study_space
from tests.studies import FOLDER
from tests.tuning.brute import question


def _at(rate: float) -> Study:
    overrides = ["cluster.gpus=32", "baseline.plan=ADP8+EP8", f"workload.request_rate_per_s={rate}"]
    return load_study(FOLDER / "deepseek-v3-128xh200.toml", overrides)


@pytest.mark.parametrize("rate", [0.001, 0.5, 6.0])
def test_nothing_serves_more_than_arrives(rate: float) -> None:
    """Far below one request in flight per replica too; the GPUs are busy for as little."""
    result = tune(_at(rate))
    assert result.ranked
    for plan in result.ranked:
        assert plan.metrics["requests_per_s"] == pytest.approx(rate, rel=1e-6)
        assert plan.metrics["total_tokens_per_s"] == pytest.approx(rate * 5000, rel=1e-6)
    if rate == 0.001:
        assert max(p.metrics["gpu_util_frac"] for p in result.ranked) < 0.05


def test_equals_are_told_apart_by_time() -> None:
    """Among plans that keep the limits as surely, the quicker one goes first."""
    ranked = [p for p in tune(_at(0.5)).ranked if p.p_meets > 0.9999]
    times = [p.metrics["ttft_s"] + 999 * p.metrics["tpot_s"] for p in ranked]
    assert len(times) > 10
    assert all(a <= b for a, b in pairwise(times))


def test_the_objective_says_so() -> None:
    """A study that maximises what is given is told what it is ranked by."""
    assert any("at a given request rate" in a for a in _at(1.0).assumptions)


def test_saturation_is_not_held_to_the_rate() -> None:
    """What a plan could serve is asked of the same rows, and lies far above what arrives."""
    study = _at(0.5)
    variant = Variant(candidate=study_space(study).candidates[0], weight_dtype=None, kv_dtype=None)
    rows = KnobGrid.of(study, [variant], [4096])
    many = np.array([512.0])
    assert rows.evaluate(many).requests_per_s[0] > 1.0
    assert rows.serving(many).requests_per_s[0] == pytest.approx(0.5)


def test_what_serves_less_than_comes_keeps_no_limit() -> None:
    """Requests wait without end: a plan is hardly likely to keep its limits, and the less so the more comes."""
    kept = []
    for rate in (60.0, 100.0, 140.0):
        study = question("llama-3.1-8b", 4, workload={"isl": 1000, "osl": 200, "request_rate_per_s": rate})
        found = score_plan(study, "TP4").result
        assert found is not None
        assert ("request_rate_per_s" in [v.code for v in found.violations]) == (found.metrics["requests_per_s"] < rate)
        kept.append(found.p_meets)
    assert kept[0] > kept[1] > kept[2]
    assert kept[2] < 0.01


def test_of_knobs_under_too_much_load_those_are_taken_that_serve_most() -> None:
    """Whatever latencies they have, which say nothing where requests wait without end."""
    budgets = (1024, 2048, 8192, 16384)
    served = {}
    for chosen in ([n] for n in budgets):
        served[chosen[0]] = _overloaded(14.0, chosen)
    assert _overloaded(14.0, list(budgets)) == pytest.approx(max(served.values()), rel=1e-9)
    assert max(served.values()) > 1.05 * min(served.values())


def test_knobs_that_carry_the_rate_go_before_others() -> None:
    """However long its latencies are: with 8,192 tokens a step the plan serves two thirds of what comes."""
    assert _overloaded(12.5, [8192]) < 9.0
    assert _overloaded(12.5, [2048, 8192]) == pytest.approx(12.5, rel=1e-6)


def _overloaded(rate_per_s: float, budgets: list[int]) -> float:
    """Requests per second that a plan serves of a rate, with the best of some token budgets."""
    study = question(
        "llama-3.1-70b",
        16,
        engine="trtllm",
        cluster={"gpus": 16, "gpu": "h100_sxm", "gpus_per_node": 8},
        workload={"isl": 2000, "osl": 500, "request_rate_per_s": rate_per_s},
        constraints={"ttft_ms": 500, "tpot_ms": 100},
        search={"max_num_batched_tokens": budgets},
    )
    found = score_plan(study, "PP2 TP8").result
    assert found is not None
    return found.metrics["requests_per_s"]


def test_a_plan_that_may_serve_more_than_is_estimated_still_has_its_limits() -> None:
    """Just beyond its capacity a plan may carry the rate, which helps it little where its latencies are too long."""

    def p_kept(tpot_ms: float) -> float:
        study = question(
            "llama-3.1-8b",
            1,
            engine="vllm",
            cluster={"gpus": 1, "gpu": "h100_sxm"},
            workload={"isl": 1000, "osl": 200, "request_rate_per_s": 35.0},
            constraints={"tpot_ms": tpot_ms},
        )
        found = score_plan(study, "TP1").result
        assert found is not None
        assert found.metrics["requests_per_s"] < 35.0
        return found.p_meets

    assert p_kept(5.0) < 0.01
    assert 0.05 < p_kept(1000.0) < 0.5
