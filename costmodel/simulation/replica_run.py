"""What one replica does with its requests: by its quick form where the cache suffices, otherwise event by event."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from costmodel.plan.columns import Floats
from costmodel.simulation.pipeline_queue import run_pipeline_queue
from costmodel.simulation.policies import Policy
from costmodel.simulation.policies.base import BLOCK
from costmodel.simulation.queue_inputs import QueueTables, RequestQueue
from costmodel.simulation.replica import Replica
from costmodel.simulation.requests import Flags, Requests
from costmodel.simulation.single_queue import run_single_queue
from costmodel.simulation.state import RankLimits, Request
from costmodel.simulation.step_table import StepTable
from costmodel.simulation.token_gaps import TokenGaps

BALANCED = 0.9
"""Share of a replica's cache that may be in use while none of its ranks runs out of its part."""
PAUSE_S = 5e3
"""Between two requests of a replica, from which on it is worth looking whether it had nothing left to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRun:
    """What came of the requests of one replica. Arrays have shape `(num_requests,)`; seconds."""

    first_token_s: Floats
    finish_s: Floats
    busy_s: float
    """Time in which steps ran."""
    gaps: TokenGaps
    preemptions: int
    timeline: Floats
    """As that of `Simulated`, where it is asked for."""


def run_replica(
    tables: QueueTables, policy: Policy, limits: RankLimits, requests: Requests, counted: Flags | None
) -> ReplicaRun:
    """Serve the requests of one replica, in parts between which it has nothing to do.

    Where `counted` says which requests count, the others may be left unfinished, and a part in which none does is left
    out: their times are infinite.
    """
    queue = RequestQueue.of(tables.table, requests, counted)
    bounds = [0, *(np.flatnonzero(np.diff(queue.seen_s[:-1]) > PAUSE_S) + 1).tolist(), len(requests)]
    quick_form = run_single_queue if tables.table.stages == 1 else run_pipeline_queue
    runs = [quick_form(tables, queue.part(*ends), limits=limits, mixes=policy.mixes) for ends in pairwise(bounds)]
    if any(run.ends_s > queue.seen_s[begin] for run, begin in zip(runs[:-1], bounds[1:-1], strict=True)):
        bounds, runs = [0, len(requests)], [quick_form(tables, queue, limits=limits, mixes=policy.mixes)]
    first, finish, admitted = (
        np.fromiter(chain.from_iterable(column), dtype=np.float64, count=len(requests))
        for column in ((run.first for run in runs), (run.finish for run in runs), (run.admitted for run in runs))
    )
    held = _most_held(requests.take(queue.order), admitted, finish, bounds)
    ranks = tables.table.ranks
    enough = held <= limits.kv_tokens * ranks * (1.0 if ranks == 1 else BALANCED)
    gaps, busy_s, preemptions = [], 0.0, 0
    for run, (begin, end), suffices in zip(runs, pairwise(bounds), enough.tolist(), strict=True):
        if suffices:
            gaps.append(run.gaps.gaps())
            busy_s += run.busy_s
            continue
        events = run_events(tables.table, policy, limits, requests.take(np.sort(queue.order[begin:end])))
        place = np.argsort(np.argsort(queue.order[begin:end]))
        first[begin:end], finish[begin:end] = events.first_token_s[place], events.finish_s[place]
        gaps.append(events.gaps)
        busy_s += events.busy_s
        preemptions += events.preemptions
    times = np.empty((2, len(requests)))
    times[:, queue.order] = first, finish
    return ReplicaRun(
        first_token_s=times[0],
        finish_s=times[1],
        busy_s=busy_s,
        gaps=TokenGaps.joined(gaps),
        preemptions=preemptions,
        timeline=np.zeros((0, 4)),
    )


def _most_held(requests: Requests, admitted_s: Floats, finish_s: Floats, bounds: list[int]) -> Floats:
    """Cache tokens that the requests of each part hold at once at most, each whole from its admission to its end.

    Where there is room for these nothing ever waited for cache or was preempted. Ranks share it out as requests.
    """
    tokens = (requests.prompt + requests.output + BLOCK).astype(np.float64)
    sizes = np.diff(bounds)
    part = np.repeat(np.arange(sizes.size), sizes)
    # who leaves as another comes does so first
    leaves = np.repeat([1, 0], tokens.size)
    order = np.lexsort((leaves, np.concatenate([admitted_s, finish_s]), np.concatenate([part, part])))
    held = np.cumsum(np.concatenate([tokens, -tokens])[order])
    return np.maximum.reduceat(held, 2 * np.array(bounds[:-1])) if tokens.size else np.zeros(sizes.size)


def run_events(
    table: StepTable, policy: Policy, limits: RankLimits, requests: Requests, *, timeline: bool = False
) -> ReplicaRun:
    """Serve the requests of one replica event by event."""
    replica = Replica(table, policy, limits, timeline=timeline)
    flying = requests_in_flight(requests)
    for request in flying:
        replica.offer(request)
    replica.advance()
    return ReplicaRun(
        first_token_s=np.array([request.first_token_s for request in flying]),
        finish_s=np.array([request.finish_s for request in flying]),
        busy_s=replica.counters.busy_s,
        gaps=replica.gaps.gaps(),
        preemptions=replica.counters.preemptions,
        timeline=np.array(replica.timeline).reshape(-1, 4),
    )


def requests_in_flight(requests: Requests) -> list[Request]:
    """Each of them as a replica takes it."""
    columns = zip(
        requests.arrival_s.tolist(),
        requests.prompt.tolist(),
        requests.cached.tolist(),
        requests.output.tolist(),
        strict=True,
    )
    return [
        Request(arrival_s=arrival, prompt=prompt, cached=cached, output=output, number=i)
        for i, (arrival, prompt, cached, output) in enumerate(columns)
    ]
