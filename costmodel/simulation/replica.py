"""One replica, event by event: requests come in, steps run, tokens go out.

Between two events (a completion, an arrival that can start, a prompt to compute) the batch is constant, and a step
lengthens linearly with the context: `k` steps take `k a + b k (k - 1) / 2`, so that the simulation jumps over them.

A replica has a lane for each micro-batch of its pipeline, and a lane a cell for each attention-DP rank. A lane's next
step is composed when its last one is through all stages, and starts when the first stage is free.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from math import ceil, inf, nextafter

from costmodel.simulation.policies import Policy
from costmodel.simulation.queue_inputs import NEVER
from costmodel.simulation.state import Cell, Counters, Lane, Rank, RankLimits, Request, Steps
from costmodel.simulation.step_table import StepTable
from costmodel.simulation.step_time import decode_pace, step_s
from costmodel.simulation.token_gaps import GapRecorder

UNEVEN = 1.05
"""Requests of a micro-batch over those of the mean one, at most: another one takes who waits."""


class Replica:
    """A server of one plan: `offer` it requests in the order of their arrival, then `advance`."""

    def __init__(
        self,
        table: StepTable,
        policy: Policy,
        limits: RankLimits,
        on_finish: Callable[[Request], object] | None = None,
        *,
        timeline: bool = False,
    ) -> None:
        self.table, self.policy, self.limits = table, policy, limits
        self._ranks = [Rank() for _ in range(table.ranks)]
        self.lanes = [Lane([Cell(rank) for rank in self._ranks]) for _ in range(table.stages)]
        self.cells = [cell for lane in self.lanes for cell in lane.cells]
        self.counters = Counters()
        self.gaps = GapRecorder()
        self.timeline: list[tuple[float, int, int, float]] = []
        """After every event, where it is asked for: seconds, requests that decode, that wait or are prefilled, cache
        tokens held."""
        self._keeps_timeline = timeline
        self._free_s = 0.0
        """When the first stage can take a micro-batch."""
        self._leaves_s = 0.0
        """When the last micro-batch leaves the last stage."""
        self._unsettled = 0
        """Steps of single micro-batches until those behind the last prompts are through, and rounds repeat."""
        self._on_finish = on_finish
        self._coming: deque[tuple[float, Request]] = deque()
        self._number = 0
        self._next_rank = 0

    def offer(self, request: Request) -> None:
        """A request that arrives, in order of arrival but for what tokenising a longer prompt takes."""
        seen = request.arrival_s + self.table.frontend_s + self.table.token_s * request.prompt
        request.to_compute = max(request.prompt - request.cached, 1)
        request.rounds_left = ceil((request.output - 1) / self.table.accepted_tokens)
        coming = self._coming
        place = len(coming)
        while place and coming[place - 1][0] > seen:
            place -= 1
        if place == len(coming):
            coming.append((seen, request))
        else:
            coming.insert(place, (seen, request))

    @property
    def outstanding(self) -> int:
        """Requests that were offered and have not ended."""
        return len(self._coming) + sum(rank.outstanding for rank in self._ranks)

    def advance(self, until_s: float = inf) -> None:
        """Run until nothing is left to do, or until every step that could start before `until_s` has."""
        lanes = self.lanes
        while True:
            lane = lanes[0] if len(lanes) == 1 else min(lanes, key=lambda x: x.ready_s)
            if lane.ready_s >= until_s:
                return
            self._arrive(lane.ready_s)
            now = max(lane.ready_s, self._free_s)
            finished = self._compose(lane)
            if finished is not None:
                self._prompt_step(lane, now, finished)
            elif lane.decoding:
                self._decode_steps(lane, now, until_s)
            elif not self._idle(lane, now, until_s):
                return

    def _idle(self, lane: Lane, now: float, until_s: float) -> bool:
        """A lane without work waits for the next arrival, or behind the lanes that have some; False: all is done."""
        others = [x.ready_s for x in self.lanes if x is not lane and any(c.decoding or c.prefilling for c in x.cells)]
        event = self._coming[0][0] if self._coming else inf
        behind = min(others, default=inf)
        if any(cell.prefilling for cell in self.cells):
            behind = min(behind, self._free_s)
        if min(event, behind) >= until_s:
            return False
        later = max(behind, now)
        lane.ready_s = event if event <= behind else max(later + 1e-9, nextafter(later, inf))
        return True

    def _arrive(self, now: float) -> None:
        coming, ranks = self._coming, self._ranks
        while coming and coming[0][0] <= now:
            request = coming.popleft()[1]
            rank = ranks[0]
            if len(ranks) > 1:
                start = self._next_rank
                self._next_rank = (start + 1) % len(ranks)
                rank = min(ranks[start:] + ranks[:start], key=lambda x: x.outstanding)
            rank.waiting.append(request)

    def _compose(self, lane: Lane) -> list[tuple[Cell, Request]] | None:
        """Give the lane's cells their prompt tokens of the next step; the prompts that end with it. None: there are
        none.
        """
        policy, limits, table = self.policy, self.limits, self.table
        if len(self._ranks) == 1 and not self._ranks[0].waiting and not any(c.prefilling for c in self.cells):
            return None
        finished: list[tuple[Cell, Request]] = []
        tokens = 0
        for place_of_rank, cell in enumerate(lane.cells):
            rank = cell.rank
            cell.tokens = cell.sampled = 0
            cell.attention_s = cell.through_s = 0.0
            if table.stages > 1:
                _take_over(cell, [x.cells[place_of_rank] for x in self.lanes])
            if not cell.prefilling and not rank.waiting:
                continue
            budget = policy.budget(cell, limits, table.step_tokens)
            seats = inf if table.stages == 1 else UNEVEN * rank.outstanding / table.stages + 1.0
            place = 0
            while budget > 0 and (
                place < len(cell.prefilling)
                or (cell.decoding + len(cell.prefilling) < seats and policy.admit(cell, limits))
            ):
                request = cell.prefilling[place]
                place += 1
                chunk = min(request.to_compute - request.computed, budget)
                before = request.cached + request.computed
                cell.attention_s += table.slowest.prompt_s.at(before, chunk)
                if table.stages > 1:
                    cell.through_s += table.through.prompt_s.at(before, chunk)
                request.computed += chunk
                budget -= chunk
                cell.tokens += chunk
                if request.computed >= request.to_compute:
                    cell.sampled += 1
                    finished.append((cell, request))
            tokens += cell.tokens
        return finished if tokens else None

    def _run(self, lane: Lane, now: float, *, decodes: bool) -> float:
        """Seconds of the lane's next step."""
        slowest = step_s(self.table, lane.cells, decodes=decodes)
        if self.table.stages == 1:
            return slowest
        return self._behind_s(now, slowest, step_s(self.table, lane.cells, decodes=decodes, through=True))

    def _behind_s(self, now: float, slowest: float, through: float) -> float:
        """Seconds of a micro-batch behind those that are in the pipeline; the last stage is the slowest one.

        Whoever catches up with another one on its way leaves behind it, on whichever stage that is.
        """
        self._free_s = now + (through - slowest) / (self.table.stages - 1)
        self._leaves_s = max(now + through, self._leaves_s + slowest)
        return self._leaves_s - now

    def _prompt_step(self, lane: Lane, now: float, finished: list[tuple[Cell, Request]]) -> None:
        """One step with prompts in it."""
        table, mixes = self.table, self.policy.mixes
        seconds = self._run(lane, now, decodes=mixes)
        ends = now + seconds
        # further chunks of a prompt follow through the stages one behind the other
        chunked = any(request.computed < request.to_compute for cell in lane.cells for request in cell.prefilling)
        lane.ready_s = self._free_s if chunked and table.stages > 1 and not lane.decoding else ends
        counters = self.counters
        counters.steps += 1
        counters.prompt_steps += 1
        if table.stages > 1:
            self._unsettled = len(self.lanes)
        counters.busy_s += seconds
        for cell in lane.cells:
            cell.tokens = cell.sampled = 0
        handed = ends + table.handover_steps * self._following_s(lane, finished)
        if mixes:
            self._decoded(lane, now, Steps(1, seconds), handed)
        for cell, request in finished:
            self._begin(lane, cell, request, ends, handed)
        self._note(ends)

    def _following_s(self, lane: Lane, finished: list[tuple[Cell, Request]]) -> float:
        """Seconds of the step of decoding during which the tokens of a step with prompts are handed on."""
        if lane.decoding:
            return step_s(self.table, lane.cells, decodes=True)
        begun = {id(cell): Cell() for cell, _ in finished}
        for cell, request in finished:
            begun[id(cell)].decoding += 1
            begun[id(cell)].context += request.cached + request.to_compute
        return step_s(self.table, list(begun.values()), decodes=True) if begun else 0.0

    def _decode_steps(self, lane: Lane, now: float, until_s: float) -> None:
        """As many steps of decoding alone as nothing else happens in: of all lanes, where none has prompts."""
        table = self.table
        lanes = [x for x in self.lanes if x.decoding]
        blocked = [self.policy.blocked(rank, self.limits) for rank in self._ranks]
        together = not self._unsettled and (len(lanes) == 1 or self._quiet(blocked))
        if not together:
            lanes = [lane]
        count, first, slope = self._rounds(lanes) if together else (1, inf, 0.0)
        room = self._room(lane, lanes)
        if room < 1:
            return
        event = self._coming[0][0] if self._coming and not all(blocked) else inf
        if together:
            left_s = max(min(event, until_s) - now, 0.0)
            count = Steps(min(count, room), first, slope).until(left_s, whole=len(lanes) > 1)
        if count < 1:
            together, lanes, count = False, [lane], 1
        if not together and table.stages > 1:
            stage, through = (decode_pace(table, lane.cells, through=through).first_s for through in (False, True))
            first, slope = self._behind_s(now, stage, through), 0.0
            self._unsettled = max(self._unsettled - 1, 0)
        self._advance(lanes, now, Steps(count, first, slope))

    def _quiet(self, blocked: Sequence[bool]) -> bool:
        """Whether no prompt is computed, and none that waits finds room."""
        return not (
            any(cell.prefilling for cell in self.cells)
            or any(rank.waiting and not full for rank, full in zip(self._ranks, blocked, strict=True))
        )

    def _room(self, lane: Lane, lanes: Sequence[Lane]) -> int:
        """Steps of `lanes` for which there is cache; 0: there was not, and a request of `lane` has been preempted."""
        most = NEVER
        if self.policy.reserves_whole:
            return most
        for number, rank in enumerate(self._ranks):
            cell = lane.cells[number]
            if grows := sum(each.cells[number].decoding for each in lanes):
                room = int((self.limits.kv_tokens - rank.held) / (grows * self.table.accepted_tokens))
                if room < 1 and rank.running > 1 and cell.decoding:
                    self._preempt(lane, cell)
                    return 0
                most = min(most, max(room, 1))
        return most

    def _advance(self, lanes: Sequence[Lane], now: float, steps: Steps) -> None:
        """Some lanes run steps of decoding, of which the first begins now."""
        table, seconds = self.table, steps.seconds
        last = steps.first_s + steps.slope_s * (steps.count - 1)
        if table.stages > 1:
            last /= len(self.lanes)
        self.counters.steps += steps.count
        self.counters.busy_s += seconds
        if len(lanes) == 1:
            lanes[0].ready_s = now
        elif table.stages > 1:
            # rounds of all lanes: everything repeats so much later
            self._free_s += seconds
            self._leaves_s += seconds
        for each in lanes:
            began, each.ready_s = each.ready_s, each.ready_s + seconds
            self._decoded(each, began, steps, each.ready_s + table.handover_steps * last)
        self._note(now + seconds)

    def _rounds(self, lanes: Sequence[Lane]) -> tuple[int, float, float]:
        """Rounds in which every lane runs a step of decoding: how many there are until a sequence is through or they
        bend; seconds of the first; and by how much each further one is longer.
        """
        table = self.table
        for lane in lanes:
            while lane.ends[0][4].epoch != lane.ends[0][2]:
                heapq.heappop(lane.ends)
        count = min(lane.ends[0][0] - lane.decoded for lane in lanes)
        paces = [decode_pace(table, lane.cells) for lane in lanes]
        straight = min(pace.straight for pace in paces)
        if straight < count:
            count = max(ceil(straight), 1)
        if table.stages == 1:
            return count, paces[0].first_s, paces[0].slope_s
        stages = sum(pace.first_s for pace in paces), sum(pace.slope_s for pace in paces)
        return count, *max(stages, max(decode_pace(table, lane.cells, through=True)[:2] for lane in lanes))

    def _decoded(self, lane: Lane, began_s: float, steps: Steps, handed_s: float) -> None:
        """A lane's sequences have decoded for some steps; those that are through leave."""
        self._note_gaps(lane, began_s, steps)
        grown = steps.count * self.table.accepted_tokens
        lane.decoded += steps.count
        for cell in lane.cells:
            if cell.decoding:
                cell.context += grown * cell.decoding
                if not self.policy.reserves_whole:
                    cell.rank.held += grown * cell.decoding
        ends, now = lane.ends, lane.decoded
        while ends and ends[0][0] <= now:
            _, _, epoch, cell, request = heapq.heappop(ends)
            if request.epoch == epoch:
                self._leave(lane, cell, request)
                self._finish(request, handed_s)
        left = lane.decoding
        lane.since = [(left, began_s + steps.seconds)] if left else []

    def _note_gaps(self, lane: Lane, began_s: float, steps: Steps) -> None:
        """What the lane's sequences waited for the tokens of these steps."""
        ends_s = began_s + steps.first_s
        for count, since_s in lane.since:
            self.gaps.add(ends_s, ends_s - since_s, ends_s - since_s, count)
        if steps.count > 1:
            second, last = steps.first_s + steps.slope_s, steps.first_s + steps.slope_s * (steps.count - 1)
            self.gaps.add(began_s + steps.seconds, second, last, (steps.count - 1) * lane.decoding)

    def _finish(self, request: Request, handed_s: float) -> None:
        request.finish_s = handed_s
        if self._on_finish is not None:
            self._on_finish(request)

    def _leave(self, lane: Lane, cell: Cell, request: Request) -> None:
        """A decoding request gives its seat and its cache back."""
        grown = (lane.decoded - request.began) * self.table.accepted_tokens
        cell.decoding -= 1
        cell.context -= request.context + grown
        cell.rank.held -= request.reserved + (0.0 if self.policy.reserves_whole else grown)
        cell.rank.running -= 1
        if not cell.decoding:
            cell.context = 0.0
            cell.admitted.clear()

    def _begin(self, lane: Lane, cell: Cell, request: Request, ends_s: float, handed_s: float) -> None:
        """A prompt is computed: its first token goes out, and it decodes from now on."""
        if request.last_token_s < inf:
            self.gaps.add(ends_s, ends_s - request.last_token_s, ends_s - request.last_token_s, 1)
            request.last_token_s = inf
            request.rounds_left -= 1  # the pass that computes it again yields its next token
        cell.prefilling.remove(request)
        request.first_token_s = min(request.first_token_s, handed_s)
        if request.rounds_left == 0:
            cell.rank.held -= request.reserved
            cell.rank.running -= 1
            self._finish(request, handed_s)
            return
        request.context = float(request.cached + request.to_compute)
        request.began = lane.decoded
        lane.since.append((1, ends_s))
        cell.decoding += 1
        cell.context += request.context
        cell.admitted.append((request, request.epoch))
        self._number += 1
        heapq.heappush(lane.ends, (lane.decoded + request.rounds_left, self._number, request.epoch, cell, request))

    def _preempt(self, lane: Lane, cell: Cell) -> None:
        """The request that was admitted last waits again, before all others, and is computed anew."""
        while cell.admitted:
            request, epoch = cell.admitted.pop()
            if request.epoch == epoch and request.finish_s == inf:
                # whoever came last is the first to go
                count, request.last_token_s = lane.since.pop()
                if count > 1:
                    lane.since.append((count - 1, request.last_token_s))
                ran = lane.decoded - request.began
                self._leave(lane, cell, request)
                request.epoch += 1
                request.rounds_left -= ran
                request.to_compute = int(request.context + ran * self.table.accepted_tokens) - request.cached
                cell.rank.waiting.appendleft(request)
                self.counters.preemptions += 1
                return

    def _note(self, now: float) -> None:
        if not self._keeps_timeline:
            return
        decoding = prefilling = 0
        for cell in self.cells:
            decoding += cell.decoding
            prefilling += len(cell.prefilling)
        waiting = sum(len(rank.waiting) for rank in self._ranks)
        self.timeline.append((now, decoding, waiting + prefilling, sum(rank.held for rank in self._ranks)))


def _take_over(cell: Cell, of_rank: Sequence[Cell]) -> None:
    """The next chunk of a prompt goes with the next micro-batch of its rank, behind the one before."""
    for other in of_rank:
        if other.prefilling and other is not cell:
            cell.prefilling += other.prefilling
            other.prefilling.clear()
