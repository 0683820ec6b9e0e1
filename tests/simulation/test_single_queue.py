"""The quick queue against the replica: the same first tokens and ends, to rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.simulation.requests import Requests, arrivals
from costmodel.simulation.simulate import simulate
from costmodel.simulation.state import Cell
from costmodel.simulation.step_time import decode_pace, step_s
from tests.simulation.helpers import POLICIES, small_server, small_table

COUNT = 250
CONTEXT_S = 1e-6
SPECULATIVE = {"step_tokens": 4.0, "accepted_tokens": 2.6, "draft_frac": 0.3}
PLAIN = {"step_tokens": 1.0, "accepted_tokens": 1.0, "draft_frac": 0.0}


def _requests(rate_per_s: float) -> Requests:
    random = np.random.default_rng(19)
    return Requests(
        arrival_s=arrivals(COUNT, rate_per_s, 1.5, random),
        prompt=random.integers(20, 700, COUNT),
        cached=random.integers(0, 20, COUNT),
        output=random.integers(1, 120, COUNT),
    )


@pytest.mark.parametrize("decoding", [PLAIN, SPECULATIVE], ids=["plain", "speculative"])
@pytest.mark.parametrize("budget", [64, 2048], ids=["binding", "ample"])
@pytest.mark.parametrize("engine", list(POLICIES))
def test_both_forms_are_the_same_replica(engine: str, budget: int, decoding: dict[str, float]) -> None:
    """With a budget that the decoding sequences nearly fill, and with several tokens a step, too."""
    table = replace(small_table(prompt_token_s=2e-5, context_s=CONTEXT_S, step_s=0.002), **decoding)
    model = small_server(table, POLICIES[engine], budget=budget, seats=12)
    quick, events = (simulate(model, _requests(22.0), timeline=timeline).served for timeline in (False, True))
    assert np.isfinite(events.finish_s).all()
    assert np.abs(quick.first_token_s - events.first_token_s).max() < 1e-6
    assert np.abs(quick.finish_s - events.finish_s).max() < 1e-6


@pytest.mark.parametrize("decoding", [PLAIN, SPECULATIVE], ids=["plain", "speculative"])
def test_a_further_step_is_longer_by_the_tokens_of_the_step_before(decoding: dict[str, float]) -> None:
    """The slope of a run of steps is the difference of two steps, with drafting and accepted tokens in it."""
    table = replace(small_table(context_s=CONTEXT_S, step_s=0.002), **decoding)
    now = Cell(decoding=7, context=7 * 300.0)
    later = Cell(decoding=7, context=7 * (300.0 + table.accepted_tokens))
    first, slope, _ = decode_pace(table, [now])
    assert first == pytest.approx(step_s(table, [now], decodes=True), rel=1e-12)
    assert slope == pytest.approx(step_s(table, [later], decodes=True) - first, rel=1e-9)
    assert slope == pytest.approx((1.0 + table.draft_frac) * 7 * table.accepted_tokens * CONTEXT_S, rel=1e-9)


@pytest.mark.parametrize("engine", list(POLICIES))
def test_every_rank_fills_a_budget_of_its_own(engine: str) -> None:
    """Four prompts that each fill a rank's budget begin together on four ranks, and one after the other on one."""
    together = Requests(
        arrival_s=np.zeros(4), prompt=np.full(4, 64), cached=np.zeros(4, dtype=np.int64), output=np.full(4, 5)
    )
    for ranks, steps in ((1, 4), (4, 1)):
        table = replace(small_table(prompt_token_s=2e-5, step_s=0.002), ranks=ranks)
        model = small_server(table, POLICIES[engine], budget=64, seats=12)
        served = simulate(model, together).served
        assert np.unique(served.first_token_s.round(9)).size == steps
