"""Times in logs: dates as they are written, or numbers, whose unit their size and the rate that it would mean say."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
_OTHER_FORMS = (
    "%d/%b/%Y:%H:%M:%S %z", "%Y/%m/%d %H:%M:%S", "%a, %d %b %Y %H:%M:%S %Z", "%Y-%m-%d %H:%M:%S %z",
    "%Y-%m-%d %H:%M:%S.%f %z", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y, %H:%M:%S", "%b %d, %Y @ %H:%M:%S.%f",
    "%b %d, %Y %H:%M:%S", "%d %b %Y %H:%M:%S",
)  # fmt: skip
_SLASHED = re.compile(
    r"(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?P<year>\d{4}|\d\d)[, T]+(?P<hour>\d{1,2}):(?P<minute>\d\d)"
    r"(?::(?P<seconds>\d\d(?:\.\d{1,9})?))?(?:\s?(?P<half>[AaPp])\.?[Mm]\.?)?(?:\s?(?:UTC|Z|GMT))?"
)


def iso_seconds(text: str) -> float | None:
    """Unix seconds of an ISO 8601 time, or as web servers write it, UTC where it names no zone; None: it is none."""
    stripped = text.strip().strip("[]").removesuffix(" UTC")
    try:
        read = datetime.fromisoformat(_at_most_microseconds(stripped))
    except (ValueError, OverflowError):
        return _web_seconds(stripped)
    return _unix(read)


def slashed_seconds(text: str, *, day_first: bool) -> float | None:
    """Unix seconds of a time such as `11/3/2026 9:58:00 AM`, UTC; None: it is none.

    `day_first`: whether that is the 11th of March or the 3rd of November.
    """
    found = _SLASHED.fullmatch(text.strip())
    if found is None:
        return None
    day, month = (found["first"], found["second"]) if day_first else (found["second"], found["first"])
    hour, half = int(found["hour"]), found["half"]
    if half is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (half in "pP")
    year = int(found["year"]) + 2000 * (len(found["year"]) == 2)
    try:
        minute = datetime(year, int(month), int(day), hour, int(found["minute"]), tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
    return minute + float(found["seconds"] or 0.0)


def day_comes_first(texts: Iterable[str]) -> tuple[bool, tuple[str, ...]] | None:
    """Whether slashed dates are day/month/year, and what was taken for granted; None: they are no such times.

    The order in which more of them are dates; where all are in both, that in which they are closest together.
    """
    texts = [text for text in texts if _SLASHED.fullmatch(text.strip()) is not None]
    if not texts:
        return None
    read = {day: [s for t in texts if (s := slashed_seconds(t, day_first=day)) is not None] for day in (False, True)}
    order = min(read, key=lambda day: (-len(read[day]), max(read[day], default=0.0) - min(read[day], default=0.0)))
    words = "day/month/year" if order else "month/day/year"
    return order, () if len(read[not order]) < len(read[order]) else (f"dates are taken as {words}",)


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
