"""The quick forms against the replica: the same first tokens, ends and gaps, to rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.simulation.requests import Requests, arrivals
from costmodel.simulation.simulate import simulate
from costmodel.simulation.state import Cell
from costmodel.simulation.step_table import StepTable
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


def _pipeline(stages: int) -> StepTable:
    """Stages of which each takes a share of what a prompt's tokens and the context take, beside a figure of its own."""
    table = replace(
        small_table(prompt_token_s=2e-5, context_s=CONTEXT_S, step_s=0.002), token_s=1e-6, handover_steps=1.0
    )
    rest = np.arange(len(table.slowest.rest_s))
    whole = small_table(prompt_token_s=2e-5 * stages, context_s=CONTEXT_S * stages).through
    return replace(
        table,
        stages=stages,
        slowest=replace(table.slowest, rest_s=(1e-3 + 3e-6 * rest).tolist()),
        through=replace(whole, rest_s=(1e-3 * stages + 1e-5 * rest).tolist()),
    )


@pytest.mark.parametrize("rate_per_s", [3.0, 60.0], ids=["quiet", "full"])
@pytest.mark.parametrize("budget", [64, 2048], ids=["binding", "ample"])
@pytest.mark.parametrize("engine", list(POLICIES))
def test_both_forms_are_the_same_pipeline(engine: str, budget: int, rate_per_s: float) -> None:
    """With micro-batches that follow each other, each behind the one before, and with all seats taken."""
    for stages, decoding in ((2, SPECULATIVE), (4, PLAIN)):
        table = replace(_pipeline(stages), **decoding)
        model = small_server(table, POLICIES[engine], budget=budget, seats=12)
        quick, events = (simulate(model, _requests(rate_per_s), timeline=timeline) for timeline in (False, True))
        assert np.isfinite(events.served.finish_s).all()
        assert np.abs(quick.served.first_token_s - events.served.first_token_s).max() < 1e-9
        assert np.abs(quick.served.finish_s - events.served.finish_s).max() < 1e-9
        assert quick.busy_s == pytest.approx(events.busy_s, rel=1e-12)
        lengths, counts, _ = quick.gaps.pieces()
        others, of_others, _ = events.gaps.pieces()
        assert counts.sum() == pytest.approx(of_others.sum(), rel=1e-12)
        assert (lengths * counts).sum() == pytest.approx((others * of_others).sum(), rel=1e-9)


@pytest.mark.parametrize("stages", [1, 3])
def test_micro_batches_share_the_cache_and_the_seats_of_their_rank(stages: int) -> None:
    """However many micro-batches there are, no more sequences run than there are seats, nor hold more than there is."""
    table = small_table(step_s=0.002) if stages == 1 else _pipeline(stages)
    crowd = replace(_requests(22.0), arrival_s=np.zeros(COUNT))
    for seats, kv_tokens in ((12, 1e9), (COUNT, 4000.0)):
        model = small_server(table, POLICIES["trtllm"], seats=seats, kv_tokens=kv_tokens)
        timeline = simulate(model, crowd, timeline=True).timeline[0]
        assert 1 < timeline[:, 1].max() <= seats
        assert 0.0 < timeline[:, 3].max() <= kv_tokens


@pytest.mark.parametrize("stages", [1, 2])
def test_what_does_not_count_is_left_and_what_a_pause_parts_is_served_apart(stages: int) -> None:
    """Requests that count end as they do among all others, in each part of a log and whether or not others end."""
    table = small_table(prompt_token_s=2e-5, step_s=0.002) if stages == 1 else _pipeline(stages)
    once = _requests(5.0)
    twice = Requests(
        arrival_s=np.concatenate([once.arrival_s, once.arrival_s + 2e4]),
        prompt=np.tile(once.prompt, 2),
        cached=np.tile(once.cached, 2),
        output=np.tile(once.output, 2),
    )
    counted = np.tile((np.arange(COUNT) > 50) & (np.arange(COUNT) < 120), 2)
    for kv_tokens in (1e9, 3000.0):
        model = replace(small_server(table, seats=12, kv_tokens=kv_tokens), replicas=2)
        whole, some = simulate(model, twice, timeline=True).served, simulate(model, twice, counted=counted).served
        assert np.abs(whole.finish_s - some.finish_s)[counted].max() < 1e-6
        assert np.abs(whole.first_token_s - some.first_token_s)[counted].max() < 1e-6
        assert kv_tokens < 1e9 or np.isinf(some.finish_s[~counted]).any()


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


@pytest.mark.parametrize("stages", [1, 4])
@pytest.mark.parametrize("engine", list(POLICIES))
def test_every_rank_computes_a_long_prompt_of_its_own(engine: str, stages: int) -> None:
    """Prompts of several token budgets wait on balanced ranks as long as on ranks that are simulated one by one."""
    table = _pipeline(stages) if stages > 1 else small_table(prompt_token_s=2e-5, context_s=CONTEXT_S, step_s=0.002)
    model = small_server(replace(table, ranks=8), POLICIES[engine], budget=160, seats=64)
    quick, events = (simulate(model, _requests(40.0), timeline=timeline).served for timeline in (False, True))
    assert quick.ttft_s.mean() == pytest.approx(events.ttft_s.mean(), rel=0.1)


@pytest.mark.parametrize("engine", list(POLICIES))
def test_a_prompt_in_part_waits_while_decoding_fills_the_budget(engine: str) -> None:
    """Sequences that decode take every token of a step, and none of the prompts is lost."""
    table = replace(small_table(prompt_token_s=2e-5, step_s=0.002), **SPECULATIVE)
    together = Requests(
        arrival_s=np.zeros(30), prompt=np.full(30, 25), cached=np.zeros(30, dtype=np.int64), output=np.arange(60, 90)
    )
    model = small_server(table, POLICIES[engine], budget=10, seats=12)
    quick, events = (simulate(model, together, timeline=timeline).served for timeline in (False, True))
    assert np.isfinite(quick.finish_s).all()
    assert np.abs(quick.first_token_s - events.first_token_s).max() < 1e-6
    assert np.abs(quick.finish_s - events.finish_s).max() < 1e-6
