"""Dots with whiskers: what a metric may really be, plan by plan, beside its limit."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.metrics import Metric
from autotune.report.svg.scale import fitted
from autotune.report.svg.scatter import Marked, ScatterLimit
from autotune.report.svg.shapes import Chart, Shape, line, plan_mark, rect, text, x_grid

WIDTH = 400
LEFT, RIGHT, TOP, ROW = 8, 388, 10, 36


def interval_chart(metric: Metric, rows: Sequence[tuple[Marked, str]], limit: ScatterLimit | None) -> Chart:
    """One row per plan, `(plan, name)`; the whisker reaches from p10 to p90. `limit`: the most that is allowed."""
    ends = [metric.interval(m.plan) for m, _ in rows]
    values = [v for pair in ends for v in pair]
    shown = limit is not None and limit.value <= 2.0 * max(values, default=1.0)
    scale = fitted([*values, limit.value] if limit is not None and shown else values, start=LEFT, end=RIGHT, count=4)
    top, bottom = TOP - 8, TOP + ROW * len(rows)
    out: list[Shape] = []
    if limit is not None and shown:
        at = scale.at(scale.clamp(limit.value))
        out = [rect(at, top, RIGHT - at, bottom - top, "beyond"), line(at, top, at, bottom, "limit")]
    out += x_grid(scale, top, bottom)
    for i, ((mark, name), (low, high)) in enumerate(zip(rows, ends, strict=True)):
        y = TOP + ROW * i + 22
        at = scale.at(scale.clamp(metric.of(mark.plan)))
        out += [
            text(LEFT, y - 11, name, f"row-label {mark.role}"),
            line(scale.at(scale.clamp(low)), y, scale.at(scale.clamp(high)), y, f"whisker {mark.role}"),
            plan_mark(at, y, mark.role, mark.tip(metric), mark.plan.plan, size=6.5),
        ]
    note = "" if limit is None else f"{limit.label[0].upper()}{limit.label[1:]}{'' if shown else ', off the axis'}."
    return Chart(
        title=metric.label,
        description=f"{metric.title} of the first plans with their likely ranges (80 %), in {metric.unit}.",
        width=WIDTH,
        height=bottom + 26,
        shapes=tuple(out),
        note=note,
    )
