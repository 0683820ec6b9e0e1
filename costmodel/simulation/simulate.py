"""Requests through the replicas of a plan: routed, simulated, gathered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from costmodel.plan.columns import Floats, Ints
from costmodel.simulation.policies import Policy
from costmodel.simulation.queue_inputs import QueueTables
from costmodel.simulation.replica import Replica
from costmodel.simulation.replica_run import ReplicaRun, requests_in_flight, run_events, run_replica
from costmodel.simulation.requests import Flags, Requests
from costmodel.simulation.sampled_windows import SampledWindows
from costmodel.simulation.served import Served
from costmodel.simulation.state import RankLimits, Request
from costmodel.simulation.step_table import StepTable
from costmodel.simulation.token_gaps import TokenGaps


class Routing(StrEnum):
    """How a router in front of the replicas chooses one."""

    ROUND_ROBIN = "round_robin"
    LEAST_OUTSTANDING = "least_outstanding"
    PREFIX_AFFINITY = "prefix_affinity"
    """Requests of one prefix (`groups`) to one replica, unless it has far more to do than another."""


AFFINITY_MOST = 1.25
"""Outstanding requests of the replica that a prefix belongs to, over those of the one that has least, at most."""


class NoRoomError(ValueError):
    """No request of the traffic can ever be admitted: the smallest takes more cache than a rank has."""

    def __init__(self, needed_tokens: float, room_tokens: float) -> None:
        self.needed_tokens, self.room_tokens = needed_tokens, room_tokens
        super().__init__(
            f"the smallest request takes {needed_tokens:,.0f} tokens of KV cache, a rank has room for "
            f"{room_tokens:,.0f}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerModel:
    """One plan as it is simulated."""

    table: StepTable
    policy: Policy
    limits: RankLimits
    replicas: int
    routing: Routing = Routing.ROUND_ROBIN
    pace: float = 1.0
    """Length of every step over the table's."""

    def paced(self, pace: float) -> ServerModel:
        """The plan with every step of the table so many times as long."""
        return replace(self, pace=pace)

    @property
    def part(self) -> ServerModel:
        """The smallest part that meets what all of the plan does: a replica, where requests go to them in turn."""
        return replace(self, replicas=1) if self.routing is Routing.ROUND_ROBIN else self

    @property
    def parts(self) -> float:
        """How many times its `part` the plan is."""
        return self.replicas / self.part.replicas

    def check_room(self, prompt: Ints, cached: Ints, output: Ints) -> None:
        """Whether a rank's cache holds any of these requests. Arrays of shape `(num_requests,)`.

        A request that is too large where others fit starts once nothing else runs.

        Raises:
            NoRoomError: the smallest does not fit, so that none is ever admitted.
        """
        if prompt.size == 0:
            return
        least = self.policy.least_reserved(prompt, cached, output)
        if least > self.limits.kv_tokens:
            raise NoRoomError(least, self.limits.kv_tokens)

    def unpaced(self) -> ServerModel:
        """The same in units of `pace` seconds: a step lasts as the table says, and all else is so much shorter."""
        front_s, token_s = self.table.frontend_s / self.pace, self.table.token_s / self.pace
        return replace(self, table=replace(self.table, frontend_s=front_s, token_s=token_s), pace=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What came out of a simulation."""

    served: Served
    gaps: TokenGaps
    preemptions: int
    busy_s: float
    """Seconds in which replicas ran steps, all of them together."""
    timeline: tuple[Floats, ...]
    """Per replica, an array of shape `(num_events, 4)`: seconds, requests that decode, that wait or are prefilled, and
    cache tokens held. Empty where it was not asked for."""
    sample: SampledWindows | None = None
    """Of a log of which windows alone were simulated: those."""
    window: Ints | None = None
    """Of each request, where there is a sample. Shape `(num_requests,)`."""

    @classmethod
    def of_runs(cls, served: Served, runs: Sequence[ReplicaRun | Simulated]) -> Simulated:
        """What came of requests that several replicas served, each of them in a run of its own; no timelines."""
        return cls(
            served=served,
            gaps=TokenGaps.joined([run.gaps for run in runs]),
            preemptions=sum(run.preemptions for run in runs),
            busy_s=sum(run.busy_s for run in runs),
            timeline=(),
        )

    def sampled(self, sample: SampledWindows) -> Simulated:
        """The same without the warm-ups of a sample, with what each request stands for."""
        return replace(
            self._of(np.flatnonzero(sample.window >= 0)), sample=sample, window=sample.window[sample.window >= 0]
        )

    def counted(self, first: int, end: int) -> Simulated:
        """The same without the requests before `first`, which found servers that were filling up, and from `end` on."""
        arrival_s = self.served.requests.arrival_s
        if first <= 0 and end >= arrival_s.size:
            return self
        begins_s = float(arrival_s[min(first, arrival_s.size - 1)]) if first > 0 else -np.inf
        ends_s = float(arrival_s[end]) if end < arrival_s.size else np.inf
        return replace(self._of(np.arange(first, min(end, arrival_s.size))), gaps=self.gaps.after(begins_s, ends_s))

    def _of(self, kept: Ints) -> Simulated:
        """Some of the requests."""
        served = self.served
        return replace(
            self,
            served=Served(
                requests=served.requests.take(kept),
                first_token_s=served.first_token_s[kept],
                finish_s=served.finish_s[kept],
            ),
        )

    def slowed(self, factor: float) -> Simulated:
        """The same with every time so many times as long."""
        served = self.served
        return Simulated(
            served=Served(
                requests=replace(served.requests, arrival_s=served.requests.arrival_s * factor),
                first_token_s=served.first_token_s * factor,
                finish_s=served.finish_s * factor,
            ),
            gaps=self.gaps.slowed(factor),
            preemptions=self.preemptions,
            busy_s=self.busy_s * factor,
            timeline=tuple(events * np.array([factor, 1.0, 1.0, 1.0]) for events in self.timeline),
            sample=None if self.sample is None else self.sample.slowed(factor),
            window=self.window,
        )


def simulate(
    model: ServerModel,
    requests: Requests,
    *,
    groups: Ints | None = None,
    counted: Flags | None = None,
    timeline: bool = False,
) -> Simulated:
    """Requests that arrive whatever the server does (open loop).

    `groups` says which requests share a prefix, for `Routing.PREFIX_AFFINITY`. Where `counted` says which requests
    count (shape `(num_requests,)`), the others may be left unfinished: their ends are infinite.

    Raises:
        NoRoomError: no request can ever be admitted.
    """
    model.check_room(requests.prompt, requests.cached, requests.output)
    if model.pace != 1.0:
        sooner = replace(requests, arrival_s=requests.arrival_s / model.pace)
        return simulate(model.unpaced(), sooner, groups=groups, counted=counted, timeline=timeline).slowed(model.pace)
    if model.routing is Routing.ROUND_ROBIN:
        return _independent(model, requests, counted, timeline=timeline)
    replicas = [Replica(model.table, model.policy, model.limits, timeline=timeline) for _ in range(model.replicas)]
    flying = requests_in_flight(requests)
    homes: dict[int, int] = {}
    for i, request in enumerate(flying):
        for replica in replicas:
            replica.advance(request.arrival_s)
        waiting = [replica.outstanding for replica in replicas]
        best = waiting.index(min(waiting))
        if model.routing is Routing.PREFIX_AFFINITY and groups is not None:
            home = homes.setdefault(int(groups[i]), best)
            best = home if waiting[home] <= AFFINITY_MOST * waiting[best] + 1.0 else best
        replicas[best].offer(request)
    for replica in replicas:
        replica.advance()
    return _gathered(requests, flying, replicas, timeline=timeline)


def simulate_closed(
    model: ServerModel, prompt: Ints, cached: Ints, output: Ints, *, concurrency: int, timeline: bool = False
) -> Simulated:
    """Requests of which `concurrency` are in flight, each sent as another ends (closed loop); all slots begin at once.

    Slots and requests are dealt out to the replicas, and stay there as the connections of a benchmark's client do.

    Raises:
        NoRoomError: no request can ever be admitted.
    """
    model.check_room(prompt, cached, output)
    if model.pace != 1.0:
        quick = simulate_closed(model.unpaced(), prompt, cached, output, concurrency=concurrency, timeline=timeline)
        return quick.slowed(model.pace)
    flying: list[Request] = []
    replicas: list[Replica] = []
    used = min(model.replicas, concurrency)
    for number in range(used):
        own = [
            Request(arrival_s=0.0, prompt=int(prompt[i]), cached=int(cached[i]), output=int(output[i]), number=i)
            for i in range(number, prompt.size, used)
        ]
        slots = len(range(number, concurrency, used))
        replicas.append(_closed_replica(model, own, slots, timeline=timeline))
        flying += own
    flying.sort(key=lambda request: (request.arrival_s, request.number))
    order = np.array([request.number for request in flying], dtype=np.int64)
    requests = Requests(
        arrival_s=np.array([request.arrival_s for request in flying]),
        prompt=prompt[order],
        cached=cached[order],
        output=output[order],
    )
    return _gathered(requests, flying, replicas, timeline=timeline)


def _closed_replica(model: ServerModel, requests: Sequence[Request], slots: int, *, timeline: bool) -> Replica:
    """A replica that has served `requests`, of which `slots` were in flight; their arrivals are written into them."""
    coming = iter(requests)

    def send(at_s: float) -> None:
        request = next(coming, None)
        if request is not None:
            request.arrival_s = at_s
            replica.offer(request)

    replica = Replica(model.table, model.policy, model.limits, lambda done: send(done.finish_s), timeline=timeline)
    for _ in range(slots):
        send(0.0)
    replica.advance()
    return replica


def _gathered(
    requests: Requests, flying: Sequence[Request], replicas: Sequence[Replica], *, timeline: bool
) -> Simulated:
    """Results of requests in their own order."""
    return Simulated(
        served=Served(
            requests=requests,
            first_token_s=np.array([request.first_token_s for request in flying]),
            finish_s=np.array([request.finish_s for request in flying]),
        ),
        gaps=TokenGaps.joined([replica.gaps.gaps() for replica in replicas]),
        preemptions=sum(replica.counters.preemptions for replica in replicas),
        busy_s=sum(replica.counters.busy_s for replica in replicas),
        timeline=tuple(np.array(replica.timeline).reshape(-1, 4) for replica in replicas) if timeline else (),
    )


def _independent(model: ServerModel, requests: Requests, counted: Flags | None, *, timeline: bool) -> Simulated:
    """Round robin: every replica has its requests, whatever the others do."""
    tables = QueueTables.of(model.table, min(model.limits.max_num_seqs * model.table.ranks, len(requests)))
    first, finish = np.empty(len(requests)), np.empty(len(requests))
    runs: list[ReplicaRun] = []
    for number in range(model.replicas):
        index = np.arange(number, len(requests), model.replicas)
        own = requests.take(index)
        if timeline:
            run = run_events(model.table, model.policy, model.limits, own, timeline=True)
        else:
            run = run_replica(tables, model.policy, model.limits, own, None if counted is None else counted[index])
        first[index], finish[index] = run.first_token_s, run.finish_s
        runs.append(run)
    together = Simulated.of_runs(Served(requests=requests, first_token_s=first, finish_s=finish), runs)
    return replace(together, timeline=tuple(run.timeline for run in runs)) if timeline else together
