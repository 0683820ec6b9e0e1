"""Pools that only prefill or only decode, and the transfer between them, against sums written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.disaggregated.decode_steps import LocalPrompts, decode_steps
from costmodel.disaggregated.kv_transfer import TransferLink, exposed_s
from costmodel.disaggregated.pool_point import PoolColumns
from costmodel.disaggregated.pools import DecodePool, PrefillPool, decode_pool, prefill_pool
from costmodel.disaggregated.prefill_pass import PassParts
from costmodel.estimate.batch import PlanBatch
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


def _local_pool(**given: float) -> DecodePool:
    """A decode pool that prefills a quarter of the prompts, of outputs of 101 tokens."""
    link = TransferLink(start_s=0.25, handed_frac=0.75)
    asked = replace(load(), osl=np.array([101.0]), batched_tokens=np.array([given.get("budget", 8192.0)]))
    return decode_pool(_batch(), asked, link, longest_prompt=LONGEST, memory_fraction=FRACTION, local=LOCAL)


def test_a_prompt_in_so_many_steps_by_hand() -> None:
    """64 sequences on 8 ranks, 100 steps each, a quarter with a prompt: 0.16 come in a step, 1 - exp(-0.16) of which
    carry some, 0.16 x 400 / (1 - exp(-0.16)) tokens of them beside 64: by that share a step takes as long as a prefill
    pass does over its formula.
    """
    pool = _local_pool()
    alone = pool.at(np.array([64.0])).passes
    twice = replace(pool.factors, prefill=np.full(1, 2.0))
    slots, requests, factor = np.ones(1), np.array([64.0]), np.array([1.0])
    found, longer = (
        decode_steps(pool.batch, pool.load, alone, slots, requests, LOCAL, factors, factor)
        for factors in (pool.factors, twice)
    )
    share = 1.0 - np.exp(-0.16)
    tokens = 0.16 * 400.0 / share
    assert found.local_s[0] > alone.through_s[0]
    assert longer.local_s[0] == pytest.approx(found.local_s[0] * (1.0 + tokens / (tokens + 64.0)))
    for steps in (found, longer):
        added = steps.local_s[0] - alone.through_s[0]
        assert steps.round_s[0] - alone.through_s[0] == pytest.approx(share * added)
    columns = pool.at(np.array([64.0])).columns
    assert columns.latency_s[0] == pytest.approx(found.round_s[0])


def test_who_brings_a_prompt_waits_for_its_step_by_hand() -> None:
    """Half of a running step and its own, of a quarter of the requests; three quarters have their cache sent."""
    pool = _local_pool()
    point = pool.at(np.array([64.0]))
    columns, handover = point.columns, pool.handover_s(point.columns.latency_s)[0]
    parts = point.parts_s["own_prefill"][0], point.parts_s["running_step"][0]
    assert parts[1] == pytest.approx(0.25 * 0.5 * columns.latency_s[0])
    assert columns.entry_s[0] == pytest.approx(0.75 * pool.start_s[0] + handover + sum(parts))
    assert columns.entry_s[0] + columns.longest_extra_s[0] == pytest.approx(pool.start_s[0] + handover)
    assert columns.wire_s[0] == pytest.approx(0.75 * pool.wire_s[0])


def test_prompts_that_do_not_fit_their_steps_take_more_of_them() -> None:
    """With outputs of two tokens and a budget of 200 a rank, 16 prompts of 400 come for a step with room for four."""
    pool = _local_pool(budget=200.0)
    asked = replace(pool.load, osl=np.array([2.0]))
    alone, requests = pool.at(np.array([64.0])).passes, np.array([64.0])
    few, many = (
        decode_steps(pool.batch, own, alone, np.ones(1), requests, LOCAL, pool.factors, np.ones(1))
        for own in (asked, replace(asked, batched_tokens=np.array([100.0 + 8.0])))
    )
    room = 200.0 - alone.work.decoded[0], 108.0 - alone.work.decoded[0]
    assert few.round_s[0] > 4.0 * alone.through_s[0]
    assert many.round_s[0] / many.local_s[0] == pytest.approx(16.0 * 400.0 / (8.0 * room[1]))
    assert few.round_s[0] / few.local_s[0] == pytest.approx(16.0 * 400.0 / (8.0 * room[0]))


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
