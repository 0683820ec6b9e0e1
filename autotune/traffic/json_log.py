"""Request logs as JSON lines: Mooncake's traces, and access logs of OpenAI-compatible servers with usage fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from autotune.traffic.lines import whole_lines
from autotune.traffic.problems import MALFORMED, NO_TIME, NO_TOKENS, TRUNCATED, token_problem
from autotune.traffic.requests import UNKNOWN, Gathered
from autotune.traffic.times import believable, iso_seconds, unit_of

TIME_NAMES = ("timestamp", "time", "ts", "@timestamp", "created", "created_at", "start_time", "arrival_time")
PROMPT_NAMES = ("input_length", "prompt_tokens", "input_tokens", "context_tokens")
OUTPUT_NAMES = ("output_length", "completion_tokens", "output_tokens", "generated_tokens")
STATUS_NAMES = ("status", "status_code")
NESTED = ("response", "body", "usage", "request", "data")
"""Objects within a line in which the fields may lie, as in `{"response": {"body": {"usage": {…}}}}`."""
DEPTH = 4
BLOCK_TOKENS = 512
"""Prompt tokens per entry of `hash_ids` in Mooncake's traces (Qin et al. 2024, arXiv:2407.00079, appendix)."""
MAX_BLOCKS = 4_000_000
"""Distinct blocks that are remembered; a cache that holds more is larger than a cluster's."""
BATCH = 50_000
FAILED_FROM = 400
"""HTTP status from which a request was not served."""


@dataclass(slots=True)
class _Reader:
    gathered: Gathered
    unit_s: float | None = None
    assumptions: list[str] = field(default_factory=list)
    rows: list[tuple[float, int, int, int]] = field(default_factory=list)
    blocks: set[int] = field(default_factory=set)

    def line(self, raw: bytes, *, cut_off: bool) -> None:
        self.gathered.lines += 1
        try:
            content = json.loads(raw)
        except (ValueError, RecursionError):
            self.gathered.problems[TRUNCATED if cut_off or not raw.rstrip().endswith(b"}") else MALFORMED] += 1
            return
        if not isinstance(content, dict):
            self.gathered.problems[MALFORMED] += 1
            return
        status = _found(content, STATUS_NAMES)
        if isinstance(status, int) and status >= FAILED_FROM:
            self.gathered.failed += 1
            return
        problem = self._request(content)
        if problem is not None:
            self.gathered.problems[problem] += 1

    def _request(self, content: Mapping[str, Any]) -> str | None:
        prompt, output = (_number(_found(content, names)) for names in (PROMPT_NAMES, OUTPUT_NAMES))
        if prompt is None or output is None:
            return NO_TOKENS
        seconds = self._seconds(_found(content, TIME_NAMES))
        if seconds is None:
            return NO_TIME
        problem = token_problem(prompt, output)
        if problem is None:
            self.rows.append((seconds, int(prompt), int(output), self._cached(content, int(prompt))))
            if len(self.rows) >= BATCH:
                self.flush()
        return problem

    def _seconds(self, value: Any) -> float | None:
        if isinstance(value, str):
            seconds = iso_seconds(value)
            if seconds is not None:
                return seconds
            try:
                value = float(value)
            except ValueError:
                return None
        number = _number(value)
        if number is None:
            return None
        if self.unit_s is None:
            self.unit_s, words = unit_of(number, relative_s=1e-3)
            self.assumptions += [] if words is None else [words]
        seconds = number * self.unit_s
        return seconds if believable(seconds) else None

    def _cached(self, content: Mapping[str, Any], prompt: int) -> int:
        """Prompt tokens that an earlier request had computed: as the server says, or by its blocks' hashes."""
        cached = _number(_found(content, ("cached_tokens",), (*NESTED, "prompt_tokens_details")))
        if cached is not None:
            return int(min(max(cached, 0.0), prompt))
        ids = content.get("hash_ids")
        if not isinstance(ids, list):
            return UNKNOWN
        known = 0
        for block in ids:
            if not isinstance(block, int) or block not in self.blocks:
                break
            known += 1
        if len(self.blocks) < MAX_BLOCKS:
            self.blocks.update(block for block in ids if isinstance(block, int))
        return min(known * BLOCK_TOKENS, prompt)

    def flush(self) -> None:
        if not self.rows:
            return
        times, prompt, output, cached = zip(*self.rows, strict=True)
        held = np.array(cached, dtype=np.int32)
        self.gathered.add(
            np.array(times),
            np.array(prompt, dtype=np.int32),
            np.array(output, dtype=np.int32),
            None if bool(np.all(held == UNKNOWN)) else held,
        )
        self.rows.clear()


def read_jsonl(first: bytes, pieces: Iterator[bytes], gathered: Gathered) -> tuple[str, ...]:
    """Read a log into `gathered`; returns what was assumed.

    Args:
        first: its beginning.
        pieces: the rest.
        gathered: what is filled; lines that are no request are counted in its problems.
    """
    reader = _Reader(gathered)
    for block, cut_off in whole_lines(pieces, first):
        lines = [line for line in block.split(b"\n") if line.strip()]
        for i, line in enumerate(lines):
            reader.line(line, cut_off=cut_off and i == len(lines) - 1)
    reader.flush()
    return tuple(reader.assumptions)


def _found(content: Mapping[str, Any], names: tuple[str, ...], nested: tuple[str, ...] = NESTED, depth: int = 0) -> Any:
    """The first field of one of the names, here or in an object within; None: there is none."""
    for name in names:
        if content.get(name) is not None:
            return content[name]
    if depth < DEPTH:
        for key in nested:
            inner = content.get(key)
            if isinstance(inner, dict):
                value = _found(inner, names, nested, depth + 1)
                if value is not None:
                    return value
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None
