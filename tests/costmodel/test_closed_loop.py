"""Two pools under given requests in flight: Little's law, slots that bind, prefill that binds, the opening burst."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.disaggregated.closed_loop import ClosedLoop, most_decoding, settle
from costmodel.disaggregated.decode_pool import DecodePool, decode_pool
from costmodel.disaggregated.kv_transfer import TransferLink
from costmodel.disaggregated.prefill_pool import prefill_pool
from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats
from tests.costmodel.helpers import entry, load

LONGEST, FRACTION = np.array([2000.0]), np.array([0.9])
LINK = TransferLink()


def _decode(slots: float) -> DecodePool:
    asked = replace(load(), max_num_seqs=np.array([slots]))
    batch = PlanBatch.of([entry(attn_dp=8, moe_ep=8)])
    return decode_pool(batch, asked, TransferLink(), longest_prompt=LONGEST, memory_fraction=FRACTION)


def _settled(in_flight: Floats, *, slots: float = 1e6, waves: float = 0.0, link: TransferLink = LINK) -> ClosedLoop:
    batch = PlanBatch.of([entry(attn_dp=8, moe_ep=8)]).take(np.zeros(in_flight.size, dtype=np.int64))
    asked = load()
    prefill = prefill_pool(batch, asked, link, longest_prompt=LONGEST, memory_fraction=FRACTION)
    asked = replace(asked, max_num_seqs=np.array([slots]))
    decode = decode_pool(batch, asked, link, longest_prompt=LONGEST, memory_fraction=FRACTION)
    return settle(prefill, decode, in_flight, waves=waves)


def test_all_requests_are_accounted_for() -> None:
    """In flight = rate x time of a request, and each load has a number decoding and a TPOT of its own."""
    in_flight = np.array([1.0, 4.0, 16.0, 64.0])
    found = _settled(in_flight)
    assert found.pair.in_flight == pytest.approx(in_flight, rel=1e-6)
    assert found.decoding == pytest.approx(found.pair.requests_per_s * 499.0 * found.pair.tpot_s, rel=1e-3)
    assert np.all(np.diff(found.decoding) > 0.0)
    assert np.all(np.diff(found.pair.tpot_s) > 0.0)
    assert np.all(found.decoding < in_flight)
    assert found.pair.kv_wait_s == pytest.approx(np.zeros(4), abs=1e-6)


def test_slots_bind() -> None:
    """With one slot per rank no more than eight decode, and the surplus waits as long as the slots turn over."""
    found = _settled(np.array([16.0, 24.0]), slots=1.0)
    assert found.slots == pytest.approx([8.0, 8.0])
    assert np.all(found.decoding <= 8.0)
    assert found.pair.kv_wait_s[1] - found.pair.kv_wait_s[0] == pytest.approx(
        8.0 / found.pair.requests_per_s[1], rel=1e-3
    )


def test_the_prefill_pool_binds() -> None:
    """Thousands in flight: the rate is what the prefill pool can do, and more of them wait without changing TPOT."""
    found = _settled(np.array([20000.0, 40000.0]))
    assert np.all(found.utilisation <= 0.999 + 1e-9)
    assert found.utilisation[0] == pytest.approx(found.utilisation[1], rel=1e-3)
    assert found.pair.tpot_s[0] == pytest.approx(found.pair.tpot_s[1], rel=1e-3)


def test_the_links_bind() -> None:
    """Thousands in flight behind links of 0.2 GB/s: as many are served as caches pass, and no more of them at once."""
    found = _settled(np.array([2000.0, 20000.0]), link=TransferLink(bytes_per_s=2e8))
    carried = 8.0 / found.prefill.columns.wire_s
    assert found.pair.requests_per_s == pytest.approx(carried, rel=2e-3)
    assert np.all(found.pair.requests_per_s <= carried)
    assert np.all(found.utilisation < 0.9)


def test_a_full_decode_pool_serves_what_it_does_alone() -> None:
    """Where slots bind the closed loop serves what the pool does with so many decoding, and every slot is held."""
    found = _settled(np.array([400.0]), slots=8.0)
    columns = found.decode.columns
    assert found.pair.requests_per_s == pytest.approx(columns.requests_per_s, rel=1e-6)
    assert columns.sequences_per_rank == pytest.approx([8.0], rel=1e-6)
    assert most_decoding(_decode(8.0)) == pytest.approx(found.decoding, rel=1e-6)


def test_an_opening_burst_delays_the_mean_first_token() -> None:
    """A benchmark's requests wait longer on average than those of the steady state, the less the more rounds it has."""
    steady, few, many = (_settled(np.array([64.0]), waves=waves).pair.ttft_s[0] for waves in (0.0, 2.0, 10.0))
    assert few > many > steady
    assert few - steady == pytest.approx(5.0 * (many - steady))
