"""What is asked of a plan: requests, their lengths and how they come."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from costmodel.plan.columns import Columns, Floats


def _zero() -> Floats:
    return np.zeros(1)


def _one() -> Floats:
    return np.ones(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load(Columns):
    """What is asked of a plan. Arrays of shape `(num_plans,)` or `(1,)`."""

    isl: Floats
    """Mean prompt length, tokens."""
    osl: Floats
    """Mean output length, tokens."""
    prefix_hit_frac: Floats
    """Share of prompt tokens found in the prefix cache."""
    concurrency: Floats
    """Requests in flight over all replicas."""
    batched_tokens: Floats
    """Token budget of a step, per attention-DP rank."""
    max_num_seqs: Floats
    """Sequences that run at once, per attention-DP rank."""
    kv_isl: Floats = field(default_factory=_zero)
    """Mean prompt length of the sequences that hold cache, tokens, where those of several kinds share it; 0: `isl`."""
    kv_osl: Floats = field(default_factory=_zero)
    """Mean output length of the sequences that hold cache, tokens; 0: `osl`."""
    same_lengths: Floats = field(default_factory=_zero)
    """1 where every request has just these lengths, 0 where they vary."""
    shared_grows: Floats = field(default_factory=_zero)
    """1 where longer prompts find as much more in the prefix cache, as those of a session do; 0 where all find as much.
    """
    waves: Floats = field(default_factory=_zero)
    """A benchmark that begins with all its slots at once: requests that each slot sends. 0: requests come as they may.
    """
    open_loop: Floats = field(default_factory=_zero)
    """1 where requests arrive whatever the server does, 0 where each is sent as another ends."""
    arrival_cv2: Floats = field(default_factory=_one)
    """Squared coefficient of variation of the gaps between arrivals: 1 for Poisson, and for many closed loops together.
    """
    poll_steps: Floats = field(default_factory=_zero)
    """Steps between the scheduler's looks at new requests; 0: every step."""
    hold_steps: Floats = field(default_factory=_zero)
    """Steps for which a first waiting prompt waits for others; 0: none."""
    step_tokens: Floats = field(default_factory=_one)
    """Tokens of a sequence that a decode step runs: 1, and the drafted ones of speculative decoding."""
    accepted_tokens: Floats = field(default_factory=_one)
    """Tokens of a sequence that a decode step yields, mean."""
    draft_frac: Floats = field(default_factory=_zero)
    """Time of drafting over the time of the step that verifies."""

    @property
    def decode_rounds(self) -> Floats:
        """Decode steps of a request: its output after the first token, over what a step yields."""
        return np.maximum(self.osl - 1.0, 0.0) / self.accepted_tokens

    @property
    def new_tokens(self) -> Floats:
        """Tokens of a prompt that are computed: those not found in the prefix cache, at least the last one."""
        return np.maximum(self.isl * (1.0 - self.prefix_hit_frac), 1.0)
