"""Figures in sentences: the same on every page, table and line."""

from __future__ import annotations

from math import floor, log10


def figure(value: float) -> str:
    """Four digits that count: `0.3041`, `25,904`; from a billion on with an exponent of thousands: `20.13e9`."""
    size = abs(value)
    if size < 999.5 or size >= 1e300:
        return f"{value:.4g}"
    if size < 1e9:
        return f"{value:,.0f}"
    exponent = 3 * floor(log10(size) / 3)
    return f"{value / 10.0**exponent:.4g}e{exponent}"


def room_words(margin_frac: float) -> str:
    """Room to a limit as a share of it: `+23.7%`; where that is ten times the limit or more, the multiple: `+321x`."""
    return f"{margin_frac:+,.0f}x" if abs(margin_frac) >= 10.0 else f"{margin_frac:+.1%}"
