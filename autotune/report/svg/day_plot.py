"""A day's load, what there is room for, and the share of requests within the limits, by the hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.report.svg.scale import Scale, linear
from autotune.report.svg.shapes import Chart, Shape, frame, path, svg_file, text

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 66, 544, 34, 250
STYLE = """
text { font: 12px sans-serif; fill: #444; } .grid { stroke: #e3e3e3; } .axis { stroke: #444; }
.trend { fill: none; stroke-width: 2.25; } .trend.first { stroke: #0a5fb4; }
.trend.best { stroke: #00735c; stroke-dasharray: 5 4; } .limit { fill: none; stroke: #a3195b; stroke-dasharray: 6 4; }
.limit-text { fill: #a3195b; }
"""
HOUR_S = 3600.0
KEY_CHARACTER, KEY_GAP = 10.0, 10.0
"""Width of a letter of the key where it is largest, on a phone, and what lies between two of its entries."""


def load_chart(document: Mapping[str, Any]) -> Chart:
    """Requests per second over the day: what is expected, what is planned for, what there is room for."""
    steps = document["steps"]
    most = max(max(s["planned_per_s"], s["capacity_per_s"]) for s in steps)
    xs, ys = _hours(document), linear(0.0, most, start=BOTTOM, end=TOP)
    out = _frame(xs, ys, "requests/s in the fullest minute")
    for field, css in (("load_per_s", "trend best"), ("planned_per_s", "limit"), ("capacity_per_s", "trend first")):
        out.append(path(_stairs(document, xs, ys, [s[field] for s in steps]), css))
    out += _key((("solid: room", "tick"), ("green: expected", "tick"), ("red: planned", "limit-text")))
    return Chart(
        title="Load and capacity by the hour",
        description="Requests per second that are expected, that are planned for, and that there is room for.",
        width=WIDTH,
        height=HEIGHT,
        shapes=tuple(out),
    )


def attainment_chart(document: Mapping[str, Any], *, surges: bool) -> Chart:
    """Share of requests within the limits over the replayed day: planned, and as the load came with a threshold."""
    rows = document["replay"]["with_surges" if surges else "strategies"]
    chosen = [
        (s, css)
        for s in rows
        for name, css in (("planned", "trend first"), ("reactive", "limit"))
        if s["strategy"] == name
    ]
    values = {css: [None if x is None else 100.0 * x for x in s["attainment_by_step"]] for s, css in chosen}
    least = min((x for row in values.values() for x in row if x is not None), default=0.0)
    xs, ys = _hours(document), linear(min(least, 99.0), 100.0, start=BOTTOM, end=TOP)
    out = _frame(xs, ys, "% of requests within the limits")
    out += [path(_stairs(document, xs, ys, row), css) for css, row in values.items()]
    out += _key((("solid: planned", "tick"), ("dashed: reactive", "limit-text")))
    return Chart(
        title=f"Replayed day{', with surges' if surges else ''}: within the limits by the hour",
        description="Share of simulated requests that keep every limit, of the schedule and of a threshold scaler.",
        width=WIDTH,
        height=HEIGHT,
        shapes=tuple(out),
    )


def day_pictures(document: Mapping[str, Any]) -> dict[str, str]:
    """Load and capacity, and what the replay met, as files of their own by name."""
    charts = {
        "day.svg": load_chart(document),
        "attainment.svg": attainment_chart(document, surges=False),
        "attainment-with-surges.svg": attainment_chart(document, surges=True),
    }
    return {name: svg_file(chart, STYLE) for name, chart in charts.items()}


def _hours(document: Mapping[str, Any]) -> Scale:
    first, last = document["steps"][0]["start_s"], document["steps"][-1]["start_s"] + document["step_s"]
    return linear(first / HOUR_S, last / HOUR_S, start=LEFT, end=RIGHT, count=12)


def _frame(xs: Scale, ys: Scale, title: str) -> list[Shape]:
    return frame(xs, ys, "hour of the day, UTC", title)


def _stairs(document: Mapping[str, Any], xs: Scale, ys: Scale, values: Sequence[float | None]) -> str:
    """Level in each step, the pen lifted where there is no value or no step."""
    out, end = "", None
    for step, value in zip(document["steps"], values, strict=True):
        if value is None:
            end = None
            continue
        start = step["start_s"]
        out += f"V{ys.at(value):g}" if end == start else f"M{xs.at(start / HOUR_S):g} {ys.at(value):g}"
        end = start + document["step_s"]
        out += f"H{xs.at(end / HOUR_S):g}"
    return out


def _key(items: Sequence[tuple[str, str]]) -> list[Shape]:
    at, out = float(LEFT), []
    for words, css in items:
        out.append(text(at, HEIGHT - 6, words, css))
        at += KEY_CHARACTER * len(words) + KEY_GAP
    return out
