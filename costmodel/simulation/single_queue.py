"""The events of a replica whose cache suffices, as one queue in front of one batch, written out in local variables.

For a replica of one cell these are the events of `Replica`, to the last digit but rounding. Attention-DP ranks are
taken to be balanced, as a router that looks at outstanding requests keeps them: the busiest has the mean number of
sequences, rounded up. Pipelines are left to `Replica`. Twenty times as quick, about; tests hold the two against
each other.
"""

from __future__ import annotations

from bisect import bisect_right
from math import ceil, inf

from costmodel.simulation.progress import Progress
from costmodel.simulation.prompt_steps import prompt_steps
from costmodel.simulation.queue_inputs import NEVER, QueueRun, QueueTables, RequestQueue, room_tokens
from costmodel.simulation.state import RankLimits, steps_within
from costmodel.simulation.token_gaps import RUN, GapRecorder


def run_single_queue(tables: QueueTables, queue: RequestQueue, *, limits: RankLimits, mixes: bool) -> QueueRun | None:  # noqa: PLR0915  # one loop, too hot for calls
    """Serve requests that find cache whenever they find a seat; None: one of them might not.

    One function of many statements, and everything in local variables and lists: that is what makes it quick. Each
    round of its loop is either a run of decode steps in which nothing else happens, or one step with prompts; then
    those that are through leave, and those whose prompts are computed begin to decode.
    """
    table, by_batch = tables.table, tables.slowest
    seen, whole = queue.seen_s, queue.context
    n = len(whole)
    progress = Progress(queue, table.accepted_tokens)
    opened: list[int] = []
    done: list[int] = []
    compose = prompt_steps(tables, queue, limits, opened, done)
    room = room_tokens(table, limits)
    head = 0  # the first request that has not been admitted
    seats_most = limits.max_num_seqs * table.ranks
    alone_s, kernels_s, per_context_s = by_batch.alone_s, by_batch.kernels_s, by_batch.per_context_s
    prepared_s, host_s, verified, group_verified = by_batch.limits
    knots, values, slopes = table.slowest.decode_s.knots, table.slowest.decode_s.values, table.slowest.decode_s.slopes
    ends = [*knots[1:], inf]
    first_step_s = tables.first_step_s
    step_host, floor, capture = table.step_s, table.slowest.floor_s, table.capture_tokens
    accepted, handover = table.accepted_tokens, table.handover_steps
    gaps = GapRecorder()
    record, run = gaps.runs.extend, RUN.pack
    held_back: list[tuple[int, float]] = []  # sequences that prompts keep waiting, and when they had their last token
    now = busy = 0.0
    decoded, batch, context = 0, 0, 0.0  # steps of decoding so far; sequences that decode, and what they attend to
    heap: list[int] = []  # of what decodes, and the count of steps at which the first of it ends
    next_end = NEVER
    arrived = 0  # requests that the scheduler has seen
    knot, bend = inf, -inf  # the piece of decoding attention that the mean context lies in
    value = slope = 0.0

    while progress.remaining:
        while seen[arrived] <= now:
            arrived += 1
        if batch:
            mean = context / batch
            if not knot <= mean < bend:
                i = bisect_right(knots, mean) - 1
                knot, bend, value, slope = knots[i], ends[i], values[i], slopes[i]
            # kernels of a step of decoding, and by how much each further one is longer
            per_context = per_context_s[batch]
            a = kernels_s[batch] + per_context * (value + slope * (mean - knot))
            b = per_context * slope * accepted
        if not opened and (head >= arrived or batch >= seats_most):
            if not batch:
                if arrived >= n:
                    break
                now = seen[arrived]
                continue
            # decoding alone, until something ends or comes, or attention bends
            limit = (bend - mean) / accepted
            if a < prepared_s[batch]:
                prepared = prepared_s[batch]
                if b > 0.0 and (prepared - a) / b < limit:
                    limit = (prepared - a) / b
                a, b = prepared, 0.0
            a += host_s[batch]
            k = next_end - decoded
            if limit < k:
                k = ceil(limit) or 1
            seconds = k * a + 0.5 * b * k * (k - 1)
            if batch < seats_most:
                gap = seen[arrived] - now
                if seconds > gap:
                    exact = steps_within(gap, a, b)
                    if exact < k:
                        k = ceil(exact - 1e-9) or 1
                        seconds = k * a + 0.5 * b * k * (k - 1)
            last = a + b * (k - 1)
            decoded += k
            context += k * accepted * batch
            if held_back:
                # their first gap began before the prompts that went before them
                gaps.add_first(held_back, now + a)
                held_back.clear()
                if k > 1:
                    gaps.add(now + seconds, a + b, last, (k - 1) * batch)
                now += seconds
            else:
                now += seconds
                record(run(now, a, last, k * batch))
            handed = now + handover * last
        else:
            # a step with prompts
            busiest = verified[batch] if mixes else 0
            group = group_verified[batch] if mixes else 0
            last_seat = head + seats_most - batch - len(opened)
            head, _, step_tokens, seconds, _ = compose(
                head, last_seat if last_seat < arrived else arrived, busiest, group
            )
            if progress.held_tokens(head) > room:
                return None
            if not batch:
                if step_tokens > capture and seconds < floor:
                    seconds = floor
                seconds += step_host
                now += seconds
                # tokens are handed on while those that were prefilled take their first step of decoding
                handed = now + handover * first_step_s(done, whole) if done else now
            else:
                following = (a if a > prepared_s[batch] else prepared_s[batch]) + host_s[batch]
                if mixes:
                    # attention of what decodes, and its drafts
                    seconds += a - alone_s[batch]
                    if seconds < prepared_s[batch]:
                        seconds = prepared_s[batch]
                    if step_tokens > capture and seconds < floor:
                        seconds = floor
                    seconds += host_s[batch]
                    now += seconds
                    decoded += 1
                    context += accepted * batch
                    record(run(now, seconds, seconds, batch))
                else:
                    if step_tokens > capture and seconds < floor:
                        seconds = floor
                    if not held_back:
                        held_back.append((batch, now))
                    seconds += step_host
                    now += seconds
                handed = now + handover * following
        busy += seconds
        if decoded >= next_end:
            left, attended = progress.leave(heap, decoded, handed)
            batch -= left
            context = context - attended if batch else 0.0
            next_end = progress.next_end(heap)
        if done:
            joined, attended = progress.join(heap, done, decoded, handed)
            if joined:
                batch += joined
                context += attended
                next_end = progress.next_end(heap)
                if not mixes:
                    held_back.append((joined, now))
    return progress.run(busy, gaps)
