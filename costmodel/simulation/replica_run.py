"""What one replica does with its requests: by its quick form where the cache suffices, otherwise event by event."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from costmodel.plan.columns import Floats
from costmodel.simulation.pipeline_queue import run_pipeline_queue
from costmodel.simulation.policies import Policy
from costmodel.simulation.queue_inputs import QueueTables, RequestQueue
from costmodel.simulation.replica import Replica
from costmodel.simulation.requests import Flags, Requests
from costmodel.simulation.single_queue import run_single_queue
from costmodel.simulation.state import RankLimits, Request
from costmodel.simulation.step_table import StepTable
from costmodel.simulation.token_gaps import TokenGaps

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

    @property
    def ends_s(self) -> float:
        """When the last of those that were finished ends."""
        return float(self.finish_s.max(where=np.isfinite(self.finish_s), initial=-np.inf))


def run_replica(
    tables: QueueTables, policy: Policy, limits: RankLimits, requests: Requests, counted: Flags | None
) -> ReplicaRun:
    """Serve the requests of one replica, in parts between which it has nothing to do.

    Where `counted` says which requests count, the others may be left unfinished, and a part in which none does is left
    out: their times are infinite.
    """
    queue = RequestQueue.of(tables.table, requests, counted)
    bounds = [0, *(np.flatnonzero(np.diff(queue.seen_s[:-1]) > PAUSE_S) + 1).tolist(), len(requests)]
    runs = [_part(tables, policy, limits, requests, queue.part(*ends)) for ends in pairwise(bounds)]
    if any(run.ends_s > queue.seen_s[begin] for run, begin in zip(runs[:-1], bounds[1:-1], strict=True)):
        runs = [_part(tables, policy, limits, requests, queue)]
    times = np.empty((2, len(requests)))
    times[0, queue.order] = np.concatenate([run.first_token_s for run in runs])
    times[1, queue.order] = np.concatenate([run.finish_s for run in runs])
    return ReplicaRun(
        first_token_s=times[0],
        finish_s=times[1],
        busy_s=sum(run.busy_s for run in runs),
        gaps=TokenGaps.joined([run.gaps for run in runs]),
        preemptions=sum(run.preemptions for run in runs),
        timeline=np.zeros((0, 4)),
    )


def _part(
    tables: QueueTables, policy: Policy, limits: RankLimits, requests: Requests, queue: RequestQueue
) -> ReplicaRun:
    """Serve some of the requests, in the order of `queue`."""
    quick_form = run_single_queue if tables.table.stages == 1 else run_pipeline_queue
    run = quick_form(tables, queue, limits=limits, mixes=policy.mixes)
    if run is not None:
        return ReplicaRun(
            first_token_s=np.array(run.first),
            finish_s=np.array(run.finish),
            busy_s=run.busy_s,
            gaps=run.gaps.gaps(),
            preemptions=0,
            timeline=np.zeros((0, 4)),
        )
    events = run_events(tables.table, policy, limits, requests.take(np.sort(queue.order)))
    place = np.argsort(np.argsort(queue.order))
    return replace(events, first_token_s=events.first_token_s[place], finish_s=events.finish_s[place])


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
