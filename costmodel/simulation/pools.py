"""Requests through two pools in series: a queue in front of those that prefill, and one in front of those that decode.

A prompt is served by a prefill worker as a request of one token. When it is through, its cache travels; a decode worker
takes it up as a request whose prompt is cached, once it has a seat and room for it, and its first step yields the first
token that the client sees. Prompts with few tokens to compute may go to the decode worker at once, which prefills them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TypeVar

import numpy as np

from costmodel.plan.columns import Floats, Ints
from costmodel.simulation.replica import Replica
from costmodel.simulation.requests import Flags, Requests
from costmodel.simulation.served import Served
from costmodel.simulation.simulate import ServerModel, Simulated, simulate
from costmodel.simulation.state import Request
from costmodel.simulation.step_table import ChunkTable, Line, PartTables, Plane, StepTable
from costmodel.simulation.token_gaps import TokenGaps

OFF_FRAC = 0.01
"""Share by which the workers of a part of both pools may be out of proportion."""
_Table = TypeVar("_Table", Line, Plane, ChunkTable, PartTables, StepTable)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolsModel:
    """A plan of two pools as it is simulated."""

    prefill: ServerModel
    decode: ServerModel
    between_s: float
    """From the end of a prompt's prefill until a decode worker may take it up: transfer and hand-over."""
    local_tokens: int = 0
    """Prompts with at most so many tokens to compute are prefilled by a decode worker."""
    local_needs_hit: bool = False
    """Of these, only those that have a part in the prefix cache."""
    local_s: float = 0.0
    """From their arrival until a decode worker may take them up."""

    @property
    def replicas(self) -> int:
        """Workers of both pools."""
        return self.prefill.replicas + self.decode.replicas

    def paced(self, pace: float) -> PoolsModel:
        """The plan with every step, and the hand-over, so many times as long."""
        sides = (replace(side, table=slowed(side.table, pace)) for side in (self.prefill, self.decode))
        return replace(
            self,
            prefill=next(sides),
            decode=next(sides),
            between_s=self.between_s * pace,
            local_s=self.local_s * pace,
        )

    @property
    def part(self) -> PoolsModel:
        """The smallest part of the plan that meets what all of it does: workers of both pools in the same proportion.

        The proportion may be off by `OFF_FRAC`, so that there is a small part of 15 and 49 workers too.
        """
        first, second = self.prefill.replicas, self.decode.replicas
        few = (
            (count, round(count * second / first))
            for count in range(1, first + 1)
            if abs(round(count * second / first) * first / (count * second) - 1.0) <= OFF_FRAC
        )
        prefill, decode = next(few)
        return replace(
            self,
            prefill=replace(self.prefill, replicas=prefill),
            decode=replace(self.decode, replicas=decode),
        )

    @property
    def parts(self) -> float:
        """How many times its `part` the plan is: in the pool of which the part has most."""
        part = self.part
        return min(self.prefill.replicas / part.prefill.replicas, self.decode.replicas / part.decode.replicas)

    def open_loop(self, requests: Requests, *, timeline: bool = False) -> Simulated:
        """Serve requests that arrive whatever the pools do.

        Raises:
            NoRoomError: a pool can never admit any of the requests that come to it.
        """
        return self.in_series(
            lambda prompts: simulate(self.prefill, prompts, timeline=timeline),
            lambda handed: simulate(self.decode, handed, timeline=timeline),
            requests,
        )

    def in_series(
        self, prefill: Callable[[Requests], Simulated], decode: Callable[[Requests], Simulated], requests: Requests
    ) -> Simulated:
        """Requests through one pool and then through the other, whatever workers each has."""
        handed = np.flatnonzero(~self.is_local(requests.prompt, requests.cached))
        prompts = prefill(replace(requests, output=np.ones_like(requests.output)).take(handed))
        ready_s, cached = requests.arrival_s + self.local_s, requests.cached.copy()
        ready_s[handed], cached[handed] = prompts.served.finish_s + self.between_s, requests.prompt[handed]
        order = np.argsort(ready_s, kind="stable")
        tokens = decode(replace(requests, arrival_s=ready_s, cached=cached).take(order))
        back = np.argsort(order, kind="stable")
        return Simulated(
            served=Served(
                requests=requests,
                first_token_s=tokens.served.first_token_s[back],
                finish_s=tokens.served.finish_s[back],
            ),
            gaps=tokens.gaps,
            preemptions=prompts.preemptions + tokens.preemptions,
            busy_s=prompts.busy_s + tokens.busy_s,
            timeline=(*prompts.timeline, *tokens.timeline),
        )

    def is_local(self, prompt: Ints, cached: Ints) -> Flags:
        """Which prompts a decode worker prefills."""
        found = (cached > 0) | (not self.local_needs_hit)
        return (self.local_tokens > 0) & (prompt - cached <= self.local_tokens) & found

    def closed_loop(
        self, prompt: Ints, cached: Ints, output: Ints, *, concurrency: int, timeline: bool = False
    ) -> Simulated:
        """Serve requests of which `concurrency` are in flight, each sent as another ends; all slots begin at once.

        Both pools go forward in turns as long as the way between them, within which nothing that the one does reaches
        the other: the decode pool first, whose ends send the prompts.

        Raises:
            NoRoomError: a pool can never admit any of the requests that come to it.
        """
        local, nothing = self.is_local(prompt, cached), np.ones_like(output)
        self.prefill.check_room(prompt[~local], cached[~local], nothing[~local])
        self.decode.check_room(prompt, np.where(local, cached, prompt), output)
        loop = _ClosedLoop(self, prompt, cached, output, timeline=timeline)
        for _ in range(min(concurrency, prompt.size)):
            loop.send(0.0)
        now, turn_s = 0.0, self.between_s if self.local_tokens == 0 else min(self.between_s, self.local_s)
        while loop.ended < prompt.size:
            now += turn_s
            for replica in (*loop.decode, *loop.prefill):
                replica.advance(now)
        return loop.gathered(timeline=timeline)


