"""Dots with whiskers: what a metric may really be, plan by plan, beside its limit."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.metrics import Metric
from autotune.report.html.scale import fitted
from autotune.report.html.scatter import Marked, ScatterLimit
from autotune.report.html.shapes import Chart, Shape, circle, diamond, line, rect, square, text, tick_label

WIDTH = 400
LEFT, RIGHT, TOP, ROW = 8, 388, 10, 36


def interval_chart(
    metric: Metric, rows: Sequence[tuple[Marked, str]], *, limit: ScatterLimit | None, least: bool
) -> Chart:
    """One row per plan, `(plan, name)`; the whisker reaches from p10 to p90."""
    ends = [metric.interval(m.plan) for m, _ in rows]
    values = [v for pair in ends for v in pair]
    reach = 2.0 * max(values, default=1.0)
    shown = limit is not None and limit.value <= reach
    scale = fitted([*values, limit.value] if limit is not None and shown else values, start=LEFT, end=RIGHT, count=4)
    bottom = TOP + ROW * len(rows)
    out: list[Shape] = []
    if limit is not None and shown:
        at = scale.at(scale.clamp(limit.value))
        x0, x1 = (LEFT, at) if least else (at, RIGHT)
        out += [rect(x0, TOP - 8, x1 - x0, bottom - TOP + 8, "beyond")]
    for value in scale.ticks:
        at = scale.at(value)
        anchor = "start" if at < LEFT + 6 else "end" if at > RIGHT - 6 else "middle"
        out += [
            line(at, TOP - 8, at, bottom, "grid"),
            text(at, bottom + 18, tick_label(value), anchor=anchor),
        ]
    if limit is not None and shown:
        at = scale.at(scale.clamp(limit.value))
        out += [line(at, TOP - 8, at, bottom, "limit")]
    for i, ((mark, name), (low, high)) in enumerate(zip(rows, ends, strict=True)):
        y = TOP + ROW * i + 22
        at = scale.at(scale.clamp(metric.of(mark.plan)))
        out += [
            text(LEFT, y - 11, name, f"row-label {mark.role}"),
            line(scale.at(scale.clamp(low)), y, scale.at(scale.clamp(high)), y, f"whisker {mark.role}"),
        ]
        if mark.role == "first":
            out.append(diamond(at, y, "mark first", mark.tip, mark.plan.plan, size=6.5))
        elif mark.role == "base":
            out.append(square(at, y, "mark base", mark.tip, mark.plan.plan, size=5.0))
        else:
            out.append(circle(at, y, "mark plan", mark.tip, mark.plan.plan))
    note = "" if limit is None else f"{limit.label[0].upper()}{limit.label[1:]}{'' if shown else ', off the axis'}."
    return Chart(
        title=f"{metric.title}, {metric.unit}",
        description=f"{metric.title} of the first plans with the interval from p10 to p90, in {metric.unit}.",
        width=WIDTH,
        height=bottom + 26,
        shapes=tuple(out),
        note=note,
    )
