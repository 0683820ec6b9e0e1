"""How shares, differences, probabilities and limits are written."""

from __future__ import annotations

from math import inf, isfinite

from autotune.study import IntRange
from autotune.text.numbers import number, probability

SHARES = frozenset({"of GPU memory", "of time", "of requests", "probability"})
"""Units of figures from 0 to 1, which are written as per cent."""
GIB = 2.0**30


def percent(value: float | None, digits: int = 0) -> str:
    """A share; a dash where there is none; just below the whole, with a decimal."""
    if value is None or not isfinite(value):
        return "–"
    return f"{value:.{max(digits, 1) if 0.99 < value < 1.0 else digits}%}"


def signed(value: float | None) -> str:
    """A relative difference: `+37.9%`, `−4.1%`; a dash where there is none."""
    if value is None or not isfinite(value):
        return "–"
    if abs(value) < 5e-4:
        return "0.0%"
    return f"{value:+,.0%}" if abs(value) >= 10.0 else f"{value:+.1%}".replace("-", "−")


def times(factor: float) -> str:
    """A factor: `×0.67`."""
    return f"×{factor:.2f}".rstrip("0").rstrip(".")


def gib(size_bytes: float) -> str:
    """Bytes in GiB to two decimals, without the unit; `<0.01` for what is there all the same."""
    amount = size_bytes / GIB
    return f"{amount:,.2f}" if amount == 0.0 or abs(amount) >= 0.005 else "<0.01"


def count(amount: int, one: str, many: str = "") -> str:
    """`1 stage`, `2 stages`."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def lengths(given: IntRange, to: str) -> str:
    """Lengths of prompts or outputs: from one to another, or their mean where they are of a log or of sessions."""
    if given.average is not None:
        return f"{given.average:,.0f}"
    return f"{given.min:,}" if given.min == given.max else f"{given.min:,}{to}{given.max:,}"


def token_words(given: IntRange) -> str:
    """What such lengths are."""
    return "tokens" if given.average is None else "tokens (mean)"


def measure(value: float | None, unit: str) -> str:
    """A figure that stands beside its limit, without the unit but that of a share; `∞` of what grows without bound."""
    if unit == "probability":
        return probability(value)
    if value == inf:
        return "∞"
    return percent(value, 1) if unit in SHARES else number(value, 4)


def asked(limit: float | None, unit: str) -> str:
    """A limit as somebody wrote it, without the unit but that of a share."""
    return percent(limit, 0 if limit is None or limit >= 0.01 else 2) if unit in SHARES else number(limit, 6)


def short_unit(title: str, unit: str) -> str:
    """The unit without the end that the title has as well: `tokens/s` of `Throughput per GPU`, `tokens/s per GPU`."""
    short, per, whose = unit.partition(" per ")
    return short if per and title.endswith(f"{per}{whose}") else unit


def united(text: str, unit: str) -> str:
    """A figure with its unit; a share has one already."""
    one = text == "1" and unit.endswith("requests")
    return text if unit in ("", *SHARES) else f"{text} {unit.removesuffix('s') if one else unit}"