class _ClosedLoop:
    """Workers of both pools, each finished request of which sends another."""

    def __init__(self, model: PoolsModel, prompt: Ints, cached: Ints, output: Ints, *, timeline: bool) -> None:
        self._model = model
        self._lengths = list(zip(prompt.tolist(), cached.tolist(), output.tolist(), strict=True))
        self._local = model.is_local(prompt, cached).tolist()
        self.sent: list[Request] = []
        """Prompts, in the order in which they were sent."""
        self._handed: dict[int, Request] = {}
        self.ended = 0
        self.prefill, self.decode = (
            [Replica(side.table, side.policy, side.limits, on_finish, timeline=timeline) for _ in range(side.replicas)]
            for side, on_finish in ((model.prefill, self._hand_over), (model.decode, self._end))
        )
        self._next = cycle(self.prefill), cycle(self.decode)

    def send(self, at_s: float) -> None:
        """Send the next request, if there is one."""
        number = len(self.sent)
        if number < len(self._lengths):
            prompt, cached, _ = self._lengths[number]
            request = Request(arrival_s=at_s, prompt=prompt, cached=cached, output=1, number=number)
            self.sent.append(request)
            if self._local[number]:
                self._take_up(number, at_s + self._model.local_s, cached)
            else:
                next(self._next[0]).offer(request)

    def _hand_over(self, done: Request) -> None:
        self._take_up(done.number, done.finish_s + self._model.between_s, done.prompt)

    def _take_up(self, number: int, ready_s: float, cached: int) -> None:
        """A decode worker gets a request of whose prompt so many tokens need no computing."""
        prompt, _, output = self._lengths[number]
        taken = Request(arrival_s=ready_s, prompt=prompt, cached=cached, output=output, number=number)
        self._handed[number] = taken
        next(self._next[1]).offer(taken)

    def _end(self, done: Request) -> None:
        self.ended += 1
        self.send(done.finish_s)

    def gathered(self, *, timeline: bool) -> Simulated:
        """All requests in the order of their arrival."""
        flying = sorted(self.sent, key=lambda request: (request.arrival_s, request.number))
        order = [request.number for request in flying]
        lengths = np.array([self._lengths[number] for number in order], dtype=np.int64).reshape(-1, 3)
        arrival_s = np.array([request.arrival_s for request in flying])
        taken, replicas = [self._handed[number] for number in order], [*self.prefill, *self.decode]
        return Simulated(
            served=Served(
                requests=Requests(
                    arrival_s=arrival_s, prompt=lengths[:, 0], cached=lengths[:, 1], output=lengths[:, 2]
                ),
                first_token_s=np.array([request.first_token_s for request in taken]),
                finish_s=np.array([request.finish_s for request in taken]),
            ),
            gaps=TokenGaps.joined([replica.gaps.gaps() for replica in self.decode]),
            preemptions=sum(replica.counters.preemptions for replica in replicas),
            busy_s=sum(replica.counters.busy_s for replica in replicas),
            timeline=tuple(np.array(r.timeline).reshape(-1, 4) for r in replicas) if timeline else (),
        )


def slowed(table: _Table, factor: float) -> _Table:
    """A table of seconds with every entry so many times as large."""
    if isinstance(table, Line):
        return replace(table, values=_times(table.values, factor), slopes=_times(table.slopes, factor))
    if isinstance(table, Plane):
        return replace(table, rows=[slowed(row, factor) for row in table.rows])
    if isinstance(table, ChunkTable):
        return replace(table, rows=[_times(row, factor) for row in table.rows])
    if isinstance(table, PartTables):
        return replace(
            table,
            rest_s=_times(table.rest_s, factor),
            experts_s=None if table.experts_s is None else slowed(table.experts_s, factor),
            logits_s=slowed(table.logits_s, factor),
            decode_s=slowed(table.decode_s, factor),
            prompt_s=slowed(table.prompt_s, factor),
            floor_s=table.floor_s * factor,
        )
    slowest = slowed(table.slowest, factor)
    return replace(
        table,
        slowest=slowest,
        through=slowest if table.through is table.slowest else slowed(table.through, factor),
        step_s=table.step_s * factor,
        sequence_s=table.sequence_s * factor,
        scheduling_sequence_s=table.scheduling_sequence_s * factor,
    )


def _times(values: object, factor: float) -> list[float]:
    column: Floats = np.asarray(values, dtype=np.float64) * factor
    return [float(value) for value in column]
