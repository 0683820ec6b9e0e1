"""The events of a replica whose cache suffices, as one queue in front of one batch, written out in local variables.

For a replica of one cell these are the events of `Replica`, to the last digit but rounding. Attention-DP ranks are
taken to be balanced, as a router that looks at outstanding requests keeps them: the busiest has the mean number of
sequences, rounded up. Pipelines are left to `Replica`. Ten to twenty times as quick as it; tests hold the two against
each other.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import ceil, inf, sqrt

import numpy as np

from costmodel.plan.columns import Floats
from costmodel.simulation.requests import Requests
from costmodel.simulation.state import CellLimits
from costmodel.simulation.step_table import PartTables, StepTable
from costmodel.simulation.token_gaps import GapRecorder, TokenGaps


def run_single_queue(
    table: StepTable, requests: Requests, *, limits: CellLimits, mixes: bool
) -> tuple[Floats, Floats, float, TokenGaps]:
    """First token and end of every request, shape `(num_requests,)`, the time in which steps ran, and gaps. Seconds.

    One function of many statements, and everything in local variables: that is what makes it quick.
    """
    # in the order in which the scheduler sees them, which is another one where a longer prompt is tokenised longer
    seen_s = requests.arrival_s + table.frontend_s + table.token_s * requests.prompt
    order = np.argsort(seen_s, kind="stable")
    ordered = requests.take(order)
    computed = np.maximum(ordered.prompt - ordered.cached, 1)
    to_compute, cached = computed.tolist(), ordered.cached.tolist()
    ranks = table.ranks
    rounds = np.ceil((ordered.output - 1) / table.accepted_tokens).astype(np.int64).tolist()
    attention_s = table.slowest.prompt_s.of(ordered.cached, computed).tolist()
    seen = [*seen_s[order].tolist(), inf]
    n = len(to_compute)
    first, finish = [inf] * n, [inf] * n
    joined = [0] * n  # tokens that it attended to when it began to decode
    began = [0] * n  # slots of decoding that had been run then
    prompt_at, piece = table.slowest.prompt_s.at, table.slowest.decode_s.piece
    step_host, seq_host = table.step_s, table.sequence_s
    preparing = table.scheduling_sequence_s
    floor, capture, handover = table.slowest.floor_s, table.capture_tokens, table.handover_steps
    accepted, verified = table.accepted_tokens, table.step_tokens
    draft, drafted = table.draft_frac, 1.0 + table.draft_frac
    seats_most, rank_tokens = limits.max_num_seqs * ranks, limits.batched_tokens
    now, busy, context = 0.0, 0.0, 0.0
    decoded, batch = 0, 0
    heap: list[tuple[int, int]] = []
    arrived = 0  # requests that the scheduler has seen
    head = 0  # the first that has not been admitted
    open_, left = -1, 0  # a prompt that is computed in part, and its tokens that are not
    done: list[int] = []
    # without attention: by the number of decoding sequences, of all ranks
    batch_s = _batch_seconds(table, table.slowest, min(seats_most, n) + 1)
    rest, logits = table.slowest.rest_s, table.slowest.logits_s.at
    experts = None if table.slowest.experts_s is None else table.slowest.experts_s.at
    following = 0.0
    gaps = GapRecorder()
    gap_ends, gap_firsts, gap_lasts, gap_counts = (
        column.append for column in (gaps.end_s, gaps.first_s, gaps.last_s, gaps.count)
    )
    held_back: list[tuple[int, float]] = []  # sequences that prompts keep waiting, and when they had their last token

    while True:
        while seen[arrived] <= now:
            arrived += 1
        if batch:
            per = -(-batch // ranks)
            mean = context / batch
            value, slope, bend = piece(mean)
            a = drafted * (batch_s[batch] + per * value)
            b = drafted * slope * per * accepted
            prepared = preparing * per
        if open_ < 0 and (head >= arrived or batch >= seats_most):
            if batch == 0:
                if arrived >= n:
                    break
                now = seen[arrived]
                continue
            # decoding alone, until something ends or comes
            limit = (bend - mean) / accepted
            if a < prepared:
                if b > 0.0 and (prepared - a) / b < limit:
                    limit = (prepared - a) / b
                a, b = prepared, 0.0
            a += step_host + seq_host * per
            k = heap[0][0] - decoded
            if limit < k:
                k = max(ceil(limit), 1)
            if batch < seats_most:
                event = seen[arrived]
                if event < inf:
                    gap = event - now
                    half = a - 0.5 * b
                    exact = gap / a if b <= 1e-12 * a else (sqrt(half * half + 2.0 * b * gap) - half) / b
                    if exact < k:
                        k = max(ceil(exact - 1e-9), 1)
            seconds = k * a + 0.5 * b * k * (k - 1)
            decoded += k
            context += k * accepted * batch
            if held_back:
                # their first gap began before the prompts that went before them
                for count, since in held_back:
                    gap = now + a - since
                    gaps.add(now + a, gap, gap, count)
                held_back.clear()
                if k > 1:
                    gaps.add(now + seconds, a + b, a + b * (k - 1), (k - 1) * batch)
                now += seconds
            else:
                now += seconds
                gap_ends(now)
                gap_firsts(a)
                gap_lasts(a + b * (k - 1))
                gap_counts(k * batch)
            handed = now + handover * (a + b * (k - 1))
        else:
            # a step with prompts
            busiest = int(-(-batch // ranks) * verified) if mixes and batch else 0
            budget = (rank_tokens - busiest) * ranks
            prompts, most, attention, widest = 0, 0, 0.0, 0.0
            seats = batch
            while budget > 0:
                if open_ >= 0:
                    i = open_
                    chunk = min(left, budget, rank_tokens - busiest)
                    took = prompt_at(cached[i] + to_compute[i] - left, chunk)
                    left -= chunk
                    seats += 1
                    budget -= chunk
                    prompts += chunk
                    attention += took
                    widest, most = max(widest, took), max(most, chunk)
                    if left:
                        break
                    done.append(i)
                    open_ = -1
                elif head < arrived and seats < seats_most:
                    i = head
                    head += 1
                    chunk = to_compute[i]
                    if chunk > budget or chunk > rank_tokens - busiest:
                        open_, left = i, chunk
                        continue
                    seats += 1
                    budget -= chunk
                    prompts += chunk
                    took = attention_s[i]
                    attention += took
                    widest, most = max(widest, took), max(most, chunk)
                    done.append(i)
                else:
                    break
            if ranks > 1:
                widest, most = max(widest, attention / ranks), max(most, -(-prompts // ranks))
            else:
                widest, most = attention, prompts
            tokens = busiest + most
            sampled = busiest + -(-len(done) // ranks)
            seconds = rest[tokens] + logits(sampled) + widest
            group = max(prompts + (int(batch * verified) if mixes else 0), tokens)
            if experts is not None:
                seconds += experts(tokens, group)
            hosted = step_host
            if mixes and batch:
                seconds += per * value + draft * (batch_s[batch] + per * value)
                seconds = max(seconds, prepared)
                hosted += seq_host * per
            if tokens > capture and seconds < floor:
                seconds = floor
            seconds += hosted
            if batch and not mixes and not held_back:
                held_back.append((batch, now))
            now += seconds
            if batch:
                following = max(a, prepared) + step_host + seq_host * per
            elif done:
                # tokens are handed on while those that were prefilled take their first step of decoding
                count = len(done)
                each = -(-count // ranks)
                begun = sum(cached[i] + to_compute[i] for i in done) / count
                following = drafted * (batch_s[count] + each * piece(begun)[0])
                following = max(following, preparing * each) + step_host + seq_host * each
            handed = now + handover * following
            if mixes and batch:
                decoded += 1
                context += accepted * batch
                gap_ends(now)
                gap_firsts(seconds)
                gap_lasts(seconds)
                gap_counts(batch)
            for i in done:
                first[i] = handed
                if rounds[i] == 0:
                    finish[i] = handed
                    continue
                began[i] = decoded
                joined[i] = cached[i] + to_compute[i]
            if not mixes:
                joining = sum(1 for i in done if rounds[i])
                if joining:
                    held_back.append((joining, now))
        busy += seconds
        # who is through leaves
        while heap and heap[0][0] <= decoded:
            i = heappop(heap)[1]
            finish[i] = handed
            batch -= 1
            context -= joined[i] + (decoded - began[i]) * accepted
        for i in done:
            if rounds[i]:
                heappush(heap, (decoded + rounds[i], i))
                context += joined[i]
                batch += 1
        done.clear()
        if batch == 0:
            context = 0.0
    first_s, finish_s = np.empty(n), np.empty(n)
    first_s[order], finish_s[order] = first, finish
    return first_s, finish_s, busy, gaps.gaps()


def _batch_seconds(table: StepTable, part: PartTables, most: int) -> list[float]:
    """Kernels of a step of decoding, its attention left out, by the sequences that decode on all ranks of a replica."""
    batch = np.arange(most)
    per = -(-batch // table.ranks)
    tokens = (per * table.step_tokens).astype(np.int64)
    seconds = np.array(part.rest_s)[tokens] + part.logits_s.of(tokens)
    if part.experts_s is not None:
        group = np.maximum((batch * table.step_tokens).astype(np.int64), tokens)
        seconds = seconds + part.experts_s.of(tokens, group)
    return np.where(batch > 0, seconds, 0.0).tolist()
