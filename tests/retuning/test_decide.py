"""The decision, rule by rule and by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.retuning.decide import Decision, Inputs, PastSwitch, decide
from autotune.scoring.plan_result import Launch
from autotune.study import RetunePolicy

POLICY = RetunePolicy(
    horizon_s=10_000.0,
    min_p_better=0.9,
    min_gain_frac=0.02,
    switch_back_factor=3.0,
    cooldown_s=1_000.0,
    max_switches_per_day=2,
)
GOOD = Inputs(
    now_s=1e6,
    changed=True,
    current=Launch(plan="A"),
    current_keeps=True,
    current_value_per_s=10.0,
    candidate=Launch(plan="B"),
    candidate_keeps=True,
    candidate_value_per_s=11.0,
    p_better=0.95,
    switch_duration_s=500.0,
    switch_loss=1_000.0,
)
"""Net gain 1 x 9,500 - 1,000 = 8,500 of 100,000: 8.5 %."""


def switched(age_s: float, before: str = "X", *, batched_tokens: int | None = None) -> PastSwitch:
    """A switch made so long before."""
    left = Launch(plan=before, max_num_batched_tokens=batched_tokens)
    return PastSwitch(at_s=GOOD.now_s - age_s, before=left, after=Launch(plan="A"))


def test_a_gain_by_hand() -> None:
    """Half an hour of arithmetic: the net gain, its share, and the payback of 500 + 1,000 / 1 seconds."""
    found = decide(GOOD, POLICY, [])
    assert (found.decision, found.rule) == ("switch", "gain")
    assert found.net_gain == pytest.approx(8_500.0)
    assert found.net_gain_frac == pytest.approx(0.085)
    assert found.payback_s == pytest.approx(1_500.0)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"changed": False}, "no_drift"),
        ({"candidate": None}, "no_candidate"),
        ({"candidate": Launch(plan="A")}, "same_plan"),
        ({"candidate_keeps": False}, "candidate_breaks_limit"),
        ({"candidate_keeps": False, "current_keeps": False, "candidate_value_per_s": 9.0}, "nothing_feasible"),
        ({"p_better": 0.89}, "not_sure"),
        ({"candidate_value_per_s": 10.0}, "no_gain"),
        ({"candidate_value_per_s": 9.0}, "no_gain"),
        ({"switch_loss": 9_500.0}, "switch_costs_more"),
        ({"switch_loss": 7_600.0}, "gain_too_small"),
        ({"switch_duration_s": 20_000.0, "switch_loss": 1.0}, "switch_costs_more"),
    ],
)
def test_what_keeps_the_current_plan(change: dict[str, object], rule: str) -> None:
    """Each reason to keep, one change away from a switch."""
    found = decide(replace(GOOD, **change), POLICY, [])  # type: ignore[arg-type]
    assert (found.decision, found.rule) == ("keep", rule)


def test_what_cannot_be_judged_is_refused_first() -> None:
    """A window with too many unreadable lines is refused even where nothing drifted."""
    found = decide(replace(GOOD, refusal="5 % of the lines", changed=False), POLICY, [])
    assert (found.decision, found.rule, found.reason) == ("refuse", "input", "5 % of the lines")


def test_cooldown_holds_until_its_last_second() -> None:
    """999 s after a switch nothing moves, 1,000 s after it does."""
    assert decide(GOOD, POLICY, [switched(999.0)]).rule == "cooldown"
    assert decide(GOOD, POLICY, [switched(1_000.0)]).decision == "switch"


def test_a_broken_limit_overrides_cooldown_but_not_arithmetic() -> None:
    """With the current plan out of its limits the cooldown is off; a switch that costs more than it gains stays out."""
    broken = replace(GOOD, current_keeps=False, current_breaks="ttft_ms", current_value_per_s=4.0)
    found = decide(broken, POLICY, [switched(10.0)])
    assert (found.decision, found.rule) == ("switch", "limit_broken")
    assert (
        found.reason == "the current plan breaks ttft_ms, the candidate keeps every limit; better with probability 95%"
    )
    dear = replace(broken, switch_loss=7.0 * 9_500.0)
    assert decide(dear, POLICY, [switched(10.0)]).rule == "switch_costs_more"
    unsure = replace(broken, p_better=0.5)
    assert decide(unsure, POLICY, []).rule == "not_sure"


def test_a_current_plan_that_serves_nothing() -> None:
    """Where the current plan is worth nothing any net gain is enough, and no share of nothing is printed."""
    found = decide(replace(GOOD, current_keeps=False, current_value_per_s=0.0), POLICY, [])
    assert found.decision == "switch"
    assert found.net_gain_frac is None


def test_no_more_switches_than_the_day_allows() -> None:
    """Two switches within 24 h are the limit, whatever the reason for a third; a day later it is free again."""
    day = [switched(86_399.0), switched(43_200.0)]
    broken = replace(GOOD, current_keeps=False)
    assert decide(broken, POLICY, day).rule == "max_switches"
    assert decide(broken, POLICY, [switched(86_400.0), switched(43_200.0)]).decision == "switch"


def test_a_switch_back_needs_more() -> None:
    """5.5 % net is enough for a new plan and not for one that was left within the horizon (3 x 2 %)."""
    inputs = replace(GOOD, switch_loss=4_000.0)
    assert decide(inputs, POLICY, []).decision == "switch"
    found = decide(inputs, POLICY, [switched(5_000.0, before="B")])
    assert (found.decision, found.rule) == ("keep", "hysteresis")
    assert decide(inputs, POLICY, [switched(10_001.0, before="B")]).decision == "switch"
    assert decide(GOOD, POLICY, [switched(5_000.0, before="B")]).decision == "switch"


def test_a_switch_back_to_the_same_layout_with_other_settings_needs_more() -> None:
    """What was left counts whatever its settings: the same layout with others is a switch back as well."""
    settings_of = {tokens: Launch(plan="A", max_num_batched_tokens=tokens) for tokens in (2048, 4096, 8192)}
    inputs = replace(GOOD, current=settings_of[8192], candidate=settings_of[4096], switch_loss=4_000.0)
    assert decide(inputs, POLICY, []).rule == "gain"
    assert decide(inputs, POLICY, [switched(5_000.0, "A", batched_tokens=4096)]).rule == "hysteresis"
    assert decide(inputs, POLICY, [switched(5_000.0, "A", batched_tokens=2048)]).rule == "hysteresis"
    assert decide(replace(inputs, candidate=settings_of[8192]), POLICY, []).rule == "same_plan"


def test_a_clock_that_jumped_back_counts_as_just_now() -> None:
    """A switch that lies in the future is no licence to switch again."""
    assert decide(GOOD, POLICY, [switched(-500.0)]).rule == "cooldown"


VALUES = st.floats(0.0, 1e3)


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES, st.floats(0, 1), st.floats(0, 2e4), st.floats(0, 1e6), st.booleans())
def test_a_better_candidate_never_turns_a_switch_into_keep(
    now: float, then: float, p: float, duration: float, loss: float, keeps: bool
) -> None:
    """More value, more certainty or a cheaper switch never speak against it."""
    inputs = replace(
        GOOD,
        current_keeps=keeps,
        current_value_per_s=now,
        candidate_value_per_s=then,
        p_better=p,
        switch_duration_s=duration,
        switch_loss=loss,
    )
    if decide(inputs, POLICY, []).decision != "switch":
        return
    for better in (
        replace(inputs, candidate_value_per_s=then * 1.1),
        replace(inputs, p_better=min(p + 0.01, 1.0)),
        replace(inputs, switch_loss=loss * 0.9),
        replace(inputs, switch_duration_s=duration * 0.9),
    ):
        assert decide(better, POLICY, []).decision == "switch"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 86_399), st.sampled_from("ABX")), max_size=5), st.booleans())
def test_history_only_ever_holds_back(past: list[tuple[float, str]], keeps: bool) -> None:
    """Whatever was switched before, it never causes a switch, and never more than the day allows."""
    history = [switched(age, before=plan) for age, plan in past]
    inputs = replace(GOOD, current_keeps=keeps, candidate_value_per_s=10.2)
    found: Decision = decide(inputs, POLICY, history)
    if found.decision == "switch":
        assert decide(inputs, POLICY, []).decision == "switch"
        assert len(history) < POLICY.max_switches_per_day
