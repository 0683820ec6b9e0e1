"""Two pools under a given number of requests in flight: each is sent as another ends.

By Little's law requests in flight are those that decode and, at the rate at which these end, those on their way there:

    in flight = n + X(n) (prefill + transfer + hand-over),     X(n) = n / ((L - 1) TPOT(n))

which grows with `n`, the sequences that decode, and is solved for it. No more decode than there are slots (sequences
that decode workers run at once, and their KV room; a sequence holds one from its transfer on), and no more than the
prefill pool can follow; what is left of the requests in flight waits in front, which is part of the first token's time.

A benchmark begins with all its requests at once. Until the prefill pool has worked off that burst its prompts queue,
half of the burst's time on average, and the rounds after it come in bunches that lengths spread only slowly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.disaggregated.decode_pool import LEAST_DECODING, DecodePool
from costmodel.disaggregated.kv_transfer import exposed_s
from costmodel.disaggregated.pairing import PairService, joined_service
from costmodel.disaggregated.pool_point import PoolPoint
from costmodel.disaggregated.prefill_pool import MOST_UTILISED, PrefillPool
from costmodel.plan.columns import Floats

BISECTIONS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """Where pairs of pools settle: entry `i` of every array belongs to pair `i`."""

    prefill: PoolPoint
    decode: PoolPoint
    pair: PairService
    decoding: Floats
    """Sequences that decode, over all replicas of the pool."""
    slots: Floats
    """Most sequences that the decode pool runs at once."""
    utilisation: Floats
    """Rate over what the prefill pool can do."""


def settle(
    prefill: PrefillPool,
    decode: DecodePool,
    concurrency: Floats,
    *,
    admitted: Floats | None = None,
    waves: float = 0.0,
) -> ClosedLoop:
    """Pairs of pools, entry `i` with entry `i`, with requests in flight of shape `(num_pairs,)`.

    Args:
        prefill: the pools that prefill.
        decode: the pools that decode.
        concurrency: requests in flight.
        admitted: sequences that may decode at most; None: as many as the decode pool has slots for.
        waves: requests that each slot of a benchmark sends, all slots beginning at once; 0 is the steady state.
    """
    layout, load = decode.batch.layout, decode.load
    outputs = np.maximum(load.osl - 1.0, 1.0)
    slots, carried = decode.slots(concurrency), np.minimum(prefill.able_per_s, decode.links_per_s)
    low, high = np.full(concurrency.shape, LEAST_DECODING), np.minimum(concurrency, slots)
    if admitted is not None:
        high = np.minimum(high, admitted)

    def at(decoding: Floats) -> tuple[PoolPoint, Floats, PoolPoint, Floats]:
        second = decode.at(decoding)
        rate = decoding / (outputs * second.columns.latency_s)
        first = prefill.at(np.minimum(rate / prefill.most_per_s, MOST_UTILISED))
        sent = exposed_s(prefill.link, first.columns.wire_s, second.columns.wire_s)
        return second, rate, first, first.columns.latency_s + sent + second.columns.entry_s

    for _ in range(BISECTIONS):
        middle = np.sqrt(low * high)
        second, rate, _, before_s = at(middle)
        held = rate * second.columns.residence_s
        over = (middle + rate * before_s > concurrency) | (rate >= MOST_UTILISED * carried) | (held > slots)
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    second, rate, first, before_s = at(low)
    inside = before_s + np.maximum(load.osl - 1.0, 0.0) * second.columns.latency_s
    wait = np.maximum(concurrency / rate - inside, 0.0)
    opening = _opening_s(prefill, concurrency, slots, wait, waves)
    ttft = before_s + wait + opening
    e2e = inside + wait + opening
    pair = joined_service(
        first.columns,
        second.columns,
        load,
        prefill.link,
        rate=concurrency / e2e,
        ttft_s=ttft,
        wait_s=wait,
    )
    return ClosedLoop(
        prefill=first,
        decode=second,
        pair=pair,
        decoding=low,
        slots=slots + 0.0 * layout.replicas,
        utilisation=rate / prefill.most_per_s,
    )


def most_decoding(decode: DecodePool) -> Floats:
    """Sequences of decode pools that decode where every slot is taken, whatever brings their prompts."""
    high = decode.slots(np.full(decode.batch.size, np.inf))
    low = np.full_like(high, LEAST_DECODING)
    slots = high
    for _ in range(BISECTIONS):
        middle = np.sqrt(low * high)
        taken = decode.at(middle).columns
        over = middle / (np.maximum(decode.load.osl - 1.0, 1.0) * taken.latency_s) * taken.residence_s > slots
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    return low


def _opening_s(prefill: PrefillPool, concurrency: Floats, slots: Floats, wait: Floats, waves: float) -> Floats:
    """Mean over a benchmark's requests of the queue that its opening burst causes."""
    if waves <= 0.0:
        return np.zeros_like(concurrency)
    burst_s = np.minimum(concurrency, slots) / prefill.most_per_s
    # requests that wait for a slot come one by one: their rounds are not bunched in front of prefill
    loose = 1.0 - np.minimum(wait / (0.5 * concurrency / prefill.most_per_s), 1.0)
    rounds = 1.0 + (prefill.factors.calibration.opening_queue - 1.0) * loose
    return 0.5 * rounds * burst_s * (concurrency - 1.0) / concurrency / waves
