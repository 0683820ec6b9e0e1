"""What a plan serves: its capacity, what of the traffic it takes, and how much of that keeps every limit at once."""

from __future__ import annotations

from math import inf

import numpy as np

from autotune.simulation.percentile_limits import request_bounds
from autotune.simulation.queue_growth import queue_grows, takes_ever_longer
from autotune.simulation.room import most_in_flight
from autotune.simulation.simulate_plan import PlanSimulation, Traffic
from autotune.study import Study
from costmodel.simulation.forecast import Forecast, Likely
from costmodel.simulation.simulate import Simulated

HELD = (1.0, 0.75, 0.5)
"""Shares of their outputs that requests hold in a full cache: to their end, with room to spare, on average."""


def goodput(study: Study, traffic: Traffic, found: Forecast, *, gpus: int) -> Likely:
    """Requests per second and GPU that keep all of `request_bounds`, of those that come.

    In an open loop they come at the traffic's mean rate whatever the plan does, in a closed loop as it serves them.
    """
    share = found.attainment(**request_bounds(study))
    runs = (found.expected, found.slow, found.quick)
    rates = [
        _per_s(traffic.concurrency or 1, run, found.errors.first) if traffic.rate_per_s is None else traffic.rate_per_s
        for run in runs
    ]
    value, low, high = (
        rate * part / gpus for rate, part in zip(rates, (share.value, share.low, share.high), strict=True)
    )
    return Likely(value=value, low=low, high=high)


def served_per_s(traffic: Traffic, found: PlanSimulation) -> float:
    """Requests per second that end while they come, or wait.

    In an open loop all that come, unless ever more of them are at the plan: then what it serves at most. A log is
    served at its own rate unless its queue grows.
    """
    done, rate = found.expected, traffic.rate_per_s
    if rate is None:
        return _per_s(traffic.concurrency or 1, done, found.errors.first)
    if not (queue_grows(done) if traffic.recorded else takes_ever_longer(done)):
        return rate
    return min(rate, capacity_per_s(found, enough_per_s=rate))


def is_full(traffic: Traffic, served_per_s: float) -> bool:
    """Whether more requests come than a plan serves; those of a closed loop come as it serves them.

    A queue that grows while a few thousand requests come does not say so: batches of one length can end in lock step
    until the queue presses. Nor does what a closed loop serves: with other requests in flight it may serve more.
    """
    return traffic.rate_per_s is not None and served_per_s < traffic.rate_per_s


def capacity_per_s(found: PlanSimulation, *, enough_per_s: float = inf) -> float:
    """Requests per second that a plan serves of such lengths at most; of two pools the slower one's.

    The most of what it serves with as many in flight as its seats or its cache have room for, its steps as long as with
    so many. With more than have room to their end some are thrown out and computed again, with fewer the steps have
    less to share; which is better is tried.

    Args:
        found: what was simulated of the plan.
        enough_per_s: no more is looked for than this.
    """
    part, parts, most = found.model.part, found.model.parts, 0.0
    requests, known = found.traffic.requests, found.closed_loops_per_s
    for share in HELD:
        n = most_in_flight(part, requests, generated_frac=share)
        if n not in known:
            filled = found.paced_with(round(parts * n))
            known[n] = _per_s(n, found.traffic.in_closed_loop(n).serve(filled.part))
        most = max(most, parts * known[n])
        if most >= enough_per_s:
            break
    return most


def _per_s(in_flight: int, done: Simulated, first: float = 1.0) -> float:
    """Requests per second of a closed loop, by Little's law; `first`: how much longer first tokens take.

    How many are sent in a while says it less well: where they end together, that while begins and ends with many.
    """
    took = done.served
    return float(in_flight / np.mean(took.e2e_s + (first - 1.0) * took.ttft_s))
