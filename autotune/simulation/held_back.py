"""What keeps requests from being served at once: seats, room in the KV cache, or the prompts before theirs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autotune.simulation.simulate_plan import PlanSimulation
from autotune.text.numbers import number
from costmodel.plan.columns import Floats
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.requests import Requests
from costmodel.simulation.simulate import ServerModel, Simulated

WAITING_FRAC = 0.1
"""Share of the requests in flight from which on those that wait are said to be held back."""
ALL_TAKEN_FRAC = 0.9
"""Share of the seats, or of the cache with what the next request needs of it, from which on there is no room."""
QUEUED = 2.0
"""Requests at a replica that wait or are prefilled while any does, from which on they wait for each other's prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """What is at the replicas of one kind, means over time."""

    waiting: float
    """Requests that wait or are prefilled."""
    for_seats: float
    for_cache: float
    """Of those that wait: how many do while the seats, or the cache, have no room."""
    together: float
    """How many do at a replica where any does."""


def held_back(found: PlanSimulation, done: Simulated) -> str:
    """What holds requests back, in one sentence; empty: nothing does.

    Args:
        found: the simulation.
        done: the same requests with their timeline.
    """
    part, requests = found.part, done.served.requests
    sides = (part.prefill, part.decode) if isinstance(part, PoolsModel) else (part,)
    pools = (" in the prefill pool", " in the decode pool") if isinstance(part, PoolsModel) else ("",)
    span_s = float(requests.arrival_s.min()), float(requests.arrival_s.max())
    each: list[_Waiting] = []
    first = 0
    for side in sides:
        each.append(_waiting(side, done.timeline[first : first + side.replicas], requests, span_s))
        first += side.replicas
    most = max(range(len(each)), key=lambda i: each[i].waiting)
    at, there = each[most], pools[most]
    first_s, whole_s = (found.forecast.latency(name, "mean").value for name in ("ttft", "e2e"))
    if first_s < WAITING_FRAC * whole_s:
        return ""
    # by Little's law
    rate = found.traffic.rate_per_s
    in_flight = (found.traffic.concurrency or 1) if rate is None else rate * whole_s * found.alike
    counted = (
        f"{number(in_flight * first_s / whole_s)} of {number(in_flight)} requests in flight wait for their first token "
        "on average"
    )
    if at.for_seats > 0.5 * at.waiting:
        seats = sides[most].limits.max_num_seqs
        return f"Seats hold requests back{there}: {counted}, as max_num_seqs lets {seats:,} in on each rank."
    if at.for_cache > 0.5 * at.waiting:
        return f"The KV cache holds requests back{there}: {counted}, most of them for room in it."
    if at.together > QUEUED:
        return f"Prompts hold requests back{there}: {counted}, while those before theirs or their own are computed."
    return ""


def _waiting(
    side: ServerModel, timeline: tuple[Floats, ...], requests: Requests, span_s: tuple[float, float]
) -> _Waiting:
    """Means over time of what is at some replicas, all together, while requests that count come."""
    seats, room = (most * side.table.ranks for most in (side.limits.max_num_seqs, side.limits.kv_tokens))
    needs = float(requests.prompt.mean() + side.policy.reserves_whole * requests.output.mean())
    sums = np.zeros(4)
    for events in timeline:
        if not len(events):
            continue
        times = np.clip(events[:, 0], *span_s)
        lasted_s = np.diff(times, append=span_s[1])
        decoding, waiting, held = events[:, 1:].T
        no_seat = decoding >= ALL_TAKEN_FRAC * seats
        no_room = ~no_seat & (held + needs >= ALL_TAKEN_FRAC * room)
        sums += [
            float((lasted_s * part).sum()) for part in (waiting, waiting * no_seat, waiting * no_room, waiting > 0.0)
        ]
    means = sums / max(span_s[1] - span_s[0], 1e-9)
    return _Waiting(
        waiting=float(means[0]),
        for_seats=float(means[1]),
        for_cache=float(means[2]),
        together=float(means[0] / max(means[3], 1e-9)),
    )
