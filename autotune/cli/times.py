"""Times as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from costmodel.errors import InputError

UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def duration_s(text: str, path: str) -> float:
    """`90m`, `24h`, `7d`, or seconds.

    Raises:
        InputError: it is none of them, or not more than zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?", text.strip())
    seconds = 0.0 if found is None else float(found[1]) * UNITS_S[found[2] or "s"]
    if not 0.0 < seconds <= 1e9:
        raise InputError.single(path, f"must be a time of more than 0 such as 90m, 24h or 7d, got {text!r}")
    return seconds


def time_s(text: str, path: str) -> float:
    """Unix seconds of an ISO 8601 time (UTC where it names no zone) or of a number.

    Raises:
        InputError: it is neither, or lies beyond the year 9999.
    """
    try:
        seconds = float(text)
    except ValueError:
        try:
            read = datetime.fromisoformat(text)
            seconds = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
        except ValueError as error:
            message = f"must be ISO 8601 such as 2026-11-24T03:00:00Z, or Unix seconds, got {text!r}"
            raise InputError.single(path, message) from error
    if not 0.0 <= seconds < 253402300800.0:
        raise InputError.single(path, f"must lie between 1970 and 9999, got {text!r}")
    return seconds
