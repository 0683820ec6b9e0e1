"""Times in logs: ISO 8601, or numbers whose unit follows from their size."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite

UNIX_FROM = 1e9
"""Numbers below are no Unix time (2001) but count from the log's own start."""
MAX_TIME_S = 253402300800.0
"""The year 10000."""


def iso_seconds(text: str) -> float | None:
    """Unix seconds of an ISO 8601 time, UTC where it names no zone; None: it is none."""
    try:
        read = datetime.fromisoformat(_at_most_microseconds(text.strip()))
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _at_most_microseconds(text: str) -> str:
    """Digits beyond the sixth after the point cut off: Python 3.11 takes no more than six."""
    head, point, tail = text.partition(".")
    if not point:
        return text
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return f"{head}.{tail[: min(digits, 6)]}{tail[digits:]}"


def unit_of(first: float, *, relative_s: float) -> tuple[float, str | None]:
    """Seconds per unit of a log's numeric times, judged by the first, and what was assumed.

    Args:
        first: the first number.
        relative_s: unit of numbers that count from the log's own start.
    """
    size = abs(first)
    for least, unit_s, name in (
        (1e17, 1e-9, "nanoseconds"),
        (1e14, 1e-6, "microseconds"),
        (1e11, 1e-3, "milliseconds"),
    ):
        if size >= least:
            return unit_s, f"times are taken as Unix {name}"
    if size >= UNIX_FROM:
        return 1.0, None
    name = "milliseconds" if relative_s == 1e-3 else "seconds"
    return relative_s, f"times are taken as {name} from the log's start"


def believable(seconds: float) -> bool:
    """Whether a time lies between 1970 and 9999."""
    return isfinite(seconds) and 0.0 <= seconds < MAX_TIME_S
