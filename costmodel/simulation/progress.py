"""How far the requests of a queue have come while one of the quick forms serves them."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import accumulate
from math import inf

from costmodel.simulation.queue_inputs import NEVER, QueueRun, RequestQueue
from costmodel.simulation.token_gaps import GapRecorder


class Progress:
    """When requests have had their tokens, and what those on their way hold of the cache.

    Sequences that decode together are a heap: of each, the count of steps of decoding at which it ends, times the
    number of all requests, plus its own number.
    """

    __slots__ = ("_accepted", "_began", "_finish", "_first", "_held", "_queue", "_released", "remaining")

    def __init__(self, queue: RequestQueue, accepted_tokens: float) -> None:
        """All are still to come; a step of decoding yields `accepted_tokens` of each sequence."""
        count = len(queue.context)
        self._queue, self._accepted = queue, accepted_tokens
        self._first, self._finish, self._began = [inf] * count, [inf] * count, [0] * count
        self._held, self._released = [0, *accumulate(queue.tokens)], 0
        self.remaining = queue.remaining
        """Requests still to be served whose times are asked for."""

    def held_tokens(self, admitted: int) -> int:
        """What the first so many requests hold of the cache, but for those that have ended."""
        return self._held[admitted] - self._released

    def join(self, ends: list[int], done: list[int], decoded: int, handed_s: float) -> tuple[int, float]:
        """Have requests whose prompts are `done` decode, in a batch that has `decoded` so many steps so far.

        Their first tokens come at `handed_s`, and with it the end of those that have no others. Returns how many decode
        from now on, and how many tokens they attend to.
        """
        queue, count = self._queue, len(self._first)
        joined, context = 0, 0.0
        for i in done:
            self._first[i] = handed_s
            if queue.rounds[i]:
                self._began[i] = decoded
                heappush(ends, (decoded + queue.rounds[i]) * count + i)
                context += queue.context[i]
                joined += 1
            else:
                self._end(i, handed_s)
        done.clear()
        return joined, context

    def leave(self, ends: list[int], decoded: int, handed_s: float) -> tuple[int, float]:
        """See off the sequences of a batch that end by `decoded` steps; their last tokens come at `handed_s`.

        Returns how many they are, and how many tokens they attended to.
        """
        queue, count = self._queue, len(self._first)
        through, left, context = (decoded + 1) * count, 0, 0.0
        while ends and ends[0] < through:
            i = heappop(ends) % count
            self._end(i, handed_s)
            context += queue.context[i] + (decoded - self._began[i]) * self._accepted
            left += 1
        return left, context

    def next_end(self, ends: list[int]) -> int:
        """The count of steps at which the first sequence of a batch ends."""
        return ends[0] // len(self._first) if ends else NEVER

    def run(self, busy_s: float, gaps: GapRecorder) -> QueueRun:
        """What came of them."""
        return QueueRun(first=self._first, finish=self._finish, busy_s=busy_s, gaps=gaps)

    def _end(self, i: int, handed_s: float) -> None:
        self._finish[i] = handed_s
        self._released += self._queue.tokens[i]
        self.remaining -= self._queue.counts[i]
