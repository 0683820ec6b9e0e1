"""What a replica holds: requests on their way, and the cells that run them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import ceil, inf, sqrt


@dataclass(slots=True, kw_only=True)
class Request:
    """One request. Times in seconds, lengths in tokens."""

    arrival_s: float
    prompt: int
    cached: int
    """Tokens of the prompt found in the prefix cache."""
    output: int
    number: int = 0
    to_compute: int = 0
    """Tokens to be computed before it decodes, when it was admitted; 0 before that."""
    computed: int = 0
    """Those of them that are."""
    rounds_left: int = 0
    """Rounds of decoding that it needs once they all are."""
    context: float = 0.0
    """Tokens in its cache when it began to decode."""
    began: int = 0
    """Rounds of decoding that the replica had run then."""
    reserved: float = 0.0
    """Cache tokens that it took when it was admitted."""
    last_token_s: float = inf
    """When it had its last token, where it was preempted since."""
    epoch: int = 0
    """How often it was preempted."""
    first_token_s: float = inf
    finish_s: float = inf


@dataclass(slots=True)
class Rank:
    """What the micro-batches of one attention rank share: whoever waits is taken by the next of them."""

    waiting: deque[Request] = field(default_factory=deque)
    held: float = 0.0
    """Cache tokens that are taken."""
    running: int = 0
    """Requests that have a seat: they decode, or their prompts are computed."""

    @property
    def outstanding(self) -> int:
        """Requests in front of the rank and in it."""
        return len(self.waiting) + self.running


@dataclass(slots=True)
class Cell:
    """What one attention rank runs in one micro-batch."""

    rank: Rank = field(default_factory=Rank)
    decoding: int = 0
    context: float = 0.0
    """Tokens that its decoding sequences attend to, all together."""
    prefilling: list[Request] = field(default_factory=list)
    admitted: list[tuple[Request, int]] = field(default_factory=list)
    """Requests that decode, with their epochs, in the order of their admission; some of them may have ended."""
    # of the step that is composed:
    tokens: int = 0
    """Prompt tokens."""
    attention_s: float = 0.0
    """Attention of its prompts on the slowest stage."""
    through_s: float = 0.0
    """The same through all stages."""
    sampled: int = 0
    """Prompts that end with this step."""


@dataclass(slots=True)
class Lane:
    """One micro-batch of a replica's pipeline: its attention ranks step together."""

    cells: list[Cell]
    ready_s: float = 0.0
    """When its last step is through all stages."""
    decoded: int = 0
    """Steps of decoding that it has run."""
    ends: list[tuple[int, int, int, Cell, Request]] = field(default_factory=list)
    """Heap of what decodes: the count of steps at which it ends, a number, its epoch, where, and which."""
    since: list[tuple[int, float]] = field(default_factory=list)
    """Sequences that decode, by when they had their last token, ascending: how many, and when."""

    @property
    def decoding(self) -> int:
        """Sequences that decode."""
        cells = self.cells
        return cells[0].decoding if len(cells) == 1 else sum(cell.decoding for cell in cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLimits:
    """What an attention rank may hold, in all its micro-batches."""

    batched_tokens: int
    """Token budget of a step."""
    max_num_seqs: int
    """Seats."""
    kv_tokens: float
    """Tokens for which there is cache."""


@dataclass(slots=True)
class Counters:
    """What happened in a replica."""

    steps: int = 0
    prompt_steps: int = 0
    busy_s: float = 0.0
    preemptions: int = 0


def steps_within(seconds: float, first_s: float, slope_s: float) -> float:
    """How many steps take so long of which each is `slope_s` longer than the one before: a fraction.

    The count with `count * first_s + slope_s * count * (count - 1) / 2 = seconds`.
    """
    if slope_s <= 1e-12 * first_s:
        return seconds / first_s
    half = first_s - 0.5 * slope_s
    return (sqrt(half * half + 2.0 * slope_s * seconds) - half) / slope_s


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps of decoding that follow each other, each longer than the one before."""

    count: int
    first_s: float
    slope_s: float = 0.0

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.count * self.first_s + 0.5 * self.slope_s * self.count * (self.count - 1)

    def until(self, left_s: float, *, whole: bool) -> int:
        """How many of them begin before an event, or end by then (`whole`)."""
        if left_s == inf or (self.count <= 1 and not whole):
            return self.count
        exact = steps_within(left_s, self.first_s, self.slope_s)
        return min(self.count, int(exact) if whole else max(ceil(exact - 1e-9), 1))
