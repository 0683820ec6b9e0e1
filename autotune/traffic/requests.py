"""Requests of a log as compact columns, gathered in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autotune.traffic.blocks import BoundedCaches
from autotune.traffic.problems import CLOCK_JUMP, CLOCK_STEP_S, STRAY
from costmodel.plan.columns import Floats

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
    caches: BoundedCaches | None = None
    """What caches of bounded size would have found, where that is counted."""
    earliest_s: float = np.inf
    """Of all requests, those before the window as well."""
    dropped: int = 0
    """Rows that were let go because they lie before the window."""
    _pieces: list[tuple[Floats, Tokens, Tokens, Tokens | None]] = field(default_factory=list)
    _rows: int = 0
    _each: float = 1.0
    _last_s: float = -np.inf
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(SEED))

    def add(self, times_s: Floats, prompt: Tokens, output: Tokens, cached: Tokens | None = None) -> None:
        """Take requests in the order of the log, all of shape `(num_rows,)`."""
        if times_s.size == 0:
            return
        self.problems[CLOCK_JUMP] += int((np.diff(times_s, prepend=max(self._last_s, -1e300)) < -CLOCK_STEP_S).sum())
        self._last_s = float(times_s[-1])
        self.earliest_s = min(self.earliest_s, float(times_s.min()))
        if self.between_s is not None:
            inside = (times_s >= self.between_s[0]) & (times_s <= self.between_s[1])
            self.dropped += int(times_s.size - inside.sum())
            times_s, prompt, output = times_s[inside], prompt[inside], output[inside]
            cached = None if cached is None else cached[inside]
        if self._each > 1.0:
            kept = self._random.random(times_s.size) < 1.0 / self._each
            times_s, prompt, output = times_s[kept], prompt[kept], output[kept]
            cached = None if cached is None else cached[kept]
        self._pieces.append((times_s, prompt, output, cached))
        self._rows += times_s.size
        if self._rows > self.max_rows:
            self._shrink()

    def columns(self) -> Columns:
        """All requests by time, without those at a time far from most."""
        return self._without_strays(self._joined())

    def _joined(self) -> Columns:
        cached = None
        if any(piece[3] is not None for piece in self._pieces):
            cached = np.concatenate(
                [np.full(p[0].size, UNKNOWN, dtype=np.int32) if p[3] is None else p[3] for p in self._pieces]
            )
        times = np.concatenate([np.empty(0), *(p[0] for p in self._pieces)])
        prompt = np.concatenate([np.empty(0, dtype=np.int32), *(p[1] for p in self._pieces)])
        output = np.concatenate([np.empty(0, dtype=np.int32), *(p[2] for p in self._pieces)])
        if np.any(times[1:] < times[:-1]):
            order = np.argsort(times, kind="stable")
            times, prompt, output = times[order], prompt[order], output[order]
            cached = None if cached is None else cached[order]
        return Columns(times_s=times, prompt=prompt, output=output, cached=cached, requests_each=self._each)

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
        self._pieces, self._rows = [(kept.times_s, kept.prompt, kept.output, kept.cached)], kept.times_s.size
