"""vLLM V1: running sequences first, then waiting prompts in order of arrival into what is left of the token budget.

Blocks are allocated as tokens are scheduled; out of blocks, the request that was admitted last is preempted and
computed again (`vllm/v1/core/sched/scheduler.py`).
"""

from __future__ import annotations

from costmodel.simulation.policies.base import Policy
from costmodel.simulation.state import Rank, RankLimits, Request


class Chunked(Policy):
    """Chunked prefill beside decoding."""

    mixes = True
    reserves_whole = False

    def fits(self, rank: Rank, request: Request, limits: RankLimits) -> bool:
        """Blocks for the whole prompt; with nothing running, anything starts."""
        return rank.held + self.reserved(request) <= limits.kv_tokens or not rank.running


CHUNKED = Chunked()
