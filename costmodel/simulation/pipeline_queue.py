"""The events of a replica with a pipeline whose cache suffices, written out in local variables as `single_queue` is.

These are the events of `Replica`, to the last digit but rounding: a micro-batch for each stage, all of them in front of
one queue. Attention-DP ranks are taken to be balanced. About fifteen times as quick; tests hold the two against each
other.
"""

from __future__ import annotations

from bisect import bisect_right
from heapq import heappop, heappush
from itertools import accumulate
from math import ceil, inf, nextafter, sqrt

from costmodel.simulation.prompt_steps import prompt_steps
from costmodel.simulation.queue_inputs import NEVER, QueueRun, QueueTables, RequestQueue, room_tokens
from costmodel.simulation.replica import UNEVEN
from costmodel.simulation.state import RankLimits
from costmodel.simulation.token_gaps import GapRecorder


def run_pipeline_queue(tables: QueueTables, queue: RequestQueue, *, limits: RankLimits, mixes: bool) -> QueueRun | None:  # noqa: PLR0915  # one loop, too hot for calls
    """Serve requests; arguments and result as those of `run_single_queue`.

    One function of many statements for the sake of speed. Each round of its loop is what the micro-batch that is ready
    first does: a step with prompts, a step of decoding (or rounds of all micro-batches, where nothing else happens in
    them), or waiting for the next request or behind another micro-batch.
    """
    table, by_batch, through_batch = tables.table, tables.slowest, tables.through
    seen, whole, rounds, tokens = queue.seen_s, queue.context, queue.rounds, queue.tokens
    n, stages, ranks = len(whole), table.stages, table.ranks
    counts, remaining = queue.counts, queue.remaining
    first, finish = [inf] * n, [inf] * n
    began = [0] * n
    opened: list[int] = []
    done: list[int] = []
    compose = prompt_steps(tables, queue, limits, opened, done)
    held, released, room = [0, *accumulate(tokens)], 0, room_tokens(table, limits)  # cache of the first requests
    head = 0  # the first request that has not been admitted
    seats_most = limits.max_num_seqs * ranks
    alone_s, kernels_s, per_context_s = by_batch.alone_s, by_batch.kernels_s, by_batch.per_context_s
    through_alone_s, through_kernels_s = through_batch.alone_s, through_batch.kernels_s
    prepared_s, host_s, verified, group_verified = by_batch.limits
    line, through_line = table.slowest.decode_s, table.through.decode_s
    knots, values, slopes, bends = line.knots, line.values, line.slopes, [*line.knots[1:], inf]
    through_knots, through_values, through_slopes = through_line.knots, through_line.values, through_line.slopes
    bend, through_bend = bends[0], through_line.knots[1]
    first_step_s = tables.first_step_s
    floor, through_floor, capture = table.slowest.floor_s, table.through.floor_s, table.capture_tokens
    accepted, handover, step_host = table.accepted_tokens, table.handover_steps, table.step_s
    gaps = GapRecorder()
    gap_ends, gap_firsts, gap_lasts, gap_counts = (
        column.append for column in (gaps.end_s, gaps.first_s, gaps.last_s, gaps.count)
    )
    every = range(stages)
    # of each micro-batch: when its last step is through all stages; steps of decoding so far; sequences that decode,
    # and what they attend to; a heap of these as in `single_queue`; and how many had their last token when
    ready, decoded, batch, context = [0.0] * stages, [0] * stages, [0] * stages, [0.0] * stages
    heaps: list[list[int]] = [[] for _ in every]
    next_end = [NEVER] * stages
    since: list[list[tuple[int, float]]] = [[] for _ in every]
    free = leaves = busy = 0.0  # when the first stage can take a micro-batch, and the last one leaves the last stage
    unsettled = decoding = 0  # steps until rounds repeat; sequences of all micro-batches
    arrived = open_at = 0  # requests that the scheduler has seen; which micro-batch has prompts in part
    between = stages - 1
    crowded = -inf  # the request before which no round of all micro-batches ends, which only grow until it comes

    while remaining:
        at = min(ready)
        m = ready.index(at)
        while seen[arrived] <= at:
            arrived += 1
        now = at if at > free else free
        own = batch[m]
        computed = 0
        partial = len(opened)
        if partial or head < arrived:
            # this micro-batch takes those that are computed in part, and no more requests than are its part of all
            open_at = m
            running = decoding + partial
            even = UNEVEN * (arrived - head + running) / stages + ranks
            busiest, group = (verified[own], group_verified[own]) if mixes else (0, 0)
            last_seat = head + min(even - own - partial, seats_most - running)
            head, computed, step_tokens, seconds, through = compose(
                head, last_seat if last_seat < arrived else arrived, busiest, group
            )
            if held[head] - released > room:
                return None
        if own:
            mean, per_context = context[m] / own, per_context_s[own]
            k = 0 if mean < bend else bisect_right(knots, mean) - 1
            slope, limit = per_context * slopes[k] * accepted, (bends[k] - mean) / accepted
            a = kernels_s[own] + per_context * (values[k] + slopes[k] * (mean - knots[k]))
            k = 0 if mean < through_bend else bisect_right(through_knots, mean) - 1
            through_slope = per_context * through_slopes[k] * accepted
            a_through = through_kernels_s[own] + per_context * (
                through_values[k] + through_slopes[k] * (mean - through_knots[k])
            )
            prepared, host = prepared_s[own], host_s[own]
        if computed:
            beside = mixes and own
            if beside:
                seconds += a - alone_s[own]
                through += a_through - through_alone_s[own]
                if seconds < prepared:
                    seconds = prepared
                if through < prepared:
                    through = prepared
            if step_tokens > capture:
                if seconds < floor:
                    seconds = floor
                if through < through_floor:
                    through = through_floor
            hosted = host if beside else step_host
            seconds += hosted
            through += hosted
            # whoever catches up with another one on its way leaves behind it
            free = now + (through - seconds) / between
            leaves = leaves + seconds if leaves + seconds > now + through else now + through
            ends = leaves
            ready[m] = free if opened and not own else ends
            unsettled = stages
            crowded = -inf
            busy += ends - now
            if own:
                handed = ends + handover * ((a if a > prepared else prepared) + host)
            elif done:
                handed = ends + handover * first_step_s(done, whole)
            else:
                handed = ends
            if beside:
                for count, since_s in since[m]:
                    gap_ends(ends)
                    gap_firsts(ends - since_s)
                    gap_lasts(ends - since_s)
                    gap_counts(count)
                decoded[m] += 1
                context[m] += accepted * own
            if mixes:
                if decoded[m] >= next_end[m]:
                    heap, through_count = heaps[m], (decoded[m] + 1) * n
                    while heap and heap[0] < through_count:
                        i = heappop(heap) % n
                        finish[i] = handed
                        released += tokens[i]
                        remaining -= counts[i]
                        batch[m] -= 1
                        decoding -= 1
                        context[m] -= whole[i] + (decoded[m] - began[i]) * accepted
                    next_end[m] = heap[0] // n if heap else NEVER
                    if not batch[m]:
                        context[m] = 0.0
                since[m] = [(batch[m], ends)] if batch[m] else []
            if done:
                joining = batch[m]
                for i in done:
                    first[i] = handed
                    if rounds[i]:
                        began[i] = decoded[m]
                        heappush(heaps[m], (decoded[m] + rounds[i]) * n + i)
                        context[m] += whole[i]
                        batch[m] += 1
                    else:
                        finish[i] = handed
                        released += tokens[i]
                        remaining -= counts[i]
                if batch[m] > joining:
                    decoding += batch[m] - joining
                    next_end[m] = heaps[m][0] // n
                    since[m].append((batch[m] - joining, ends))
                done.clear()
            continue
        if not own:
            # without work: until the next request, or behind the micro-batches that have some
            behind = inf
            for x in every:
                if x != m and (batch[x] or (opened and open_at == x)) and ready[x] < behind:
                    behind = ready[x]
            if opened and free < behind:
                behind = free
            event = seen[arrived]
            if event <= behind:
                if event == inf:
                    break
                ready[m] = event
            else:
                later = behind if behind > now else now
                ready[m] = max(later + 1e-9, nextafter(later, inf))
            continue
        lanes, count, together = [m], 1, False
        alone, full = own == decoding, decoding + len(opened) >= seats_most
        event = seen[arrived]
        if not unsettled and event != crowded and (alone or (not opened and (head >= arrived or full))):
            # rounds of all micro-batches, until something ends or comes, or attention bends
            count = next_end[m] - decoded[m]
            step, through = (
                (a if a > prepared else prepared) + host,
                (a_through if a_through > prepared else prepared) + host,
            )
            if a < prepared:
                if slope > 0.0 and (prepared - a) / slope < limit:
                    limit = (prepared - a) / slope
                slope = 0.0
            if a_through < prepared:
                through_slope = 0.0
            if not alone:
                lanes = [x for x in every if batch[x]]
                for x in lanes:
                    if x == m:
                        continue
                    if next_end[x] - decoded[x] < count:
                        count = next_end[x] - decoded[x]
                    size = batch[x]
                    mean, per_context, other_prepared = context[x] / size, per_context_s[size], prepared_s[size]
                    k = 0 if mean < bend else bisect_right(knots, mean) - 1
                    other_slope = per_context * slopes[k] * accepted
                    other = kernels_s[size] + per_context * (values[k] + slopes[k] * (mean - knots[k]))
                    if (bends[k] - mean) / accepted < limit:
                        limit = (bends[k] - mean) / accepted
                    if other < other_prepared:
                        if other_slope > 0.0 and (other_prepared - other) / other_slope < limit:
                            limit = (other_prepared - other) / other_slope
                        other, other_slope = other_prepared, 0.0
                    step += other + host_s[size]
                    slope += other_slope
                    k = 0 if mean < through_bend else bisect_right(through_knots, mean) - 1
                    other_slope = per_context * through_slopes[k] * accepted
                    other = through_kernels_s[size] + per_context * (
                        through_values[k] + through_slopes[k] * (mean - through_knots[k])
                    )
                    if other < other_prepared:
                        other, other_slope = other_prepared, 0.0
                    other += host_s[size]
                    if other > through or (other == through and other_slope > through_slope):
                        through, through_slope = other, other_slope
            if through > step or (through == step and through_slope > slope):
                step, slope = through, through_slope
            if limit < count:
                count = ceil(limit) or 1
            if event < inf and (count > 1 or not alone) and not full:
                gap = event - now if event > now else 0.0
                half = step - 0.5 * slope
                exact = gap / step if slope <= 1e-12 * step else (sqrt(half * half + 2.0 * slope * gap) - half) / slope
                by_event = (ceil(exact - 1e-9) or 1) if alone else int(exact)
                if by_event < count:
                    count = by_event
                    if not count:
                        crowded = event
            if count:
                together = True
                seconds = count * step + 0.5 * slope * count * (count - 1)
                longest = step + slope * (count - 1)
                if alone:
                    ready[m] = now
                else:
                    free += seconds
                    leaves += seconds
        if not together:
            # one step of this micro-batch
            lanes, count = [m], 1
            step = (a if a > prepared else prepared) + host
            through = (a_through if a_through > prepared else prepared) + host
            free = now + (through - step) / between
            leaves = leaves + step if leaves + step > now + through else now + through
            seconds = step = longest = leaves - now
            if unsettled:
                unsettled -= 1
            ready[m] = now
        busy += seconds
        for x in lanes:
            begins = ready[x]
            ends = ready[x] = begins + seconds
            size, held_back = batch[x], since[x]
            if held_back[-1][1] == begins and len(held_back) == 1:
                gap_ends(ends)
                gap_firsts(step)
                gap_lasts(longest)
                gap_counts(count * size)
            else:
                # a first gap began before what kept these sequences waiting
                token_s = begins + step
                for waited, since_s in held_back:
                    gap_ends(token_s)
                    gap_firsts(token_s - since_s)
                    gap_lasts(token_s - since_s)
                    gap_counts(waited)
                if count > 1:
                    gap_ends(ends)
                    gap_firsts(step + slope)
                    gap_lasts(longest)
                    gap_counts((count - 1) * size)
            decoded[x] += count
            context[x] += count * accepted * size
            if decoded[x] >= next_end[x]:
                crowded = -inf
                handed = ends + handover * longest / stages
                heap, through_count = heaps[x], (decoded[x] + 1) * n
                while heap and heap[0] < through_count:
                    i = heappop(heap) % n
                    finish[i] = handed
                    released += tokens[i]
                    batch[x] -= 1
                    decoding -= 1
                    remaining -= counts[i]
                    context[x] -= whole[i] + (decoded[x] - began[i]) * accepted
                next_end[x] = heap[0] // n if heap else NEVER
                if not batch[x]:
                    context[x] = 0.0
            since[x] = [(batch[x], ends)] if batch[x] else []
    return QueueRun(first=first, finish=finish, busy_s=busy, gaps=gaps)
