"""Sequences that a rank is started for: beyond those expected, for its peaks, and short of its KV room."""

from __future__ import annotations

from math import ceil

KV_MARGIN_FRAC = 0.05
"""KV room kept free beyond sequences of mean length: the memory model is good to a few per cent."""
PEAK_SD = 3.0
"""Standard deviations of a Poisson number that a rank's sequences may lie above their mean."""


def with_peaks(seqs: float) -> int:
    """Sequences of a rank at its peaks: a limit at the mean would make requests wait while other ranks have room."""
    return ceil(seqs + PEAK_SD * seqs**0.5)
