"""Pools that only prefill or only decode, and the transfer between them, against sums written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.disaggregated.decode_pool import DecodePool, decode_pool
from costmodel.disaggregated.decode_steps import DecodeSteps, LocalPrompts, steps_with_prompts
from costmodel.disaggregated.kv_transfer import TransferLink, exposed_s
from costmodel.disaggregated.pool_point import PoolColumns
from costmodel.disaggregated.prefill_pass import PassParts
from costmodel.disaggregated.prefill_pool import PrefillPool, prefill_pool
from costmodel.estimate.batch import PlanBatch
from costmodel.serving.load import Load
from tests.costmodel.helpers import entry, load

LONGEST, FRACTION = np.array([2000.0]), np.array([0.9])


def _batch() -> PlanBatch:
    return replace(PlanBatch.of([entry(attn_dp=8, moe_ep=8)]), residual=None)


def test_the_queue_of_prompts_by_hand() -> None:
    """Half used: half a running pass with probability 0.5, and 0.5^4 x service x (1 + cv^2) / (2 x 0.5) behind it."""
    pool = prefill_pool(
        _batch(), load(), TransferLink(), longest_prompt=LONGEST, memory_fraction=FRACTION, length_cv2=0.25
    )
    parts = pool.at(np.array([0.5])).parts_s
    service = 8.0 * pool.marginal_s[0]
    lone, full = (step.pipelined_s(pool.chunks)[0] for step in (pool.lone, pool.full))
    assert lone < full
    settled = lone / (1.0 - 0.5 * (1.0 - lone / full))
    assert parts["own_prefill"][0] == pytest.approx(settled)
    assert parts["queue"][0] == pytest.approx(0.5 * settled / 2.0 + 0.5**4 * service * 1.25 / (2.0 * 0.5))


@pytest.mark.parametrize(("kernels_s", "takes_s"), [(7.0, 5.5), (3.0, 5.0)])
def test_what_launching_takes_stays(kernels_s: float, takes_s: float) -> None:
    """Experts run for half of the kernels and in half of the time: a quarter less, but for what launching takes.

    Of kernels of seven seconds 5.25 are left; of three, launching takes 4.75. A quarter of a second is the host's.
    """
    pool = prefill_pool(_batch(), load(), TransferLink(), longest_prompt=LONGEST, memory_fraction=FRACTION)
    half, kernels, launch = np.array([0.5]), np.array([kernels_s]), np.array([4.75])
    parts = PassParts(
        kernels_s=(kernels, 2.0 * kernels),
        launch_s=(launch, 2.0 * launch),
        host_s=np.array([0.25]),
        experts_frac=half,
    )
    factors = replace(pool.factors, prefill=np.ones(1), prefill_experts=half)
    assert parts.stage_s(factors)[0] == takes_s
    assert parts.pipelined_s(factors, np.array([3.0]))[0] == 2.0 * takes_s - 0.25 + 2.0 * takes_s


def test_the_hand_over_takes_steps() -> None:
    """From the end of a prompt's prefill to its first token: the engine's decode steps, and the transfer's start."""
    pool = decode_pool(_batch(), load(), TransferLink(start_s=0.25), longest_prompt=LONGEST, memory_fraction=FRACTION)
    columns, factors = pool.at(np.array([64.0])).columns, pool.factors
    wanted = factors.handover_steps[0] * columns.latency_s[0]
    assert columns.entry_s[0] - pool.start_s[0] == pytest.approx(wanted)
    assert pool.start_s[0] >= 0.25


def test_drafting_takes_its_time() -> None:
    """Drafting for half as long as the step that verifies: tokens come half as quickly again, and GPUs are as busy."""

    def at(draft_frac: float) -> PoolColumns:
        asked = replace(load(), step_tokens=np.array([4.0]), accepted_tokens=np.array([2.0]))
        asked = replace(asked, draft_frac=np.array([draft_frac]))
        pool = decode_pool(_batch(), asked, TransferLink(), longest_prompt=LONGEST, memory_fraction=FRACTION)
        return pool.at(np.array([64.0])).columns

    without, with_drafts = at(0.0), at(0.5)
    assert with_drafts.latency_s[0] == pytest.approx(1.5 * without.latency_s[0])
    assert with_drafts.busy_s[0] == pytest.approx(1.5 * without.busy_s[0])
    assert with_drafts.requests_per_s[0] < without.requests_per_s[0]


LOCAL = LocalPrompts(share=0.25, new=400.0, cached=100.0)


def _steps(asked: Load, *, rounds: float = 100.0, prefill: float = 1.0, decode: float = 1.0) -> DecodeSteps:
    """Steps of 64 sequences on 8 ranks."""
    sizes = (np.array([x]) for x in (64.0, rounds))
    return steps_with_prompts(_batch(), asked, *sizes, LOCAL, prefill=np.array([prefill]), decode=np.array([decode]))


