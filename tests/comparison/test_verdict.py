"""Verdicts by arithmetic, and the order of two plans where one of them breaks a limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autotune.comparison import compare
from autotune.comparison.robustness import load_order, swept
from autotune.comparison.values import KEEP, ComparedPlan
from autotune.comparison.verdict import NO_GAIN, verdict
from autotune.metrics import METRICS
from autotune.scoring.pair_words import SAME_FRAC, against
from autotune.scoring.value_and_gain import gain_over
from autotune.study import Study
from autotune.text.numbers import number
from autotune.tuning import Violation
from tests.comparison.helpers import dense, scored


def compared(study: Study, text: str, value_per_s: float) -> ComparedPlan:
    """A plan that keeps every limit and is worth so much."""
    result = scored(study, text)
    assert result.feasible
    return ComparedPlan(
        text=text,
        plan=result.plan,
        engine=result.engine,
        result=result,
        rules_broken=(),
        assumed=(),
        capacity_requests_per_s=value_per_s,
        at_capacity=result,
        value_per_s=value_per_s,
    )


@pytest.mark.parametrize(
    ("loss", "p_better", "answer", "rule"),
    [
        (0.0, 0.95, "switch", "gain"),
        (600.0, 0.95, "keep", "gain_too_small"),
        (1100.0, 0.95, "keep", "switch_costs_more"),
        (0.0, 0.85, "undecided", "not_sure"),
        (0.0, 0.05, "keep", "no_gain"),
    ],
)
def test_verdicts_by_arithmetic(loss: float, p_better: float, answer: str, rule: str) -> None:
    """11 a second instead of 10 for 1,000 s: 10 % less what the switch loses, of which 5 % must be left."""
    study = dense(retune={"min_gain_frac": 0.05, "min_p_better": 0.9})
    gain = gain_over(current_per_s=10.0, candidate_per_s=11.0, horizon_s=1000.0, duration_s=0.0, loss=loss)
    found = verdict(
        study, compared(study, "TP8", 10.0), compared(study, "TP2", 11.0), same=False, p_better=p_better, gain=gain
    )
    assert (found.verdict, found.rule) == (answer, rule)


@pytest.mark.parametrize(("current", "candidate"), [("TP8", "TP2"), ("TP2", "TP8")])
def test_the_plan_that_keeps_the_limits_is_ahead(current: str, candidate: str) -> None:
    """Where the load takes one plan beyond its TPOT and not the other, the other one leads from there."""
    search = {"max_num_batched_tokens": [4096], "min_p_meets": 0.0}
    study = dense(workload={"isl": 2003, "osl": 101}, search=search)
    plans = {"current": scored(study, current), "candidate": scored(study, candidate)}
    # a limit between both, at a load where the one that serves more has the longer TPOT
    loads = np.arange(1.0, 200.0)
    first, second = (swept(study, plan, loads) for plan in plans.values())
    longer, ahead = first.tpot_s > second.tpot_s, first.requests_per_s > second.requests_per_s
    between = np.flatnonzero(longer == ahead)
    load = between[len(between) // 2]
    limit_s = 0.5 * float(first.tpot_s[load] + second.tpot_s[load])
    study = replace(study, constraints=replace(study.constraints, tpot_s=limit_s))
    _, flips, _ = load_order(study, *plans.values())
    by_limits = [flip for flip in flips if flip.because == "limits"]
    assert by_limits
    for flip in by_limits:
        load = np.array([float(flip.in_flight)])
        keeps = [name for name, plan in plans.items() if swept(study, plan, load).tpot_s[0] <= limit_s]
        assert keeps == [flip.better_above]


@pytest.mark.parametrize("candidate_per_s", [19.9999, 20.0])
def test_plans_that_serve_alike_are_told_apart_by_what_differs(candidate_per_s: float) -> None:
    """A plan that serves what comes just as well and is quicker is not said to serve fewer requests."""
    study = dense(workload={"isl": 1009, "osl": 211, "request_rate_per_s": 20.0})
    current, candidate = compared(study, "TP1", 20.0), compared(study, "TP8", candidate_per_s)
    assert current.result is not None
    assert candidate.result is not None
    gain = gain_over(current_per_s=20.0, candidate_per_s=candidate_per_s, horizon_s=1000.0, duration_s=10.0, loss=0.0)
    found = verdict(study, current, candidate, same=False, p_better=1.0, gain=gain)
    assert (found.verdict, found.rule) == ("keep", "no_gain")
    assert against(study, candidate.result, current.result) in found.reason
    assert "fewer" not in found.reason


@pytest.mark.parametrize("change", [1e-15, 0.8 * SAME_FRAC, 1.2 * SAME_FRAC])
def test_keeping_a_limit_costs_nothing_where_as_much_is_served(change: float) -> None:
    """What the limits cost in the ranked metric is said from the difference on that counts, not of its rounding."""
    study = dense()
    broken, kept = compared(study, "TP8", 10.0), compared(study, "TP2", 11.0)
    assert broken.result is not None
    assert kept.result is not None
    metric = METRICS[study.objective.metric]
    served = {**kept.result.metrics, metric.name: broken.result.metrics[metric.name] * (1.0 - change)}
    limit = Violation(code="tpot_ms", value=60.0, limit=50.0, excess=10.0, unit="ms")
    broken = replace(broken, result=replace(broken.result, feasible=False, violations=(limit,)))
    kept = replace(kept, result=replace(kept.result, metrics=served))
    gain = gain_over(current_per_s=10.0, candidate_per_s=11.0, horizon_s=1000.0, duration_s=0.0, loss=0.0)
    found = verdict(study, broken, kept, same=False, p_better=1.0, gain=gain)
    assert found.rule == "limit_broken"
    assert ("fewer" in found.reason) is (change > SAME_FRAC)


def test_a_switch_that_gains_nothing_is_not_paid_back() -> None:
    """A plan that is said to gain nothing though it may take a little more than what comes has no time of payback."""
    study = dense(workload={"isl": 1009, "osl": 211, "request_rate_per_s": 100.0})
    found = compare(study, "TP8", "PP4", scenarios=False)
    assert (found.verdict.verdict, found.verdict.rule) == (KEEP, NO_GAIN)
    assert found.gain is not None
    assert found.gain.per_s > 0.0
    assert found.gain.payback_s is None


def test_figures_that_differ_by_rounding_are_written_alike() -> None:
    """What plans serve of a rate lies on a half of the last digit but for noise, which neither side shows."""
    for half in (937.5, 0.9375, 93.75, 2.5):
        assert number(half * (1.0 - 1e-15)) == number(half * (1.0 + 1e-15)) == number(half)
