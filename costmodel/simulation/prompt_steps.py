"""Which prompts the steps of a replica compute whose cache suffices, for both quick forms of its events."""

from __future__ import annotations

from costmodel.simulation.queue_inputs import QueueTables, RequestQueue, room_tokens
from costmodel.simulation.state import RankLimits


class PromptSteps:
    """Prompts in the order of their requests: a step goes on with those that are computed in part, then takes others.

    Attention-DP ranks are taken to be balanced: each has a token budget of its own and at most one prompt in part, and
    they share the tokens of a step, but for what one of them has alone.
    """

    __slots__ = ("_left", "_limits", "_most", "_queue", "_tables", "_took", "done", "head", "held", "opened")

    def __init__(self, tables: QueueTables, queue: RequestQueue, limits: RankLimits) -> None:
        self._tables, self._queue, self._limits = tables, queue, limits
        self._most = room_tokens(tables.table, limits)
        self.head = 0
        """The first request that has not been admitted."""
        self.held = 0
        """Cache tokens of those that have been, and have not ended."""
        self.opened: list[int] = []
        """Prompts that are computed in part."""
        self.done: list[int] = []
        """Prompts that end with the step; whoever reads them empties the list."""
        self._left: dict[int, int] = {}
        """Of each prompt that is computed in part, the tokens that are not."""
        self._took: list[tuple[int, int]] = []
        """Of each prompt of the step, tokens before it and its tokens, where the time through all stages is asked for.
        """

    def compose(self, arrived: int, seats: float, busiest: int, group: int) -> tuple[int, int, float] | None:  # noqa: PLR0915  # one loop, too hot for calls
        """The next step: its prompt tokens, those of the busiest rank with what decodes, and seconds of its kernels.

        Attention of what decodes and a floor are not counted; None: a request might not find cache.

        Args:
            arrived: requests that the scheduler has seen.
            seats: requests that may be admitted.
            busiest: tokens of sequences that decode beside the prompts, on the busiest rank.
            group: the same on all ranks.
        """
        tables, queue, done, left, took = self._tables, self._queue, self.done, self._left, self._took
        part, ranks = tables.table.slowest, tables.table.ranks
        whole, at, fresh = queue.context, part.prompt_s.at, part.prompt_s.rows[0]
        several = tables.table.stages > 1
        room = self._limits.batched_tokens - busiest
        budget = room * ranks
        going, head, turn = self.opened, self.head, 0
        opened = self.opened = []
        last = head + seats
        prompts = most = 0
        attention = widest = 0.0
        took.clear()
        while budget > 0:
            if turn < len(going):
                i = going[turn]
                turn += 1
                rest = left.pop(i)
            elif head < arrived and head < last:
                i = head
                head += 1
                self.held += queue.tokens[i]
                if self.held > self._most:
                    return None
                rest = queue.to_compute[i]
            else:
                break
            chunk = rest if rest < room else room
            if chunk > budget:
                chunk = budget
            before = whole[i] - rest
            seconds = at(before, chunk) if before else fresh[chunk]
            budget -= chunk
            prompts += chunk
            attention += seconds
            if seconds > widest:
                widest = seconds
            if chunk > most:
                most = chunk
            if several:
                took.append((before, chunk))
            if chunk < rest:
                left[i] = rest - chunk
                opened.append(i)
            else:
                done.append(i)
        self.head = head
        if turn < len(going):
            opened += going[turn:]
        ended = len(done)
        if ranks > 1:
            # ranks share prompts out, but for what one of them has alone
            tokens, ended = busiest + max(most, -(-prompts // ranks)), -(-ended // ranks)
            attention = max(widest, attention / ranks)
        else:
            tokens = busiest + prompts
        seconds = part.rest_s[tokens] + tables.logits_s[busiest + ended] + attention
        if part.experts_s is not None:
            seconds += part.experts_s.at(tokens, max(prompts + group, tokens))
        return prompts, tokens, seconds

    def through_s(self, prompts: int, tokens: int, busiest: int, group: int) -> float:
        """Seconds of the kernels of the step that was composed last, through all stages."""
        part, ranks = self._tables.table.through, self._tables.table.ranks
        at, fresh = part.prompt_s.at, part.prompt_s.rows[0]
        each = [at(before, chunk) if before else fresh[chunk] for before, chunk in self._took]
        attention, ended = sum(each), len(self.done)
        if ranks > 1:
            attention, ended = max(attention / ranks, *each), -(-ended // ranks)
        seconds = part.rest_s[tokens] + self._tables.through_logits_s[busiest + ended] + attention
        if part.experts_s is not None:
            seconds += part.experts_s.at(tokens, max(prompts + group, tokens))
        return seconds
