"""Requests of a log as compact columns, gathered in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autotune.traffic.problems import CLOCK_JUMP, CLOCK_STEP_S, STRAY
from costmodel.plan.columns import Floats
from costmodel.simulation.prefix_cache import PromptBlocks

MAX_ROWS = 16_000_000
"""Rows that are held: 20 bytes each, 320 MB. Beyond, what lies before the window is dropped, then rows are thinned."""
MAX_MODELS = 1_000
"""Models that are told apart."""
STRAY_GAP_S = 30 * 86400.0
"""A log with a hole of a month is two logs."""
SEED = 7
UNKNOWN = -1

Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Requests, by time. Arrays have shape `(num_rows,)`."""

    times_s: Floats
    prompt: Tokens
    output: Tokens
    cached: Tokens | None
    """Prompt tokens that were computed before; `UNKNOWN` where a line does not say, None where none does."""
    requests_each: float
    """Requests that each row stands for."""
    blocks_at: Tokens | None = None
    """Place of a prompt's blocks among those of the log; `UNKNOWN` where a line has none, None where none has."""

    def between(self, start_s: float, end_s: float) -> Columns:
        """Requests from `start_s` up to and including `end_s`."""
        low, high = np.searchsorted(self.times_s, (start_s, np.nextafter(end_s, np.inf)))
        return self.rows(slice(int(low), int(high)))

    def rows(self, chosen: slice | NDArray[np.int64]) -> Columns:
        """Some of the rows, ascending."""
        return Columns(
            times_s=self.times_s[chosen],
            prompt=self.prompt[chosen],
            output=self.output[chosen],
            cached=None if self.cached is None else self.cached[chosen],
            requests_each=self.requests_each,
            blocks_at=None if self.blocks_at is None else self.blocks_at[chosen],
        )


@dataclass(slots=True)
class Gathered:
    """Requests as they are read, in pieces."""

    window_s: float | None = None
    """Length of the window that ends with the last request, where only that is wanted."""
    between_s: tuple[float, float] | None = None
    """Where only requests between two times are wanted: those two."""
    max_rows: int = MAX_ROWS
    problems: Counter[str] = field(default_factory=Counter)
    lines: int = 0
    """Read so far, those with problems as well; neither headers nor blank lines."""
    failed: int = 0
    """Requests that the log says were not served, or that got no token."""
    other: int = 0
    """Lines about something else than text that was asked for."""
    unmatched: int = 0
    """Requests that were let go because they are not of what was asked for."""
    models: Counter[str] = field(default_factory=Counter)
    """Requests by model, where the log names it."""
    blocks: PromptBlocks | None = None
    """The blocks of all prompts, where the log has their hashes."""
    earliest_s: float = np.inf
    """Of all requests, those before the window as well."""
    dropped: int = 0
    """Rows that were let go because they lie before the window."""
    _pieces: list[Columns] = field(default_factory=list)
    _rows: int = 0
    _each: float = 1.0
    _last_s: float = -np.inf
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(SEED))

    def add(
        self,
        times_s: Floats,
        prompt: Tokens,
        output: Tokens,
        cached: Tokens | None = None,
        blocks_at: Tokens | None = None,
    ) -> None:
        """Take requests in the order of the log, all of shape `(num_rows,)`."""
        if times_s.size == 0:
            return
        self.problems[CLOCK_JUMP] += int((np.diff(times_s, prepend=max(self._last_s, -1e300)) < -CLOCK_STEP_S).sum())
        self._last_s = float(times_s[-1])
        self.earliest_s = min(self.earliest_s, float(times_s.min()))
        piece = Columns(
            times_s=times_s, prompt=prompt, output=output, cached=cached, requests_each=self._each, blocks_at=blocks_at
        )
        if self.between_s is not None:
            inside = np.flatnonzero((times_s >= self.between_s[0]) & (times_s <= self.between_s[1]))
            self.dropped += int(times_s.size - inside.size)
            piece = piece.rows(inside)
        if self._each > 1.0:
            piece = piece.rows(np.flatnonzero(self._random.random(piece.times_s.size) < 1.0 / self._each))
        self._pieces.append(piece)
        self._rows += piece.times_s.size
        if self._rows > self.max_rows:
            self._shrink()

    def columns(self) -> Columns:
        """All requests by time, without those at a time far from most."""
        return self._without_strays(self._joined())

    def _joined(self) -> Columns:
        joined = Columns(
            times_s=np.concatenate([np.empty(0), *(p.times_s for p in self._pieces)]),
            prompt=np.concatenate([np.empty(0, dtype=np.int32), *(p.prompt for p in self._pieces)]),
            output=np.concatenate([np.empty(0, dtype=np.int32), *(p.output for p in self._pieces)]),
            cached=_optional([(p.times_s.size, p.cached) for p in self._pieces]),
            requests_each=self._each,
            blocks_at=_optional([(p.times_s.size, p.blocks_at) for p in self._pieces]),
        )
        times = joined.times_s
        return joined.rows(np.argsort(times, kind="stable")) if np.any(times[1:] < times[:-1]) else joined

    def _without_strays(self, columns: Columns) -> Columns:
        """The largest group of requests with no hole of a month in it."""
        times = columns.times_s
        edges = np.flatnonzero(np.diff(times) > STRAY_GAP_S) + 1
        if edges.size == 0:
            return columns
        bounds = np.r_[0, edges, times.size]
        largest = int(np.diff(bounds).argmax())
        low, high = int(bounds[largest]), int(bounds[largest + 1])
        self.problems[STRAY] += times.size - (high - low)
        return columns.between(float(times[low]), float(times[high - 1]))

    def _shrink(self) -> None:
        """Let go what lies before the window, then every second row where that is not enough."""
        whole = self._joined()
        kept = whole
        if self.window_s is not None:
            held = self._without_strays(whole)
            end = float(held.times_s[-1])
            kept = held.between(end - self.window_s, end)
            self.dropped += whole.times_s.size - kept.times_s.size
        if kept.times_s.size > self.max_rows // 2:
            chosen = np.flatnonzero(self._random.random(kept.times_s.size) < 0.5)
            kept = kept.rows(chosen)
            self._each *= 2.0
        self._pieces, self._rows = [kept], kept.times_s.size


def _optional(columns: Sequence[tuple[int, Tokens | None]]) -> Tokens | None:
    """A column that pieces of so many rows have or have not, one behind the other; None: none has it."""
    if all(column is None for _, column in columns):
        return None
    return np.concatenate([np.full(n, UNKNOWN, dtype=np.int32) if c is None else c for n, c in columns])
