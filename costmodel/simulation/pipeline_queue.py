"""The events of a replica with a pipeline whose cache suffices, written out in local variables as `single_queue` is.

These are the events of `Replica`, to the last digit but rounding: a micro-batch for each stage, all of them in front of
one queue. Attention-DP ranks are taken to be balanced. About fifteen times as quick; tests hold the two against each
other.
"""

from __future__ import annotations

from math import ceil, inf, nextafter

from costmodel.simulation.decode_steps import decode_steps
from costmodel.simulation.progress import Progress
from costmodel.simulation.prompt_steps import prompt_steps
from costmodel.simulation.queue_inputs import NEVER, QueueRun, QueueTables, RequestQueue, room_tokens
from costmodel.simulation.replica import UNEVEN
from costmodel.simulation.state import RankLimits, steps_within
from costmodel.simulation.token_gaps import RUN, GapRecorder


def run_pipeline_queue(tables: QueueTables, queue: RequestQueue, *, limits: RankLimits, mixes: bool) -> QueueRun | None:  # noqa: PLR0915  # one loop, too hot for calls
    """Serve requests; arguments and result as those of `run_single_queue`.

    One function of many statements for the sake of speed. Each round of its loop is what the micro-batch that is ready
    first does: a step with prompts, a step of decoding (or rounds of all micro-batches, where nothing else happens in
    them), or waiting for the next request or behind another micro-batch.
    """
    table, by_batch = tables.table, tables.slowest
    seen, whole, stages, ranks = queue.seen_s, queue.context, table.stages, table.ranks
    progress = Progress(queue, table.accepted_tokens)
    opened: list[int] = []
    done: list[int] = []
    compose = prompt_steps(tables, queue, limits, opened, done)
    decode_step = decode_steps(tables)
    room = room_tokens(table, limits)
    head = 0  # the first request that has not been admitted
    seats_most = limits.max_num_seqs * ranks
    alone_s, through_alone_s = by_batch.alone_s, tables.through.alone_s
    prepared_s, host_s, verified, group_verified = by_batch.limits
    first_step_s = tables.first_step_s
    floor, through_floor, capture = table.slowest.floor_s, table.through.floor_s, table.capture_tokens
    accepted, handover, step_host = table.accepted_tokens, table.handover_steps, table.step_s
    gaps = GapRecorder()
    record, run = gaps.runs.extend, RUN.pack
    every = range(stages)
    # of each micro-batch: when its last step is through all stages; steps of decoding so far; sequences that decode,
    # and what they attend to; a heap of these, and when the first ends; and how many had their last token when
    ready, decoded, batch, context = [0.0] * stages, [0] * stages, [0] * stages, [0.0] * stages
    heaps: list[list[int]] = [[] for _ in every]
    next_end = [NEVER] * stages
    since: list[list[tuple[int, float]]] = [[] for _ in every]
    free = leaves = busy = 0.0  # when the first stage can take a micro-batch, and the last one leaves the last stage
    unsettled = decoding = 0  # steps until rounds repeat; sequences of all micro-batches
    arrived = open_at = 0  # requests that the scheduler has seen; which micro-batch has prompts in part
    between = stages - 1
    crowded = -inf  # the request before which no round of all micro-batches ends, which only grow until it comes

    def leave(x: int, handed: float) -> int:
        """See off the sequences of a micro-batch that end; how many they are."""
        left, attended = progress.leave(heaps[x], decoded[x], handed)
        batch[x] -= left
        context[x] = context[x] - attended if batch[x] else 0.0
        next_end[x] = progress.next_end(heaps[x])
        return left

    while progress.remaining:
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
            if progress.held_tokens(head) > room:
                return None
        if own:
            kernels, own_s, own_slope, limit, through_kernels, through_s, through_slope = decode_step(own, context[m])
        if computed:
            beside = mixes and own
            if beside:
                seconds += kernels - alone_s[own]
                through += through_kernels - through_alone_s[own]
                prepared = prepared_s[own]
                if seconds < prepared:
                    seconds = prepared
                if through < prepared:
                    through = prepared
            if step_tokens > capture:
                if seconds < floor:
                    seconds = floor
                if through < through_floor:
                    through = through_floor
            hosted = host_s[own] if beside else step_host
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
                handed = ends + handover * own_s
            elif done:
                handed = ends + handover * first_step_s(done, whole)
            else:
                handed = ends
            if beside:
                gaps.add_first(since[m], ends)
                decoded[m] += 1
                context[m] += accepted * own
            if mixes:
                if decoded[m] >= next_end[m]:
                    decoding -= leave(m, handed)
                since[m] = [(batch[m], ends)] if batch[m] else []
            if done:
                joined, attended = progress.join(heaps[m], done, decoded[m], handed)
                if joined:
                    batch[m] += joined
                    decoding += joined
                    context[m] += attended
                    next_end[m] = progress.next_end(heaps[m])
                    since[m].append((joined, ends))
            continue
        if not own:
            # without work: until the next request, or behind the micro-batches that have some
            others = [ready[x] for x in every if x != m and (batch[x] or (opened and open_at == x))]
            behind = min([*others, free if opened else inf])
            event = seen[arrived]
            if event <= behind:
                if event == inf:
                    break
                ready[m] = event
            else:
                later = behind if behind > now else now
                ready[m] = max(later + 1e-9, nextafter(later, inf))
            continue
        lanes, count = [m], 0
        alone, full = own == decoding, decoding + len(opened) >= seats_most
        event = seen[arrived]
        if not unsettled and event != crowded and (alone or (not opened and (head >= arrived or full))):
            # rounds of all micro-batches, until something ends or comes, or attention bends
            step, slope, longest, its_slope = own_s, own_slope, through_s, through_slope
            count = next_end[m] - decoded[m]
            if not alone:
                lanes = [x for x in every if batch[x]]
                for x in lanes:
                    if x == m:
                        continue
                    if next_end[x] - decoded[x] < count:
                        count = next_end[x] - decoded[x]
                    _, other_s, other_slope, bend, _, whole_s, whole_slope = decode_step(batch[x], context[x])
                    if bend < limit:
                        limit = bend
                    step += other_s
                    slope += other_slope
                    if whole_s > longest or (whole_s == longest and whole_slope > its_slope):
                        longest, its_slope = whole_s, whole_slope
            if longest > step or (longest == step and its_slope > slope):
                step, slope = longest, its_slope
            if limit < count:
                count = ceil(limit) or 1
            if event < inf and (count > 1 or not alone) and not full:
                gap = event - now if event > now else 0.0
                exact = steps_within(gap, step, slope)
                by_event = (ceil(exact - 1e-9) or 1) if alone else int(exact)
                if by_event < count:
                    count = by_event
                    if not count:
                        crowded = event
        if count:
            seconds = count * step + 0.5 * slope * count * (count - 1)
            last = step + slope * (count - 1)
            if alone:
                ready[m] = now
            else:
                free += seconds
                leaves += seconds
        else:
            # one step of this micro-batch
            lanes, count = [m], 1
            free = now + (through_s - own_s) / between
            leaves = leaves + own_s if leaves + own_s > now + through_s else now + through_s
            seconds = step = last = leaves - now
            if unsettled:
                unsettled -= 1
            ready[m] = now
        busy += seconds
        for x in lanes:
            begins = ready[x]
            ends = ready[x] = begins + seconds
            size, held_back = batch[x], since[x]
            if held_back[-1][1] == begins and len(held_back) == 1:
                record(run(ends, step, last, count * size))
            else:
                # a first gap began before what kept these sequences waiting
                gaps.add_first(held_back, begins + step)
                if count > 1:
                    gaps.add(ends, step + slope, last, (count - 1) * size)
            decoded[x] += count
            context[x] += count * accepted * size
            if decoded[x] >= next_end[x]:
                crowded = -inf
                decoding -= leave(x, ends + handover * last / stages)
            since[x] = [(batch[x], ends)] if batch[x] else []
    return progress.run(busy, gaps)
