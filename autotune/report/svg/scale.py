"""Axes: from values to places on the paper, with ticks at round numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

LOG_BEYOND = 12.0
"""An axis whose largest value is this many times its smallest is logarithmic."""
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
LOG_STEPS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """One axis: `low` lies at `start`, `high` at `end` (SVG units; `end < start` for an axis that points up)."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, rounded to a tenth of a unit; values outside stay outside."""
        if self.log:
            share = log10(max(value, 1e-300) / self.low) / log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def clamp(self, value: float) -> float:
        """The value, or the end of the axis that it lies beyond."""
        return min(max(value, self.low), self.high)

    def holds(self, value: float) -> bool:
        """Whether the value lies on the axis."""
        return self.low <= value <= self.high


def finite_positive(values: Iterable[float | None]) -> list[float]:
    """What can be drawn."""
    return [v for v in values if v is not None and isfinite(v) and v > 0.0]


def linear(low: float, high: float, *, start: float, end: float, count: int = 5) -> Scale:
    """An axis over `[low, high]` and a little more, to the next round tick."""
    if not high > low:
        high = low + max(abs(low), 1.0)
    step = _step((high - low) / count)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
    return Scale(low=ticks[0], high=ticks[-1], start=start, end=end, ticks=ticks)


def logarithmic(low: float, high: float, *, start: float, end: float, count: int = 6) -> Scale:
    """A logarithmic axis over `[low, high]`, both positive, with a twentieth of a decade to spare."""
    if not high > low:
        low, high = low / 1.5, low * 1.5
    low, high = low / 1.12, high * 1.12
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    options = [tuple(m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high) for steps in LOG_STEPS]
    fitting = [o for o in options if 2 <= len(o) <= count] or [o for o in options if len(o) >= 2] or [(low, high)]
    ticks = max(fitting, key=len) if len(fitting[0]) <= count else fitting[0]
    return Scale(low=low, high=high, start=start, end=end, ticks=ticks, log=True)


def fitted(
    values: Iterable[float | None], *, start: float, end: float, count: int = 5, most: float | None = None
) -> Scale:
    """The axis for positive values, and up to `most`: from zero, or logarithmic where they span over `LOG_BEYOND`."""
    drawn = finite_positive(values) or [1.0]
    high = max(*drawn, most or 0.0)
    if max(drawn) / min(drawn) > LOG_BEYOND:
        return logarithmic(min(drawn), high, start=start, end=end, count=count + 1)
    return linear(0.0, high * 1.04, start=start, end=end, count=count)


def _step(least: float) -> float:
    """The round number at or above `least`."""
    power = 10.0 ** floor(log10(least))
    return power * next(s for s in STEPS if s * power >= least * (1.0 - 1e-9))
