"""The wait for a slot of a decode pool to which requests come at a rate.

A replica is a queue with as many servers as it has slots. A request waits for one when its cache has come, and holds it
for its decode steps and `OWN_STEPS`, as in simulations. (What a pool can do at most has a slot held from the transfer
on, so that it is never asked for all that these slots could do.) With `c` slots, `S` seconds for which each is held
where all are, and a share `u` of what the replica can do then:

    wait = (ca2 + cs2) / 2   S / (c (1 - u))   b ^ (sqrt(2 (c / z + 1)) - 1),     z = (ca2 + cs2) / (1 + cs2)

That is Sakasegawa's approximation (Ann. Inst. Stat. Math. 29, 1977) by the squared coefficients of variation of the
gaps between requests and of the times that they hold a slot. Two things differ. How often all slots are taken follows
from the share `b` of them that is taken at the rate: fewer sequences step faster, so that it is below `u`. And it
follows from as many slots as stand against the variation of how many requests want one, of which `z` is the variance
over the mean (Whitt, Prod. Oper. Manag. 2, 1993): with `z = 1`, as of Poisson arrivals, it is Sakasegawa's power. Over
200 simulated pools of 1 to 256 slots, half to 95 % used, with equal and uniform outputs and `ca2` from 0 to 4, waits
are off by 14 % on geometric average, and by 41 % with Sakasegawa's own power.

Requests are dealt out to replicas in turn, so that gaps vary the less (`costmodel.estimate.open_loop`). What prefill
makes of the gaps is left out: it would make the wait depend on the other pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.disaggregated.decode_pool import DecodePool
from costmodel.disaggregated.pool_point import PoolPoint
from costmodel.disaggregated.prefill_pool import MOST_UTILISED
from costmodel.plan.columns import Floats

OWN_STEPS = 1.5
"""Decode steps of the hand-over that a request waits for in its slot: the rest of the one that runs when it comes, and
its first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """How requests come to a decode pool."""

    gaps_cv2: float
    """Squared coefficient of variation of the gaps between them, over all replicas."""
    outputs_cv2: float
    """The same of their outputs' lengths."""


def slot_wait_s(decode: DecodePool, at: PoolPoint, offered_per_s: Floats, arrivals: Arrivals) -> Floats:
    """Mean wait for a slot, shape `(num_plans,)`; where more comes than the pools can do, that of full ones.

    Args:
        decode: the pools.
        at: what they do at the load that carries the rate, or at their most.
        offered_per_s: requests per second that come to each, shape `(num_plans,)`.
        arrivals: how they come.
    """
    replicas = decode.batch.layout.replicas
    all_slots = decode.slots(np.full(decode.batch.size, np.inf))
    full = decode.at(all_slots)
    full_s, held_s = (_held_s(decode, point) for point in (full, at))
    used = np.minimum(offered_per_s * full_s / all_slots, MOST_UTILISED)
    taken = np.minimum(offered_per_s * held_s / all_slots, used)
    decoding = _decode_s(decode, full) / full_s
    gaps, held = arrivals.gaps_cv2 / replicas, arrivals.outputs_cv2 * decoding**2
    return mean_wait_s(all_slots / replicas, full_s, used=used, taken=taken, gaps_cv2=gaps, held_cv2=held)


def _decode_s(decode: DecodePool, point: PoolPoint) -> Floats:
    return np.asarray(np.maximum(decode.load.osl - 1.0, 0.0) * point.columns.latency_s)


def _held_s(decode: DecodePool, point: PoolPoint) -> Floats:
    """Seconds of a slot that a request takes, with its prompt where that is prefilled here."""
    own = OWN_STEPS * point.columns.latency_s + point.parts_s["own_prefill"]
    return np.asarray(_decode_s(decode, point) + own)


def mean_wait_s(
    slots: Floats, held_s: Floats, *, used: Floats, taken: Floats, gaps_cv2: Floats, held_cv2: Floats
) -> Floats:
    """The formula at the head of this file: `used` is `u`, `taken` is `b`. Arrays of one shape; 0 without variation."""
    varying = gaps_cv2 + held_cv2
    against = slots * (1.0 + held_cv2) / np.maximum(varying, 1e-12)
    often = taken ** (np.sqrt(2.0 * (against + 1.0)) - 1.0)
    return np.asarray(0.5 * varying * held_s / (slots * (1.0 - used)) * often)
