"""What a scheduler decides, and the order in which it decides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from costmodel.plan.columns import Ints
from costmodel.simulation.state import Cell, Rank, RankLimits, Request

BLOCK = 16
"""Tokens of a block of cache, as all three engines allocate it."""


class Policy(ABC):
    """A scheduler. It has no state of its own."""

    mixes: ClassVar[bool]
    """Whether prompts and decoding sequences share a step; otherwise prompts go first, and decoding waits."""
    reserves_whole: ClassVar[bool]
    """Whether a request takes cache for all its output when it is admitted, so that nothing is ever preempted."""

    @abstractmethod
    def fits(self, rank: Rank, request: Request, limits: RankLimits) -> bool:
        """Whether there is cache to admit a request now."""

    def reserved(self, request: Request) -> float:
        """Cache tokens that a request takes when it is admitted."""
        return _in_blocks(request.to_compute + request.cached + (request.output if self.reserves_whole else 0))

    def least_reserved(self, prompt: Ints, cached: Ints, output: Ints) -> float:
        """Cache tokens that the smallest of some requests takes when it is admitted. Arrays of `(num_requests,)`."""
        tokens = np.maximum(prompt, cached + 1) + (output if self.reserves_whole else 0)
        return _in_blocks(int(tokens.min()))

    def blocked(self, rank: Rank, limits: RankLimits) -> bool:
        """Whether whoever comes now has to wait until a request ends."""
        if rank.running >= limits.max_num_seqs:
            return True
        return bool(rank.waiting) and not self.fits(rank, rank.waiting[0], limits)

    def admit(self, cell: Cell, limits: RankLimits) -> bool:
        """Give the first waiting request a seat and cache; False where that cannot be."""
        rank = cell.rank
        if not rank.waiting or self.blocked(rank, limits):
            return False
        request = rank.waiting.popleft()
        request.computed = 0
        request.reserved = self.reserved(request)
        rank.held += request.reserved
        rank.running += 1
        cell.prefilling.append(request)
        return True

    def budget(self, cell: Cell, limits: RankLimits, step_tokens: float) -> int:
        """Prompt tokens that a step has room for."""
        return limits.batched_tokens - (int(cell.decoding * step_tokens) if self.mixes else 0)


def _in_blocks(tokens: int) -> float:
    """Tokens of the blocks of cache that so many tokens take."""
    return float(-(-tokens // BLOCK) * BLOCK)
