"""Bars: seconds by operator beside the baseline's, and stacks of parts against a limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.report.html.scale import finite_positive, linear
from autotune.report.html.shapes import Chart, Shape, line, rect, text, tick_label
from autotune.text.numbers import number

WIDTH = 560
LEFT, RIGHT = 4, 470
BAR, GAP, LABEL = 11, 3, 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One plan's values by part."""

    name: str
    role: str
    """`first` or `base`: its colour."""
    values: Mapping[str, float]


def grouped_bars(
    title: str, *, unit: str, words: Mapping[str, str], series: Sequence[Series], total: str = "Total"
) -> Chart:
    """Parts in rows, largest first, a bar for each plan; labels stand above their bars, sums in the last row."""
    names = [n for n in words if any(s.values.get(n, 0.0) > 0.0 for s in series)]
    names.sort(key=lambda n: -max(s.values.get(n, 0.0) for s in series))
    highest = max(finite_positive(s.values.get(n, 0.0) for s in series for n in names), default=1.0)
    scale = linear(0.0, highest, start=LEFT, end=RIGHT)
    room = RIGHT / scale.at(highest)  # bars may use the whole width: there is no axis, each has its figure
    out: list[Shape] = []
    y = 4.0
    for name in names:
        out.append(text(LEFT, y + 13, words[name], "row-label"))
        y += LABEL
        for s in series:
            value = s.values.get(name, 0.0)
            width = (scale.at(value) - LEFT) * room
            shown = f"{number(value)} {unit}"
            out.append(rect(LEFT, y, max(width, 1.0), BAR, f"bar {s.role}", f"{s.name}\n{words[name]}: {shown}"))
            out.append(text(LEFT + max(width, 1.0) + 6, y + 10.5, number(value), "value"))
            y += BAR + GAP
        y += 7.0
    sums = "   ".join(f"{number(sum(s.values.values()))} {unit}" for s in series)
    return Chart(
        title=f"{title}, {unit}",
        description=f"{title}, by operator in {unit}: {', '.join(s.name for s in series)}. {total} {sums}.",
        width=WIDTH,
        height=round(y),
        shapes=tuple(out),
    )


def stacked_bars(
    title: str,
    *,
    unit: str,
    parts: Sequence[tuple[str, str]],
    series: Sequence[Series],
    capacity: float | None = None,
    limit: tuple[float, str] | None = None,
) -> Chart:
    """One bar per plan, made of `parts` `(key, words)`; a frame as long as `capacity`, a line at `limit`."""
    left, right, top, height, row = 8, 548, 30, 30, 72
    highest = max([capacity or 0.0, *(sum(s.values.values()) for s in series)])
    scale = linear(0.0, highest or 1.0, start=left, end=right)
    bottom = top + row * len(series)
    out: list[Shape] = []
    for value in scale.ticks:
        at = scale.at(value)
        anchor = "start" if at < left + 6 else "end" if at > right - 6 else "middle"
        out += [line(at, top, at, bottom, "grid"), text(at, bottom + 18, tick_label(value), anchor=anchor)]
    out.append(text((left + right) / 2, bottom + 40, unit, "axis-title", anchor="middle"))
    for i, s in enumerate(series):
        y = top + row * i + 28
        total = sum(s.values.values())
        out.append(text(left, y - 8, f"{s.name}: {number(total)} {unit}", f"row-label {s.role}"))
        if capacity is not None:
            out.append(rect(left, y, scale.at(capacity) - left, height, "capacity"))
        at = 0.0
        for j, (key, words) in enumerate(parts):
            value = s.values.get(key, 0.0)
            if value <= 0.0:
                continue
            x = scale.at(at)
            tip = f"{s.name}\n{words}: {number(value)} {unit}, {value / total:.0%} of what is in use"
            out.append(rect(x, y, scale.at(at + value) - x, height, f"part part-{j}", tip))
            at += value
    if limit is not None and limit[0] <= scale.high:
        at = scale.at(limit[0])
        right_half = at > (left + right) / 2
        out += [
            line(at, top - 12, at, bottom, "limit"),
            text(
                at - 6 if right_half else at + 6,
                top - 4,
                limit[1],
                "limit-text",
                anchor="end" if right_half else "start",
            ),
        ]
    drawn = [(j, words) for j, (key, words) in enumerate(parts) if any(s.values.get(key, 0.0) > 0.0 for s in series)]
    return Chart(
        title=title,
        description=f"{title} in {unit}: {', '.join(s.name for s in series)}.",
        width=WIDTH,
        height=bottom + 48,
        shapes=tuple(out),
        legend=tuple((f"part-{j}", words) for j, words in drawn),
    )
