"""TensorRT-LLM: in-flight batching of prompts and decoding sequences, GUARANTEED_NO_EVICT.

A request is admitted once the cache has room for its prompt and all its output (the default capacity scheduler).
"""

from __future__ import annotations

from costmodel.simulation.policies.base import Policy
from costmodel.simulation.state import Rank, RankLimits, Request


class NoEvict(Policy):
    """Prompts beside decoding; cache reserved whole."""

    mixes = True
    reserves_whole = True

    def fits(self, rank: Rank, request: Request, limits: RankLimits) -> bool:
        """Room for the whole request; with nothing running, anything starts."""
        return rank.held + self.reserved(request) <= limits.kv_tokens or not rank.running


NO_EVICT = NoEvict()
