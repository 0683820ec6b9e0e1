"""Throughput against a latency: every plan, the Pareto front, the first plan and the baseline, and the limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.metrics import Metric
from autotune.report.html.scale import Scale, finite_positive, fitted, linear
from autotune.report.html.shapes import Chart, Shape, circle, diamond, dots, frame, line, path, rect, square, text
from autotune.tuning import PlanResult

WIDTH, HEIGHT = 560, 384
LEFT, RIGHT, TOP, BOTTOM = 66, 544, 34, 330
FAR = 2.5
"""Plans that break a limit are drawn up to this many times beyond the furthest that keeps all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A plan that can be pointed at."""

    plan: PlanResult
    tip: str
    role: str
    """`first`, `base` or `plan`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatterLimit:
    """A limit on one of the two axes, in the axis's unit."""

    value: float
    label: str


def scatter(
    *,
    x: Metric,
    y: Metric,
    marked: Sequence[Marked],
    feasible: Sequence[PlanResult],
    infeasible: Sequence[PlanResult],
    most_x: ScatterLimit | None,
    least_y: ScatterLimit | None,
) -> Chart:
    """`marked` are drawn large, the rest of `feasible` and `infeasible` as dots."""
    known = {m.plan.plan for m in marked}
    rest = [p for p in feasible if p.plan not in known]
    others = [p for p in infeasible if p.plan not in known]
    xs, ys = _axes(x, y, marked, feasible, others, most_x, least_y)
    out = frame(xs, ys, f"{x.title}, {x.unit}{', logarithmic' if xs.log else ''}", f"{y.title}, {y.unit}")
    out += _limits(xs, ys, most_x, least_y)
    drawn = [p for p in others if _inside(xs, ys, x, y, p)]
    out += [dots([(xs.at(x.of(p)), ys.at(y.of(p))) for p in drawn], "dot-out")] if drawn else []
    out += [dots([(xs.at(x.of(p)), ys.at(y.of(p))) for p in rest], "dot-plan")] if rest else []
    front = pareto([(x.of(p), y.of(p)) for p in feasible])
    special = [m for m in marked if m.role != "plan"]
    out += [_mark(xs, ys, x, y, m) for m in marked if m.role == "plan"]
    out += _front(xs, ys, front)
    out += [s for m in special for s in _whiskers(xs, ys, x, y, m)]
    out += [_mark(xs, ys, x, y, m) for m in reversed(special)]
    return Chart(
        title=f"{y.title} against {x.title if x.title == x.title.upper() else x.title[:4]}",
        description=f"Each mark is a plan: {x.title} in {x.unit} across, {y.title} in {y.unit} up.",
        width=WIDTH,
        height=HEIGHT,
        shapes=tuple(out),
        note=_note(xs, ys, most_x, least_y, len(others) - len(drawn)),
    )


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other beats on both, from the smallest x on: less of x and more of y is better."""
    out: list[tuple[float, float]] = []
    for px, py in sorted(points, key=lambda p: (p[0], -p[1])):
        if not out or py > out[-1][1]:
            out.append((px, py))
    return out


def _axes(
    x: Metric,
    y: Metric,
    marked: Sequence[Marked],
    feasible: Sequence[PlanResult],
    others: Sequence[PlanResult],
    most_x: ScatterLimit | None,
    least_y: ScatterLimit | None,
) -> tuple[Scale, Scale]:
    """Room for what keeps every limit and for what is marked; others and limits where they are not far off."""
    core = [*feasible, *(m.plan for m in marked)]
    ends = []
    for metric, limit in ((x, most_x), (y, least_y)):
        values = finite_positive(metric.of(p) for p in core) or [1.0]
        reach = FAR * max(values)
        special = [m.plan for m in marked if m.role != "plan"]
        whiskers = finite_positive(min(metric.interval(p)[1], reach) for p in special)
        near = [v for p in others if max(values) < (v := metric.of(p)) <= reach]
        near += [limit.value] if limit is not None and limit.value <= reach else []
        ends.append((values, [*values, *whiskers, *near]))
    (core_x, all_x), (_, all_y) = ends
    high_y = max(all_y) * 1.04
    return (
        fitted(core_x, start=LEFT, end=RIGHT, most=max(all_x)),
        linear(0.0, high_y, start=BOTTOM, end=TOP, count=7),
    )


def _inside(xs: Scale, ys: Scale, x: Metric, y: Metric, plan: PlanResult) -> bool:
    return xs.holds(x.of(plan)) and ys.holds(y.of(plan))


def _limits(xs: Scale, ys: Scale, most_x: ScatterLimit | None, least_y: ScatterLimit | None) -> list[Shape]:
    out: list[Shape] = []
    if most_x is not None and most_x.value < xs.high:
        at = xs.at(max(most_x.value, xs.low))
        out.append(rect(at, ys.end, xs.end - at, ys.start - ys.end, "beyond"))
        if most_x.value >= xs.low:
            out.append(line(at, ys.start, at, ys.end, "limit"))
        right = at > (xs.start + xs.end) / 2
        out.append(
            text(
                at - 6 if right else at + 6, ys.end + 13, most_x.label, "limit-text", anchor="end" if right else "start"
            )
        )
    if least_y is not None and least_y.value > ys.low:
        at = ys.at(min(least_y.value, ys.high))
        out.append(rect(xs.start, at, xs.end - xs.start, ys.start - at, "beyond"))
        out.append(line(xs.start, at, xs.end, at, "limit"))
        out.append(text(xs.start + 6, at - 6, least_y.label, "limit-text"))
    return out


def _front(xs: Scale, ys: Scale, front: Sequence[tuple[float, float]]) -> list[Shape]:
    """The front as stairs: between two plans of it nothing better is known than the lower one."""
    if not front:
        return []
    places = [(xs.at(px), ys.at(py)) for px, py in front]
    d = f"M{places[0][0]:g} {ys.start:g}V{places[0][1]:g}"
    d += "".join(f"H{px:g}V{py:g}" for px, py in places[1:])
    return [path(d, "front")]


def _whiskers(xs: Scale, ys: Scale, x: Metric, y: Metric, mark: Marked) -> list[Shape]:
    (left, right), (low, high) = x.interval(mark.plan), y.interval(mark.plan)
    cx, cy = xs.at(xs.clamp(x.of(mark.plan))), ys.at(ys.clamp(y.of(mark.plan)))
    css = f"whisker {mark.role}"
    return [
        line(xs.at(xs.clamp(left)), cy, xs.at(xs.clamp(right)), cy, css),
        line(cx, ys.at(ys.clamp(low)), cx, ys.at(ys.clamp(high)), css),
    ]


def _mark(xs: Scale, ys: Scale, x: Metric, y: Metric, mark: Marked) -> Shape:
    cx, cy = xs.at(xs.clamp(x.of(mark.plan))), ys.at(ys.clamp(y.of(mark.plan)))
    if mark.role == "first":
        return diamond(cx, cy, "mark first", mark.tip, mark.plan.plan)
    if mark.role == "base":
        return square(cx, cy, "mark base", mark.tip, mark.plan.plan)
    css = "mark plan" if mark.plan.feasible else "mark out"
    return circle(cx, cy, css, mark.tip, mark.plan.plan)


def _note(xs: Scale, ys: Scale, most_x: ScatterLimit | None, least_y: ScatterLimit | None, outside: int) -> str:
    said = []
    if most_x is not None and most_x.value >= xs.high:
        said.append(f"The {most_x.label} lies beyond the right edge.")
    if least_y is not None and least_y.value > ys.high:
        said.append(f"The {least_y.label} lies above the upper edge.")
    if outside:
        said.append(f"{outside:,} infeasible plan{'s lie' if outside > 1 else ' lies'} outside the axes.")
    return " ".join(said)
