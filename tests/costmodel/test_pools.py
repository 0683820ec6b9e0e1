"""Pools that only prefill or only decode, and the transfer between them, against sums written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.disaggregated.kv_transfer import TransferLink, exposed_s
from costmodel.disaggregated.pools import decode_pool, prefill_pool
from costmodel.estimate.batch import PlanBatch
from tests.costmodel.helpers import entry, load

LONGEST, FRACTION = np.array([2000.0]), np.array([0.9])


def _batch() -> PlanBatch:
    return replace(PlanBatch.of([entry(attn_dp=8, moe_ep=8)]), residual=None)


def test_the_queue_of_prompts_by_hand() -> None:
    """Half used, a queue for each rank: 0.5 x service x (1 + cv^2) / (2 x 0.5); the prefill between alone and full."""
    pool = prefill_pool(
        _batch(), load(), TransferLink(), longest_prompt=LONGEST, memory_fraction=FRACTION, length_cv2=0.25
    )
    parts = pool.at(np.array([0.5])).parts_s
    service = 8.0 * pool.marginal_s[0]
    assert parts["queue"][0] == pytest.approx(0.5 * service * 1.25 / (2.0 * 0.5))
    lone, full = (step.pipelined_s(pool.chunks)[0] for step in (pool.lone, pool.full))
    assert lone < full
    assert parts["own_prefill"][0] == pytest.approx(0.5 * (lone + full))


def test_a_sequence_joins_a_step_later() -> None:
    """From the arrival of its cache to its taking part: one step, which is TPOT where a step yields one token."""
    pool = decode_pool(_batch(), load(), TransferLink(), longest_prompt=LONGEST, memory_fraction=FRACTION)
    point = pool.at(np.array([64.0]))
    assert point.parts_s["running_step"][0] == pytest.approx(point.columns.latency_s[0])


def test_the_slower_side_of_a_transfer_decides() -> None:
    """Three seconds to send and eight to receive, a quarter hidden behind the prefill: six are waited for."""
    link = TransferLink(hidden_frac=0.25)
    assert exposed_s(link, np.array([3.0]), np.array([8.0]))[0] == 6.0
    assert exposed_s(link, np.array([8.0]), np.array([3.0]))[0] == 6.0
