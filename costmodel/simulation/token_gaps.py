"""The gaps between the tokens of requests as users see them: inter-token latency.

A step of decoding gives each of its sequences a token, so that all of them wait as long for it: from the step that gave
them their last one to the end of this. What runs between (prompts that decoding waits for, a preemption) is in the gap.
Tokens that one step yields together, as with speculative decoding, come at once and count as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

import numpy as np

from costmodel.plan.columns import Floats

RESOLUTION = 0.005
"""Relative width of the pieces into which a run of gaps that grow is cut."""
MOST_PIECES = 64
RUN = Struct("4d")
"""A run of gaps: when the last of them ends, the first of them, the last, and how many they are."""


class GapRecorder:
    """Runs of gaps, as they come: so many gaps in all, evenly spread from the first of them to the last."""

    __slots__ = ("runs",)

    def __init__(self) -> None:
        """Nothing was recorded yet."""
        self.runs = bytearray()
        """One behind the other, as `RUN` packs them; loops that are too hot for calls add to it themselves."""

    def add(self, end_s: float, first_s: float, last_s: float, count: float) -> None:
        """`count` gaps, the last of which ends at `end_s`."""
        self.runs += RUN.pack(end_s, first_s, last_s, count)

    def add_first(self, waited: Sequence[tuple[int, float]], end_s: float) -> None:
        """Gaps that end at `end_s` of sequences that were kept waiting: how many had their last token when."""
        for count, since_s in waited:
            self.add(end_s, end_s - since_s, end_s - since_s, count)

    def gaps(self) -> TokenGaps:
        """All of them."""
        end_s, first_s, last_s, count = np.frombuffer(bytes(self.runs)).reshape(-1, 4).T
        return TokenGaps(end_s=end_s, first_s=first_s, last_s=last_s, count=count)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGaps:
    """Runs of gaps between tokens. Every array has shape `(num_runs,)`."""

    end_s: Floats
    """When the last gap of a run ends."""
    first_s: Floats
    last_s: Floats
    """Length of the first and of the last gap of a run; those between are evenly spread."""
    count: Floats
    """Gaps of a run, of all its sequences together."""

    @classmethod
    def joined(cls, parts: Sequence[TokenGaps]) -> TokenGaps:
        """Those of several replicas."""
        if not parts:
            return GapRecorder().gaps()
        return cls(
            end_s=np.concatenate([part.end_s for part in parts]),
            first_s=np.concatenate([part.first_s for part in parts]),
            last_s=np.concatenate([part.last_s for part in parts]),
            count=np.concatenate([part.count for part in parts]),
        )

    def after(self, time_s: float, until_s: float = np.inf) -> TokenGaps:
        """Those that end later, and no later than `until_s`."""
        kept = (self.end_s > time_s) & (self.end_s <= until_s)
        return TokenGaps(
            end_s=self.end_s[kept], first_s=self.first_s[kept], last_s=self.last_s[kept], count=self.count[kept]
        )

    def slowed(self, factor: float) -> TokenGaps:
        """The same with every time so many times as long."""
        return TokenGaps(
            end_s=self.end_s * factor, first_s=self.first_s * factor, last_s=self.last_s * factor, count=self.count
        )

    def pieces(self) -> tuple[Floats, Floats, Floats]:
        """Lengths, how many gaps are of each, and when its run ends; arrays of one shape."""
        grown = np.abs(self.last_s / np.maximum(self.first_s, 1e-300) - 1.0)
        parts = np.clip(np.ceil(grown / RESOLUTION), 1, MOST_PIECES).astype(np.int64)
        run = np.repeat(np.arange(parts.size), parts)
        place = np.arange(run.size) - np.repeat(np.cumsum(parts) - parts, parts)
        share = (place + 0.5) / parts[run]
        lengths = self.first_s[run] + (self.last_s - self.first_s)[run] * share
        return lengths, self.count[run] / parts[run], self.end_s[run]
