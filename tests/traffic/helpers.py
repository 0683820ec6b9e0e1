"""Requests to write logs of, and logs written to files."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

START_S = 1_770_000_000.0
"""When logs with absolute times begin."""


class Request(NamedTuple):
    """One request: seconds from the log's start, tokens."""

    at_s: float
    prompt: int
    output: int


def requests(count: int = 300, per_s: float = 2.0) -> list[Request]:
    """Poisson arrivals from 0 s on."""
    draw, at = random.Random(3), 0.0  # noqa: S311  # no secret
    out = []
    for _ in range(count):
        out.append(Request(at, draw.randint(50, 4000), draw.randint(5, 500)))
        at += draw.expovariate(per_s)
    return out


def iso(at_s: float) -> str:
    """A moment of a log with absolute times."""
    return datetime.fromtimestamp(START_S + at_s, UTC).isoformat()


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object per line."""
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def written(folder: Path, content: str, name: str = "log") -> str:
    """A file with this content."""
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return str(path)
