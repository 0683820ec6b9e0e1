"""The same events as `Replica` runs them, for a replica of one cell, written out in local variables: ten times as
quick.

A replica without pipeline stages and attention-DP is one queue in front of one batch. Nothing is preempted here: a
replica whose cache may run out is `Replica`'s. A test holds the two against each other to the last digit but rounding.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import ceil, inf, sqrt

import numpy as np

from costmodel.plan.columns import Floats
from costmodel.simulation.requests import Requests
from costmodel.simulation.state import CellLimits
from costmodel.simulation.step_table import StepTable


def run_single(
    table: StepTable, requests: Requests, *, limits: CellLimits, mixes: bool
) -> tuple[Floats, Floats, float]:
    """First token and end of every request, shape `(num_requests,)`, and the time in which steps ran. Seconds.

    One function of many statements, and everything in local variables: that is what makes it quick.
    """
    # in the order in which the scheduler sees them, which is another one where a longer prompt is tokenised longer
    seen_s = requests.arrival_s + table.frontend_s + table.token_s * requests.prompt
    order = np.argsort(seen_s, kind="stable")
    ordered = requests.take(order)
    computed = np.maximum(ordered.prompt - ordered.cached, 1)
    to_compute, cached = computed.tolist(), ordered.cached.tolist()
    rounds = np.ceil((ordered.output - 1) / table.accepted_tokens).astype(np.int64).tolist()
    attention_s = table.slowest.prompt_s.of(ordered.cached, computed).tolist()
    seen = [*seen_s[order].tolist(), inf]
    n = len(to_compute)
    first, finish = [inf] * n, [inf] * n
    joined = [0] * n  # tokens that it attended to when it began to decode
    began = [0] * n  # steps of decoding that had been run then
    part = table.slowest
    rest, logits, prompt_at, piece = part.rest_s, part.logits_s.at, part.prompt_s.at, part.decode_s.piece
    step_host, seq_host = table.step_s, table.sequence_s
    scheduling, scheduling_seq = table.scheduling_s, table.scheduling_sequence_s
    floor, capture, handover = part.floor_s, table.capture_tokens, table.handover_steps
    accepted, verified = table.accepted_tokens, table.step_tokens
    draft, drafted = table.draft_frac, 1.0 + table.draft_frac
    batched_tokens, max_num_seqs = limits.batched_tokens, limits.max_num_seqs
    now, busy, context = 0.0, 0.0, 0.0
    decoded, batch = 0, 0
    heap: list[tuple[int, int]] = []
    arrived = 0  # requests that the scheduler has seen
    head = 0  # the first that has not been admitted
    open_, left = -1, 0  # a prompt that is computed in part, and its tokens that are not
    done: list[int] = []
    while True:
        while seen[arrived] <= now:
            arrived += 1
        if open_ < 0 and (head >= arrived or batch >= max_num_seqs):
            if batch == 0:
                if arrived >= n:
                    break
                now = seen[arrived]
                continue
            # decoding alone, until something ends or comes
            mean = context / batch
            value, slope, bend = piece(mean)
            tokens = int(batch * verified)
            a = drafted * (rest[tokens] + logits(tokens) + batch * value)
            b = drafted * slope * batch * accepted
            limit = (bend - mean) / accepted
            prepared = scheduling + scheduling_seq * batch
            if a < prepared:
                if b > 0.0 and (prepared - a) / b < limit:
                    limit = (prepared - a) / b
                a, b = prepared, 0.0
            a += step_host + seq_host * batch
            k = heap[0][0] - decoded
            if limit < k:
                k = max(ceil(limit), 1)
            if batch < max_num_seqs:
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
            now += seconds
            handed = now + handover * (a + b * (k - 1))
        else:
            # a step with prompts
            budget = batched_tokens - (int(batch * verified) if mixes else 0)
            prompts, attention = 0, 0.0
            done.clear()
            seats = batch
            while budget > 0:
                if open_ >= 0:
                    i = open_
                    chunk = left if left < budget else budget
                    attention += prompt_at(cached[i] + to_compute[i] - left, chunk)
                    left -= chunk
                    seats += 1
                    if left == 0:
                        done.append(i)
                        open_ = -1
                elif head < arrived and seats < max_num_seqs:
                    i = head
                    head += 1
                    seats += 1
                    chunk = to_compute[i]
                    if chunk <= budget:
                        attention += attention_s[i]
                        done.append(i)
                    else:
                        open_, left = i, chunk - budget
                        attention += prompt_at(cached[i], budget)
                        chunk = budget
                else:
                    break
                budget -= chunk
                prompts += chunk
            undisturbed = prepared = 0.0
            if batch:
                tokens = int(batch * verified)
                undisturbed = rest[tokens] + logits(tokens) + batch * piece(context / batch)[0]
                prepared = scheduling + scheduling_seq * batch
            decoding = batch if mixes else 0
            tokens = int(decoding * verified)
            seconds = rest[tokens + prompts] + logits(tokens + len(done)) + attention
            if decoding:
                seconds += decoding * piece(context / decoding)[0] + draft * undisturbed
            if tokens + prompts > capture and seconds < floor:
                seconds = floor
            if seconds < scheduling + scheduling_seq * decoding:
                seconds = scheduling + scheduling_seq * decoding
            seconds += step_host + seq_host * decoding
            now += seconds
            following = seconds if not batch else max(drafted * undisturbed, prepared) + step_host + seq_host * batch
            handed = now + handover * following
            if mixes and batch:
                decoded += 1
                context += accepted * batch
            for i in done:
                first[i] = handed
                if rounds[i] == 0:
                    finish[i] = handed
                    continue
                began[i] = decoded
                joined[i] = cached[i] + to_compute[i]
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
    return first_s, finish_s, busy
