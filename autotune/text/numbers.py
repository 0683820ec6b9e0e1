"""Figures in sentences, tables and pages: one way to write each."""

from __future__ import annotations

from math import floor, isfinite, log10

SURE_DIGITS = 12
"""Digits of a figure that are no noise of its rounding: figures that are alike in them are written alike."""


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people: so many digits that count, thousands apart, no zeros that say nothing.

    `0.304`, `25,904`; from a billion on with an exponent of thousands: `20.1e9`; a dash where there is no figure.
    Estimates are written with three digits; four where a figure stands beside its limit; six for what a person wrote.
    """
    if value is None or not isfinite(value):
        return "–"
    value = float(f"{value:.{SURE_DIGITS}g}")
    size = abs(value)
    if size >= 1e9:
        exponent = 3 * floor(log10(float(f"{size:.{digits}g}")) / 3)
        return f"{value / 10.0**exponent:.{digits}g}e{exponent}"
    if size >= 10.0 ** (digits - 1) - 0.5:
        return f"{value:,.0f}"
    return f"{value + 0.0:,.{digits}g}"


def probability(value: float | None) -> str:
    """A probability; never 0 % or 100 % for what is merely close."""
    if value is None:
        return "–"
    if value >= 0.995:
        return "> 99%"
    return "< 1%" if value <= 0.005 else f"{value:.0%}"


def room_words(margin_frac: float) -> str:
    """Room to a limit as a share of it: `+23.7%`; where that is ten times the limit or more, the multiple: `+321x`."""
    return f"{margin_frac:+,.0f}x" if abs(margin_frac) >= 10.0 else f"{margin_frac:+.1%}"


def within(title: str) -> str:
    """A title within a sentence: `output throughput`, but `TPOT`."""
    return f"{title[:1].lower()}{title[1:]}" if title[1:2].islower() else title
