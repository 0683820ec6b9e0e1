"""The same events as `Replica` runs them, for a replica of one cell, written out in local variables: ten times as
quick.

A replica without pipeline stages and attention-DP is one queue in front of one batch. Nothing is preempted here: a
replica whose cache may run out is `Replica`'s. A test holds the two against each other to the last digit but rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from math import ceil, inf, sqrt

from costmodel.plan.columns import Floats
from costmodel.simulation.step_table import StepTable


def run_single(
    table: StepTable,
    *,
    seen_s: Floats,
    to_compute: Sequence[int],
    cached: Sequence[int],
    rounds: Sequence[int],
    attention_s: Sequence[float],
    batched_tokens: int,
    max_num_seqs: int,
    mixes: bool,
) -> tuple[list[float], list[float]]:
    """First token and end of every request, seconds, in the order given, which is that of `seen_s`.

    `attention_s`: attention of the whole prompt as one chunk; where a prompt is cut, its chunks are looked up.
    """
    n = len(to_compute)
    first = [inf] * n
    finish = [inf] * n
    part = table.slowest
    rest, logits, prompt_at, piece = part.rest_s, part.logits_s, part.prompt_s.at, part.decode_s.piece
    step_host, seq_host = table.step_s, table.sequence_s
    floor, capture, handover = part.floor_s, table.capture_tokens, table.handover_steps
    accepted, verified = table.accepted_tokens, table.step_tokens
    seen = seen_s.tolist()
    seen.append(inf)
    now, decoded, batch, context = 0.0, 0, 0, 0.0
    heap: list[tuple[int, int]] = []
    arrived = 0  # requests that the scheduler has seen
    head = 0  # the first that has not been admitted
    open_ = -1  # a prompt that is computed in part
    left = 0
    joined: list[int] = [0] * n  # tokens that it attended to when it began to decode
    began: list[int] = [0] * n  # steps of decoding that had been run then
    newly = 0

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
            a = rest[tokens] + logits.at(tokens) + batch * value + step_host + seq_host * batch
            b = slope * batch * accepted
            k = heap[0][0] - decoded
            limit = (bend - mean) / accepted
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
            now += k * a + 0.5 * b * k * (k - 1)
            decoded += k
            context += k * accepted * batch
            handed = now + handover * (a + b * (k - 1))
        else:
            # a step with prompts
            budget = batched_tokens - (int(batch * verified) if mixes else 0)
            prompts, attention = 0, 0.0
            done: list[int] = []
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
            decoding = batch if mixes else 0
            tokens = int(decoding * verified)
            seconds = rest[tokens + prompts] + logits.at(tokens + len(done)) + attention
            if decoding:
                seconds += decoding * piece(context / decoding)[0]
            if tokens + prompts > capture and seconds < floor:
                seconds = floor
            seconds += step_host + seq_host * decoding
            now += seconds
            if batch:
                tokens = int(batch * verified)
                handed = now + handover * (
                    rest[tokens] + logits.at(tokens) + batch * piece(context / batch)[0] + step_host + seq_host * batch
                )
            else:
                handed = now + handover * min(seconds, rest[1] + step_host)
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
                newly += 1
        # who is through leaves
        while heap and heap[0][0] <= decoded:
            i = heappop(heap)[1]
            finish[i] = handed
            batch -= 1
            context -= joined[i] + (decoded - began[i]) * accepted
        if newly:
            for i in done:
                if rounds[i]:
                    heappush(heap, (decoded + rounds[i], i))
                    context += joined[i]
            batch += newly
            newly = 0
        if batch == 0:
            context = 0.0
    return first, finish
