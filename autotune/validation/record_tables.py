"""Tables within the objects that benchmark tools write, wherever they lie."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from autotune.validation.reported import Record, mean_of, number

DEPTH = 8
_DURATION = re.compile(r"P(?:(\d{1,4})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,8})M)?(?:(\d{1,10}(?:\.\d{1,9})?)S)?)?")


def iso_duration(text: Any) -> float:
    """Seconds of a duration as ISO 8601 has it, `PT1H2M3.5S`; NaN: it is none."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return math.nan
    return sum(float(part or 0) * unit for part, unit in zip(found.groups(), (86400.0, 3600.0, 60.0, 1.0), strict=True))


def rate_of(table: Any, *names: str) -> float:
    """The first of these rates, a number or the mean of a table."""
    for name in names:
        value = table.get(name) if isinstance(table, Mapping) else None
        found = mean_of(value) if isinstance(value, Mapping) else number(table, name)
        if not math.isnan(found):
            return found
    return math.nan


def tables(value: Any, depth: int = 0) -> Iterator[Record]:
    """A table and those within it, each before what it holds."""
    if isinstance(value, Mapping) and depth <= DEPTH:
        yield value
        for inner in value.values():
            yield from tables(inner, depth + 1)


def with_latency(record: Record) -> Record | None:
    """The table that has latencies by name, wherever it lies."""
    found = ((table, table.get("latency")) for table in tables(record))
    return next((t for t, latency in found if isinstance(latency, Mapping) and "time_to_first_token" in latency), None)


def find(value: Any, name: str) -> Record | None:
    """The first table of a name, wherever it lies."""
    return next((found for table in tables(value) if isinstance(found := table.get(name), Mapping)), None)


def within(value: Any, *names: str) -> float:
    """The first number of these names in tables within tables, also as the one entry of a list."""
    for table in tables(value):
        for name in names:
            inner = table.get(name)
            found = number({name: inner[0]} if isinstance(inner, list) and len(inner) == 1 else table, name)
            if not math.isnan(found):
                return found
    return math.nan


def model_in(value: Any) -> str | None:
    """The first model that a tool's settings name: `model_names` or `model`, as one name, a list or a table."""
    for table in tables(value):
        for name in ("model_names", "model"):
            inner = table.get(name)
            if isinstance(inner, list):
                inner = inner[0] if inner else None
            found = text_of(inner.get("name") if isinstance(inner, Mapping) else inner)
            if found is not None:
                return found
    return None


def text_within(value: Any, *names: str) -> str | None:
    """The first text of these names in tables within tables."""
    found = (text_of(table.get(name)) for table in tables(value) for name in names)
    return next((text for text in found if text is not None), None)


def text_of(value: Any) -> str | None:
    """A text that is not empty."""
    return value if isinstance(value, str) and value else None
