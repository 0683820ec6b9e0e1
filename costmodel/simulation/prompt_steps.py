"""Which prompts the steps of a replica compute whose cache suffices, for both quick forms of its events."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from costmodel.simulation.queue_inputs import QueueTables, RequestQueue
from costmodel.simulation.state import RankLimits

Compose = Callable[[int, float, int, int], tuple[int, int, int, float, float]]
"""From the first request that has not been admitted, the number below which others may be, and the tokens of sequences
that decode beside the prompts, on the busiest rank and on all: the first request that has not been admitted then; the
step's prompt tokens; its tokens on the busiest rank; and seconds of its kernels, on the slowest stage and through all
stages (0 where there is one). Attention of what decodes and a floor are not counted.
"""


def prompt_steps(  # noqa: PLR0915  # what the loop in it looks up, and that loop
    tables: QueueTables, queue: RequestQueue, limits: RankLimits, opened: list[int], done: list[int]
) -> Compose:
    """What composes one step after another, of prompts in the order of their requests.

    A step goes on with those that are computed in part, then takes others. Attention-DP ranks are taken to be balanced:
    each has a token budget of its own and at most one prompt in part, and they share the tokens of a step, but for what
    one of them has alone.

    All that does not change from step to step is looked up here, once.

    Args:
        tables: times of the plan's steps.
        queue: the requests.
        limits: of a rank.
        opened: an empty list, which holds the prompts that are computed in part.
        done: the same, of prompts that end with a step; whoever reads them empties it.
    """
    part, whole_pass, ranks = tables.table.slowest, tables.table.through, tables.table.ranks
    several = tables.table.stages > 1
    most_tokens, context, left = limits.batched_tokens, queue.context, queue.to_compute.copy()
    knots, rows, through_rows = part.prompt_s.before, part.prompt_s.rows, whole_pass.prompt_s.rows
    widths, last_knot = part.prompt_s.widths, len(knots) - 1
    fresh, through_fresh = rows[0], through_rows[0]
    rest_s, logits_s, experts_s = part.rest_s, tables.logits_s, part.experts_s
    through_rest_s, through_logits_s = whole_pass.rest_s, tables.through_logits_s
    through_experts_s = whole_pass.experts_s

    def compose(head: int, last: float, busiest: int, group: int) -> tuple[int, int, int, float, float]:  # noqa: PLR0915  # one loop, too hot for calls
        room = most_tokens - busiest
        budget = room * ranks
        going, turn = len(opened), 0
        cut = []
        prompts = most = 0
        attention = widest = through = through_widest = 0.0
        while budget > 0:
            if turn < going:
                i = opened[turn]
                turn += 1
            elif head < last:
                i = head
                head += 1
            else:
                break
            rest = left[i]
            chunk = rest if rest < room else room
            if chunk > budget:
                chunk = budget
            before = context[i] - rest
            if before:
                k = bisect_right(knots, before, 1, last_knot) - 1
                share = (before - knots[k]) / widths[k]
                low = rows[k][chunk]
                seconds = low + (rows[k + 1][chunk] - low) * share
            else:
                seconds = fresh[chunk]
            budget -= chunk
            prompts += chunk
            attention += seconds
            if seconds > widest:
                widest = seconds
            if chunk > most:
                most = chunk
            if several:
                if before:
                    low = through_rows[k][chunk]
                    seconds = low + (through_rows[k + 1][chunk] - low) * share
                else:
                    seconds = through_fresh[chunk]
                through += seconds
                if seconds > through_widest:
                    through_widest = seconds
            if chunk < rest:
                left[i] = rest - chunk
                cut.append(i)
            else:
                done.append(i)
        if going or cut:
            opened[:turn] = cut
        ended, tokens = len(done), busiest + prompts
        if ranks > 1:
            # ranks share prompts out, but for what one of them has alone
            tokens, ended = busiest + max(most, -(-prompts // ranks)), -(-ended // ranks)
            attention, through = max(widest, attention / ranks), max(through_widest, through / ranks)
        seconds = rest_s[tokens] + logits_s[busiest + ended] + attention
        if experts_s is not None:
            seconds += experts_s.at(tokens, max(prompts + group, tokens))
        if several:
            through += through_rest_s[tokens] + through_logits_s[busiest + ended]
            if through_experts_s is not None:
                through += through_experts_s.at(tokens, max(prompts + group, tokens))
        return head, prompts, tokens, seconds, through

    return compose