def _local_pool() -> DecodePool:
    """A decode pool that prefills a quarter of the prompts, of outputs of 101 tokens."""
    link = TransferLink(start_s=0.25, handed_frac=0.75)
    asked = replace(load(), osl=np.array([101.0]))
    return decode_pool(_batch(), asked, link, longest_prompt=LONGEST, memory_fraction=FRACTION, local=LOCAL)


@pytest.mark.parametrize("prefill", [1.0, 2.0])
def test_a_prompt_in_so_many_steps_by_hand(prefill: float) -> None:
    """64 sequences of 100 steps each, a quarter with a prompt: 0.16 come in a step.

    Steps with prompts are longer, so that more prompts come while they run, which share the next one: after a short
    step with probability 1 - exp(-0.16 short / mean) there is one, after a long one with 1 - exp(-0.16 long / mean).
    """
    pool = _local_pool()
    alone = pool.at(np.array([64.0])).passes
    found = _steps(pool.load, prefill=prefill)
    short_s, long_s, mean_s = alone.through_s[0], found.local_s[0], found.round_s[0]
    after_short, after_long = (1.0 - np.exp(-0.16 * seconds / mean_s) for seconds in (short_s, long_s))
    share = after_short / (after_short + 1.0 - after_long)
    assert long_s > 1.1 * short_s
    assert mean_s == pytest.approx(short_s + share * (long_s - short_s), rel=1e-3)
    met_s = ((1.0 - share) * short_s**2 + share * long_s**2) / mean_s
    assert found.running_step_s[0] == pytest.approx(0.5 * met_s, rel=1e-3)


def test_steps_with_prompts_are_as_long_as_a_prefill_pools() -> None:
    """By the share of a step's tokens that are prompts', some 0.16 x 400 / share beside 64, it takes twice as long."""
    once, twice = (_steps(_local_pool().load, prefill=prefill) for prefill in (1.0, 2.0))
    tokens = 0.16 * 400.0 / (1.0 - np.exp(-0.16))
    assert twice.local_s[0] == pytest.approx(once.local_s[0] * (1.0 + tokens / (tokens + 64.0)), rel=0.02)
    longer_s = (1.0 - np.exp(-0.16)) * (twice.local_s[0] - once.local_s[0])
    assert twice.kernel_s[0] - once.kernel_s[0] == pytest.approx(longer_s, rel=0.1)


def test_a_prompt_is_computed_once_however_long_its_sequence_is_held() -> None:
    """Held for 30 steps more, fewer prompts come in a step, and a request's own steps have the same FLOPs and bytes."""
    short, long = (_steps(_local_pool().load, rounds=rounds) for rounds in (100.0, 130.0))
    assert long.round_s[0] < 0.99 * short.round_s[0]
    assert long.math_s[0] == pytest.approx(short.math_s[0], rel=0.01)
    assert long.hbm_bytes[0] == pytest.approx(short.hbm_bytes[0], rel=0.01)


def test_a_pool_holds_those_whose_tokens_are_on_their_way() -> None:
    """Steps are of the 64 that decode for 100 of them; held are also those in transfer, hand-over and own prompt."""
    pool, running = _local_pool(), np.array([64.0])
    factor = pool.factors.decode(pool.batch, running / 8.0)
    columns = pool.at(running).columns
    steps = _steps(pool.load, rounds=100.0, prefill=pool.factors.prefill[0], decode=factor[0])
    assert columns.latency_s[0] == pytest.approx(steps.round_s[0] * factor[0])
    decode_s = 100.0 * columns.latency_s[0]
    assert columns.requests_per_s[0] == pytest.approx(64.0 / decode_s)
    other_s = columns.entry_s[0] + columns.wire_s[0]
    assert other_s > pool.factors.handover_steps[0] * columns.latency_s[0]
    assert columns.sequences_per_rank[0] * 8.0 == pytest.approx(64.0 * (1.0 + other_s / decode_s))


def test_few_that_decode_meet_no_more_prompts_than_come() -> None:
    """One that decodes a tenth of the time meets a tenth of the prompts that one brings which always does."""
    pool = _local_pool()
    one, seldom = (pool.at(np.array([n])).columns for n in (1.0, 0.1))
    factor = pool.factors.decode(pool.batch, np.array([1.0 / 8.0]))
    steps = steps_with_prompts(
        pool.batch,
        pool.load,
        np.ones(1),
        np.array([1000.0]),
        LOCAL,
        prefill=pool.factors.prefill,
        decode=factor,
    )
    assert seldom.latency_s[0] == pytest.approx(steps.round_s[0] * factor[0])
    assert seldom.latency_s[0] < one.latency_s[0]
    assert seldom.requests_per_s[0] == pytest.approx(0.1 / (100.0 * seldom.latency_s[0]))


