"""The winner and the best plan as one figure of the study changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotune.metrics import Metric
from autotune.report.svg.scale import Scale, finite_positive, fitted, logarithmic
from autotune.report.svg.shapes import Chart, circle, frame, line, path, text
from autotune.report.vocabulary.titles import LIMITS
from autotune.report.vocabulary.words import percent, times
from autotune.text.numbers import probability
from autotune.tuning.sensitivity import AxisSensitivity, Point

WIDTH, HEIGHT = 400, 290
LEFT, RIGHT, TOP, BOTTOM = 62, 388, 34, 234


def trend(axis: AxisSensitivity, metric: Metric, name: Callable[[str], str], title: str) -> Chart:
    """Expected objective of the study's winner and of the best plan at each factor; `name` shortens plan strings."""
    factors = [p.factor for p in axis.points]
    values = [v * metric.factor for p in axis.points for v in finite_positive((p.best_expected, p.chosen_expected))]
    xs = logarithmic(min(factors), max(factors), start=LEFT, end=RIGHT, count=7)
    ys = fitted(values, start=BOTTOM, end=TOP, count=4)
    shown = [f for f in factors if f in (factors[0], factors[-1], 1.0) or 0.75 <= f <= 0.85 or 1.2 < f < 1.3]
    out = frame(xs, ys, "times what the study says", metric.unit, [(f, times(f)) for f in shown])
    out.append(line(xs.at(1.0), BOTTOM, xs.at(1.0), TOP, "study"))
    for flip in axis.flips:
        at, (gap, anchor) = xs.at(flip.factor), (4, "start") if flip.factor <= 1.0 else (-4, "end")
        out.append(line(at, BOTTOM, at, TOP, "flip"))
        out.append(text(at + gap, TOP + 10, times(flip.factor), "flip-text", anchor=anchor))
    best = [(p.factor, p.best_expected) for p in axis.points]
    mine = [(p.factor, p.chosen_expected) for p in axis.points]
    for series, css in ((best, "trend best"), (mine, "trend first")):
        out.append(path(_polyline(xs, ys, metric, series), css))
    for p in axis.points:
        tip = _tip(p, metric, name)
        if p.best_expected:
            out.append(circle(xs.at(p.factor), ys.at(p.best_expected * metric.factor), "mark best", tip))
        if p.chosen_expected:
            out.append(circle(xs.at(p.factor), ys.at(p.chosen_expected * metric.factor), "mark first small", tip))
    return Chart(
        title=title,
        description=f"Expected {metric.title} of the study's winner and of the best plan against {title}.",
        width=WIDTH,
        height=HEIGHT,
        shapes=tuple(out),
    )


def _polyline(xs: Scale, ys: Scale, metric: Metric, series: Sequence[tuple[float, float | None]]) -> str:
    """A line through the values, broken where there is none."""
    out, pen = "", "M"
    for factor, value in series:
        if value:
            out += f"{pen}{xs.at(factor):g} {ys.at(value * metric.factor):g}"
        pen = "L" if value else "M"
    return out


def lost(p: Point) -> str:
    """What keeping the study's winner costs, as a sentence ends: `loses 4.1%`, `makes a request take 29.0% longer`."""
    share = percent(p.loss_frac, 1)
    return f"makes a request take {share} longer" if p.loses_time else f"loses {share}"


def _tip(p: Point, metric: Metric, name: Callable[[str], str]) -> str:
    if p.best is None:
        return f"{times(p.factor)}: no plan keeps every limit"
    first = f"{times(p.factor)}: best is {name(p.best)}, {metric.text(p.best_expected or 0.0)} {metric.unit}"
    if p.chosen_expected is None:
        return f"{first}\nthe study's winner breaks {', '.join(LIMITS[code] for code in p.chosen_breaks)}"
    mine = f"the study's winner: {metric.text(p.chosen_expected)} {metric.unit}"
    if not p.loss_frac:
        return f"{first}\n{mine}"
    return f"{first}\n{mine}, {lost(p)} (better with probability {probability(p.p_best_is_better)})"
