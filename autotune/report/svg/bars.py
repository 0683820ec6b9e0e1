"""Bars: seconds by operator beside the baseline's, and stacks of parts against a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autotune.report.svg.scale import finite_positive, linear
from autotune.report.svg.shapes import Chart, Shape, rect, text, x_grid, x_limit
from autotune.text.numbers import number

WIDTH = 560
LEFT, RIGHT = 4, 470
BAR, GAP, LABEL = 11, 3, 19
STACK_LEFT, STACK_RIGHT, STACK_TOP, STACK_HEIGHT, STACK_ROW = 8, 548, 30, 30, 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One plan's values by part."""

    name: str
    role: str
    """`first` or `base`: its colour."""
    values: Mapping[str, float]


def grouped_bars(title: str, *, unit: str, words: Mapping[str, str], series: Sequence[Series]) -> Chart:
    """Parts in rows, largest first, a bar for each plan; labels stand above their bars."""
    names = [n for n in words if any(s.values.get(n, 0.0) > 0.0 for s in series)]
    names.sort(key=lambda n: -max(s.values.get(n, 0.0) for s in series))
    highest = max(finite_positive(s.values.get(n, 0.0) for s in series for n in names), default=1.0)
    per_unit = (RIGHT - LEFT) / highest  # there is no axis: the longest bar takes the whole width
    out: list[Shape] = []
    y = 4.0
    for name in names:
        out.append(text(LEFT, y + 13, words[name], "row-label"))
        y += LABEL
        for s in series:
            value = s.values.get(name, 0.0)
            width = max(value * per_unit, 1.0)
            tip = f"{s.name}\n{words[name]}: {number(value)} {unit}"
            out.append(rect(LEFT, y, width, BAR, f"bar {s.role}", tip))
            out.append(text(round(LEFT + width + 6, 1), y + 10.5, number(value), "value"))
            y += BAR + GAP
        y += 7.0
    sums = ", ".join(f"{s.name} {number(sum(s.values.values()))}" for s in series)
    return Chart(
        title=f"{title}, {unit}",
        description=f"{title}, by operator; in all, {unit}: {sums}.",
        width=WIDTH,
        height=round(y),
        shapes=tuple(out),
    )


def stacked_bars(
    title: str,
    *,
    unit: str,
    parts: Mapping[str, str],
    series: Sequence[Series],
    capacity: float | None = None,
    limit: tuple[float, str] | None = None,
) -> Chart:
    """One bar per plan, made of `parts` (key -> words); a frame as long as `capacity`, a line at `limit`."""
    highest = max([capacity or 0.0, *(sum(s.values.values()) for s in series)])
    scale = linear(0.0, highest or 1.0, start=STACK_LEFT, end=STACK_RIGHT)
    bottom = STACK_TOP + STACK_ROW * len(series)
    out = x_grid(scale, STACK_TOP, bottom)
    out.append(text((STACK_LEFT + STACK_RIGHT) / 2, bottom + 40, unit, "axis-title", anchor="middle"))
    for i, s in enumerate(series):
        y = STACK_TOP + STACK_ROW * i + 28
        total = number(sum(s.values.values()))
        out.append(text(STACK_LEFT, y - 8, f"{s.name}: {total} {unit}", f"row-label {s.role}"))
        if capacity is not None:
            out.append(rect(STACK_LEFT, y, scale.at(capacity) - STACK_LEFT, STACK_HEIGHT, "capacity"))
        out += _stack(s, parts, unit, y, scale.at)
    if limit is not None and limit[0] <= scale.high:
        out += x_limit(scale, scale.at(limit[0]), STACK_TOP - 17, bottom, limit[1])
    drawn = [any(s.values.get(key, 0.0) > 0.0 for s in series) for key in parts]
    return Chart(
        title=title,
        description=f"{title} in {unit}: {', '.join(s.name for s in series)}.",
        width=WIDTH,
        height=bottom + 48,
        shapes=tuple(out),
        legend=tuple((f"part-{j}", words) for j, words in enumerate(parts.values()) if drawn[j]),
    )


def _stack(
    series: Series, parts: Mapping[str, str], unit: str, y: float, place: Callable[[float], float]
) -> list[Shape]:
    out, at, total = [], 0.0, sum(series.values.values())
    for j, (key, words) in enumerate(parts.items()):
        value = series.values.get(key, 0.0)
        if value > 0.0:
            tip = f"{series.name}\n{words}: {number(value)} {unit}, {value / total:.0%} of what is in use"
            x = place(at)
            out.append(rect(x, y, place(at + value) - x, STACK_HEIGHT, f"part part-{j}", tip))
            at += value
    return out
