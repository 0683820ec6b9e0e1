"""What the quick forms of a replica are given and give: requests in order, times of a step by its sequences, a run."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from costmodel.plan.columns import Ints
from costmodel.simulation.policies.base import BLOCK
from costmodel.simulation.requests import Flags, Requests
from costmodel.simulation.state import RankLimits
from costmodel.simulation.step_table import PartTables, StepTable
from costmodel.simulation.token_gaps import GapRecorder

NEVER = 1 << 62
"""A count of steps that is never reached."""


BALANCED = 0.9
"""Share of a replica's cache that may be in use while none of its ranks runs out of its part."""


def room_tokens(table: StepTable, limits: RankLimits) -> float:
    """Cache tokens that requests may hold on all ranks while nothing waits for cache or is preempted."""
    return limits.kv_tokens * table.ranks * (1.0 if table.ranks == 1 else BALANCED)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRun:
    """What came of the requests of a queue, in its order. Seconds; infinite for what was left unfinished."""

    first: list[float]
    finish: list[float]
    busy_s: float
    """Time in which steps ran."""
    gaps: GapRecorder


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestQueue:
    """Requests in the order in which the scheduler sees them: another one where a longer prompt is tokenised longer."""

    order: Ints
    seen_s: list[float]
    """When it sees them, and an end that never comes."""
    to_compute: list[int]
    """Prompt tokens that are not cached."""
    context: list[int]
    """Tokens that a request attends to once its prompt is computed."""
    rounds: list[int]
    """Steps of decoding that it needs then."""
    tokens: list[int]
    """What it takes of the cache from its admission to its end, at most."""
    counts: list[int]
    """1 for those whose times are asked for, otherwise 0."""
    remaining: int
    """How many these are."""

    @classmethod
    def of(cls, table: StepTable, requests: Requests, counted: Flags | None) -> RequestQueue:
        """In the order in which the scheduler of a plan sees them."""
        seen_s = requests.arrival_s + table.frontend_s + table.token_s * requests.prompt
        order = np.argsort(seen_s, kind="stable")
        ordered = requests.take(order)
        counts = np.ones(order.size, dtype=np.int64) if counted is None else counted[order].astype(np.int64)
        computed = np.maximum(ordered.prompt - ordered.cached, 1)
        return cls(
            order=order,
            seen_s=[*seen_s[order].tolist(), inf],
            to_compute=computed.tolist(),
            context=(ordered.cached + computed).tolist(),
            rounds=np.ceil((ordered.output - 1) / table.accepted_tokens).astype(np.int64).tolist(),
            tokens=(ordered.prompt + ordered.output + BLOCK).tolist(),
            counts=counts.tolist(),
            remaining=int(counts.sum()),
        )

    def part(self, begin: int, end: int) -> RequestQueue:
        """Some of them, one behind the other."""
        counts = self.counts[begin:end]
        return RequestQueue(
            order=self.order[begin:end],
            seen_s=[*self.seen_s[begin:end], inf],
            to_compute=self.to_compute[begin:end],
            context=self.context[begin:end],
            rounds=self.rounds[begin:end],
            tokens=self.tokens[begin:end],
            counts=counts,
            remaining=sum(counts),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTimes:
    """What depends on how many sequences decode on all ranks of a replica alone, listed by their number. Seconds."""

    alone_s: list[float]
    """Kernels of a step without attention and drafts."""
    kernels_s: list[float]
    """The same with drafts."""
    per_context_s: list[float]
    """What a second of one sequence's attention adds to a step, drafts included."""
    prepared_s: list[float]
    """`StepTable.prepared_s`."""
    host_s: list[float]
    """What the GPU waits for the host in each step."""
    verified: list[int]
    """Tokens that a step runs on the busiest rank."""
    group_verified: list[int]
    """The same on all ranks."""

    @property
    def limits(self) -> tuple[list[float], list[float], list[int], list[int]]:
        """Preparation, host time, and tokens on the busiest rank and on all."""
        return self.prepared_s, self.host_s, self.verified, self.group_verified

    @classmethod
    def of(cls, table: StepTable, part: PartTables, most: int) -> BatchTimes:
        """On some of the layers, for up to `most` - 1 sequences."""
        drafted = 1.0 + table.draft_frac
        batch = np.arange(most)
        per = -(-batch // table.ranks)
        tokens, group = ((count * table.step_tokens).astype(np.int64) for count in (per, batch))
        seconds = np.array(part.rest_s)[tokens] + part.logits_s.of(tokens)
        if part.experts_s is not None:
            seconds = seconds + part.experts_s.of(tokens, np.maximum(group, tokens))
        seconds = np.where(batch > 0, seconds, 0.0)
        return cls(
            alone_s=seconds.tolist(),
            kernels_s=(drafted * seconds).tolist(),
            per_context_s=(drafted * per).tolist(),
            prepared_s=[table.prepared_s(part, int(sequences)) for sequences in per],
            host_s=(table.step_s + table.sequence_s * per).tolist(),
            verified=tokens.tolist(),
            group_verified=group.tolist(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTables:
    """Times of one plan's steps as the quick forms look them up."""

    table: StepTable
    slowest: BatchTimes
    """On the slowest stage."""
    through: BatchTimes
    """Through all stages."""
    logits_s: list[float]
    """By the tokens that are sampled, on the slowest stage."""
    through_logits_s: list[float]

    @classmethod
    def of(cls, table: StepTable, seats: int) -> QueueTables:
        """For up to so many sequences on all ranks."""
        counts = np.arange(len(table.slowest.rest_s))
        slowest, logits = BatchTimes.of(table, table.slowest, seats + 1), table.slowest.logits_s.of(counts).tolist()
        if table.stages == 1:
            return cls(table=table, slowest=slowest, through=slowest, logits_s=logits, through_logits_s=logits)
        return cls(
            table=table,
            slowest=slowest,
            through=BatchTimes.of(table, table.through, seats + 1),
            logits_s=logits,
            through_logits_s=table.through.logits_s.of(counts).tolist(),
        )

    def first_step_s(self, begun: list[int], context: list[int]) -> float:
        """A step of decoding of requests that begin together in an empty batch."""
        count, times = len(begun), self.slowest
        mean = sum(context[i] for i in begun) / count
        kernels = times.kernels_s[count] + times.per_context_s[count] * self.table.slowest.decode_s.at(mean)
        return max(kernels, times.prepared_s[count]) + times.host_s[count]
