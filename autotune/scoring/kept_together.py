"""How probable it is that limits are kept together: they hang on the same two errors of an estimate.

The logs of TTFT and of the time per token are off by two errors that the calibration knows to go together
(`costmodel.estimate.error_model.TARGET_CORRELATION`); what a first token is off by beyond the steps' pace is its own.
A limit is kept where such an error is below so many standard deviations.

- Limits on one latency move together: whoever keeps the tightest keeps the others, so that the least probable counts.
  The latencies are TTFT, decoding (TPOT and ITL), and what both errors move (end to end, throughput).
- Of two latencies both are kept as a normal distribution of two errors says, by the angle between them.
- All three are kept with at most the least probability of two of them. It is taken for that of all: exact where one
  follows from the others, so that a limit that does so takes nothing away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from autotune.metrics import RATE_SD, TPOT_SD, TTFT_SD
from costmodel.estimate.error_model import TARGET_CORRELATION
from costmodel.estimate.normal import both_below, normal_cdf
from costmodel.plan.columns import Floats

FIRST, DECODE, BOTH = TTFT_SD, TPOT_SD, RATE_SD
"""The latencies, by what their means are off by."""
ALL = "requests"
"""A share of requests, which every error moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How surely the limits on one latency are kept. Arrays of shape `(num_plans,)`, or that broadcast to it."""

    z: Floats
    """Standard deviations of its error up to which they are; infinite: whatever it is, or never."""
    first: Floats
    """Share of its error that is the first token's own, 0 to 1; squared, it and that of the steps' pace sum to 1."""

    def least(self, other: Kept | None) -> Kept:
        """Of two limits on one latency the less probable one; the other where they are equal."""
        if other is None:
            return self
        own = self.z < other.z
        return Kept(z=np.minimum(self.z, other.z), first=np.where(own, self.first, other.first))


def merged(kept: Iterable[tuple[str, Kept]]) -> dict[str, Kept]:
    """By latency the least probable of its limits."""
    out: dict[str, Kept] = {}
    for latency, one in kept:
        out[latency] = one.least(out.get(latency))
    return out


def p_together(kept: Mapping[str, Kept]) -> Floats:
    """Probability that the limits on every latency are kept, shape `(num_plans,)`; of none it is 1, shape `(1,)`."""
    least = np.ones(1)
    for one in kept.values():
        least = np.minimum(least, normal_cdf(one.z))
    for one, other in combinations([one for latency, one in kept.items() if latency != ALL], 2):
        pace = np.sqrt((1.0 - one.first**2) * (1.0 - other.first**2))
        least = np.minimum(least, both_below(one.z, other.z, np.minimum(one.first * other.first + pace, 1.0)))
    return least


def share_of_first(latency: str, first_share: Floats, ttft_log_sd: Floats, tpot_log_sd: Floats) -> Floats:
    """`Kept.first` of a mean, where the first token is such a share of the time of a request; shape `(num_plans,)`."""
    own = float(np.sqrt(1.0 - TARGET_CORRELATION**2))
    if latency != BOTH:
        return np.array([own if latency == FIRST else 0.0])
    first, rest = first_share * ttft_log_sd, (1.0 - first_share) * tpot_log_sd
    size = np.hypot(own * first, TARGET_CORRELATION * first + rest)
    return own * first / np.maximum(size, 1e-300)
