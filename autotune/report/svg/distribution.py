"""Shares of requests by latency, and requests over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.report.svg.scale import linear
from autotune.report.svg.shapes import Chart, frame, polyline

WIDTH, HEIGHT = 400, 290
LEFT, RIGHT, TOP, BOTTOM = 62, 388, 34, 234


def cumulative(points: Sequence[Sequence[float]], *, title: str) -> Chart:
    """Share of requests (per cent) that take at most so many milliseconds; `points` are (share, seconds)."""
    values = [1e3 * seconds for _, seconds in points]
    xs, ys = linear(0.0, max(*values, 1e-6), start=LEFT, end=RIGHT), linear(0.0, 100.0, start=BOTTOM, end=TOP)
    out = frame(xs, ys, "ms", "% of requests")
    places = [(xs.at(value), ys.at(100.0 * share)) for (share, _), value in zip(points, values, strict=True)]
    out.append(polyline(places, "trend first"))
    return Chart(
        title=title,
        description=f"{title}: share of simulated requests that take at most so long.",
        width=WIDTH,
        height=HEIGHT,
        shapes=tuple(out),
    )


def over_time(
    rows: Sequence[Mapping[str, float]], series: Sequence[tuple[str, str]], *, title: str, unit: str
) -> Chart:
    """Series of a timeline against seconds; `series` are (field, CSS class)."""
    end = max(rows[-1]["time_s"], 1e-9)
    most = max(max(row[name] for row in rows) for name, _ in series) or 1.0
    xs, ys = linear(0.0, end, start=LEFT, end=RIGHT), linear(0.0, most, start=BOTTOM, end=TOP)
    out = frame(xs, ys, "s", unit)
    for name, css in series:
        out.append(polyline([(xs.at(row["time_s"]), ys.at(row[name])) for row in rows], css))
    return Chart(
        title=title,
        description=f"{title} over the simulated time.",
        width=WIDTH,
        height=HEIGHT,
        shapes=tuple(out),
    )
