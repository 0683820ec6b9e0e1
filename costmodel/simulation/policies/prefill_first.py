"""SGLang: new prompts go before decoding, in batches of up to `--chunked-prefill-size` tokens.

A prompt is admitted where the cache has room for it and for a share of what the running requests may still generate
(`new_token_ratio`, which decays to `MIN_NEW_TOKEN_RATIO` while nothing is retracted; `schedule_policy.py`,
`PrefillAdder`). Out of room, requests are retracted and computed again.
"""

from __future__ import annotations

from costmodel.simulation.policies.base import Policy
from costmodel.simulation.state import Rank, RankLimits, Request

MIN_NEW_TOKEN_RATIO = 0.098
"""0.7 x 0.14: SGLANG_INIT_NEW_TOKEN_RATIO times SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR (`environ.py`)."""
MOST_NEW_TOKENS = 4096
"""Output beyond which the estimate is cut (SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION)."""


class PrefillFirst(Policy):
    """Prefill first."""

    mixes = False
    reserves_whole = False

    def fits(self, rank: Rank, request: Request, limits: RankLimits) -> bool:
        """Room for the prompt and a share of everybody's output; with nothing running, anything starts."""
        running = rank.running
        more = MIN_NEW_TOKEN_RATIO * min(request.output, MOST_NEW_TOKENS) * (running + 1)
        return rank.held + self.reserved(request) + more <= limits.kv_tokens or not running


PREFILL_FIRST = PrefillFirst()
