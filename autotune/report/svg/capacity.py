"""Capacity while one plan replaces another, wave by wave, against the load."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.report.svg.scale import fitted
from autotune.report.svg.shapes import Chart, frame, line, path, rect, text
from autotune.text.numbers import number

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 66, 544, 34, 264


def capacity_chart(waves: Sequence[tuple[float, float]], *, before: float, after: float, load: float | None) -> Chart:
    """Requests per second over minutes.

    `waves`: (seconds, requests/s that can be served meanwhile), in order.
    """
    whole = sum(s for s, _ in waves) / 60.0
    xs = fitted([whole * 1.1], start=LEFT, end=RIGHT, count=6)
    ys = fitted([before, after, *([load] if load else [])], start=BOTTOM, end=TOP, most=max(c for _, c in waves))
    if ys.log:
        ys = fitted([max(before, after, load or 0.0)], start=BOTTOM, end=TOP)
    out = frame(xs, ys, "minutes from the start", "Capacity, requests/s")
    now, d = 0.0, f"M{xs.start:g} {ys.at(before):g}"
    for seconds, capacity in waves:
        start, now = now, now + seconds / 60.0
        d += f"V{ys.at(capacity):g}H{xs.at(now):g}"
        if load and capacity < load:
            short = f"{number(load - capacity)} requests/s find no room for {number(seconds / 60.0)} min"
            top = ys.at(load)
            out.append(
                rect(xs.at(start), top, xs.at(now) - xs.at(start), round(ys.at(capacity) - top, 1), "beyond", short)
            )
    out.append(path(d + f"V{ys.at(after):g}H{xs.end:g}", "trend first"))
    if load:
        at = ys.at(load)
        out += [line(xs.start, at, xs.end, at, "limit"), text(xs.end, at - 6, "load", "limit-text", anchor="end")]
    return Chart(
        title="Capacity during the switch",
        description="Requests per second that can be served while replicas restart, wave by wave, and the load.",
        width=WIDTH,
        height=HEIGHT,
        shapes=tuple(out),
    )