def test_who_brings_a_prompt_waits_for_its_step_by_hand() -> None:
    """The rest of a running step and its own, of a quarter of the requests; three quarters have their cache sent."""
    pool = _local_pool()
    point = pool.at(np.array([64.0]))
    columns, handover = point.columns, pool.handover_s(point.columns.latency_s)[0]
    parts = point.parts_s["own_prefill"][0], point.parts_s["running_step"][0]
    assert 0.5 < parts[1] / (0.25 * 0.5 * columns.latency_s[0]) < 1.5
    assert columns.entry_s[0] == pytest.approx(0.75 * pool.start_s[0] + handover + sum(parts))
    assert columns.entry_s[0] + columns.longest_extra_s[0] == pytest.approx(pool.start_s[0] + handover)
    assert columns.wire_s[0] == pytest.approx(0.75 * pool.wire_s[0])


@pytest.mark.parametrize(("room", "chunks"), [(192.0, 3.0), (100.0, 4.5)])
def test_prompts_that_do_not_fit_their_steps_take_more_of_them(room: float, chunks: float) -> None:
    """With outputs of two tokens 16 prompts of 400 come in a step, and 8 ranks have room for so few of their tokens."""
    asked = replace(load(), osl=np.array([2.0]), batched_tokens=np.array([room + 8.0]))
    found = _steps(asked, rounds=1.0)
    assert found.round_s[0] == pytest.approx(16.0 * 400.0 / (8.0 * room) * found.local_s[0] / chunks)


def test_the_longest_prompt_may_be_prefilled_where_it_decodes() -> None:
    """It meets no prefill pool and no transfer: half of a running step, its own, and the hand-over."""
    local = replace(LOCAL, share=1.0 - 1e-6, longest_new=2000.0)
    link = TransferLink(start_s=0.25, handed_frac=1e-6, longest_handed=False)
    first = prefill_pool(_batch(), load(), link, longest_prompt=LONGEST, memory_fraction=FRACTION)
    second = decode_pool(_batch(), load(), link, longest_prompt=LONGEST, memory_fraction=FRACTION, local=local)
    before, after = first.at(np.array([0.1])).columns, second.at(np.array([64.0])).columns
    assert before.latency_s[0] + before.longest_extra_s[0] == pytest.approx(0.0)
    factor = second.factors.decode(second.batch, np.array([8.0]))[0]
    steps = steps_with_prompts(
        second.batch,
        second.load,
        np.array([64.0]),
        np.array([499.0]),
        local,
        prefill=second.factors.prefill,
        decode=np.array([factor]),
    )
    handover_s = second.handover_s(after.latency_s)[0]
    wanted = (steps.running_step_s[0] + steps.longest_s[0]) * factor + handover_s
    assert after.entry_s[0] + after.longest_extra_s[0] == pytest.approx(wanted)
    assert steps.longest_s[0] > steps.local_s[0]


def test_the_cache_that_travels_is_that_of_the_prompts_that_are_handed_over() -> None:
    """Of prompts of 2,000 tokens on average those of 3,000 are handed over: half as much again on the way."""
    pools = [
        pool(_batch(), load(), TransferLink(handed_isl=tokens), longest_prompt=LONGEST, memory_fraction=FRACTION)
        for tokens in (None, 3000.0)
        for pool in (prefill_pool, decode_pool)
    ]
    for mean, longer in zip(pools[:2], pools[2:], strict=True):
        assert longer.wire_s[0] == pytest.approx(1.5 * mean.wire_s[0])
        assert longer.prompt_bytes[0] == pytest.approx(1.5 * mean.prompt_bytes[0])


def test_a_prefill_pool_serves_what_is_left_to_it_by_hand() -> None:
    """Of four requests it sees three: it keeps up with a third more, and holds each a quarter less on average."""

    def at(handed: float) -> tuple[PrefillPool, PoolColumns]:
        link = TransferLink(handed_frac=handed)
        pool = prefill_pool(_batch(), load(), link, longest_prompt=LONGEST, memory_fraction=FRACTION)
        return pool, pool.at(np.array([0.5])).columns

    (whole, every), (part, some) = at(1.0), at(0.75)
    assert part.most_per_s[0] == pytest.approx(whole.most_per_s[0] / 0.75)
    assert some.latency_s[0] == pytest.approx(0.75 * every.latency_s[0])
    assert some.latency_s[0] + some.longest_extra_s[0] == pytest.approx(every.latency_s[0] + every.longest_extra_s[0])
    assert some.busy_s[0] == pytest.approx(0.75 * every.busy_s[0])
    assert some.wire_s[0] == pytest.approx(0.75 * every.wire_s[0])


def test_the_slower_side_of_a_transfer_decides() -> None:
    """Three seconds to send and eight to receive, a quarter hidden behind the prefill: six are waited for."""
    link = TransferLink(hidden_frac=0.25)
    assert exposed_s(link, np.array([3.0]), np.array([8.0]))[0] == 6.0
    assert exposed_s(link, np.array([8.0]), np.array([3.0]))[0] == 6.0
