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


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people: three significant digits, thousands apart; a dash where there is none."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return "–"
    if value == 0.0:
        return "0"
    size = abs(value)
    if size >= 10.0 ** (digits - 1):
        return f"{value:,.0f}"
    if size < 1e-4:
        return f"{value:.{digits - 1}g}"
    decimals = digits - 1
    while size >= 10.0 and decimals > 0:
        size, decimals = size / 10.0, decimals - 1
    while size < 1.0:
        size, decimals = size * 10.0, decimals + 1
    return f"{value:.{decimals}f}"


def exact(value: float) -> str:
    """A limit as somebody wrote it: up to six digits, without zeros that say nothing."""
    if value != value or value in (float("inf"), float("-inf")):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{float(f'{value:.6g}'):,.6f}".rstrip("0").rstrip(".") or "0"
