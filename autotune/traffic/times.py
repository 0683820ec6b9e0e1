"""Times in logs: ISO 8601, or numbers whose unit is recognised by their size and by the rate that it would mean."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite

import numpy as np

from autotune.traffic.options import TIME_UNITS
from costmodel.errors import InputError
from costmodel.plan.columns import Floats

UNIX_FROM = 1e9
"""Numbers below are no Unix time (2001) but count from the log's own start."""
MAX_TIME_S = 253402300800.0
"""The year 10000."""
BUSY_PER_S = 0.5
"""Requests per second from which the coarsest unit is taken that may be: in the next one it would be 500 and more."""
QUIET_PER_S = 5e-4
"""Requests per second below which a log is not in that unit: one in half an hour."""
MOST_PER_S = 500.0
"""Requests per second above which a log that is expected in a smaller unit is not in it."""
FOR_ANY_PER_S = 1e4
"""Requests per second beyond which a unit is not worth asking about."""
_ABSOLUTE = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (UNIX_FROM, "s"))
_WORDS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_OTHER_FORMS = ("%d/%b/%Y:%H:%M:%S %z", "%Y/%m/%d %H:%M:%S", "%a, %d %b %Y %H:%M:%S %Z")


def iso_seconds(text: str) -> float | None:
    """Unix seconds of an ISO 8601 time, or as web servers write it, UTC where it names no zone; None: it is none."""
    stripped = text.strip().strip("[]")
    try:
        read = datetime.fromisoformat(_at_most_microseconds(stripped))
    except (ValueError, OverflowError):
        return _web_seconds(stripped)
    return _unix(read)


def _web_seconds(text: str) -> float | None:
    if not 15 <= len(text) <= 40:
        return None
    for form in _OTHER_FORMS:
        try:
            return _unix(datetime.strptime(text, form))  # the zone follows
        except (ValueError, OverflowError):
            continue
    return None


def _unix(read: datetime) -> float | None:
    try:
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


def recognised_unit(name: str, times: Floats, *, expected: str | None) -> tuple[float, tuple[str, ...]]:
    """Seconds per unit of numeric times, and what was taken for granted.

    Numbers from 2001 on in any unit are Unix times. Others count from the log's own start: their unit is the one that
    the format is known for, if that means a rate that can be, else the only one that does.

    Args:
        name: of the log, for messages.
        times: a good part of the log's times as they are written, shape `(num_requests,)`.
        expected: unit that logs with such fields are in, a key of `TIME_UNITS`; None: not known.

    Raises:
        InputError: several units are possible: `--time-unit` has to say which.
    """
    least = float(np.abs(times).min())
    for size, unit in _ABSOLUTE:
        if least >= size:
            return TIME_UNITS[unit], () if unit == "s" else (f"times are taken as Unix {_WORDS[unit]}",)
    span = float(times.max() - times.min())
    if span <= 0.0 or times.size < 2:
        unit = expected or "s"
        return TIME_UNITS[unit], (f"times are taken as {_WORDS[unit]} from the log's start",)
    per_s = {unit: times.size / (span * seconds) for unit, seconds in TIME_UNITS.items()}
    fitting = _fitting(per_s, expected)
    if fitting is None:
        possible = {unit: rate for unit, rate in per_s.items() if QUIET_PER_S < rate < FOR_ANY_PER_S}
        rates = " or ".join(f"{rate:.3g} requests/s in {_WORDS[unit]}" for unit, rate in possible.items())
        raise InputError.single(
            "--time-unit", f"is required: times of {name} count from its own start, and may mean {rates}"
        )
    return TIME_UNITS[fitting], (
        f"times are taken as {_WORDS[fitting]} from the log's start, {per_s[fitting]:.3g} requests/s (--time-unit)",
    )


def _fitting(per_s: dict[str, float], expected: str | None) -> str | None:
    if expected is not None and QUIET_PER_S <= per_s[expected] <= (np.inf if expected == "s" else MOST_PER_S):
        return expected
    first = next((unit for unit in TIME_UNITS if per_s[unit] >= QUIET_PER_S), None)
    return first if first is not None and per_s[first] >= BUSY_PER_S else None


def believable(seconds: float) -> bool:
    """Whether a time lies between 1970 and 9999."""
    return isfinite(seconds) and 0.0 <= seconds < MAX_TIME_S
