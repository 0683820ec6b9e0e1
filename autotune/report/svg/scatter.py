"""Throughput against a latency: every plan, the Pareto front, the first plan and the baseline, and the limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.metrics import Metric
from autotune.report.svg.scale import Scale, finite_positive, fitted, linear
from autotune.report.svg.shapes import Chart, Shape, dots, frame, line, path, plan_mark, rect, text, x_limit
from autotune.report.vocabulary.metrics import PER_GPU, TPOT, TTFT
from autotune.report.vocabulary.words import count
from autotune.text.numbers import probability
from autotune.tuning import PlanResult

WIDTH, HEIGHT = 560, 384
LEFT, RIGHT, TOP, BOTTOM = 66, 544, 34, 330
FAR = 2.5
"""Plans that break a limit are drawn up to this many times beyond the furthest that keeps all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A plan that can be pointed at."""

    plan: PlanResult
    name: str
    role: str
    """`first`, `base` or `plan`."""

    def tip(self, *plotted: Metric) -> str:
        """What is said when it is pointed at: what the chart plots comes first."""
        metrics = dict.fromkeys((*plotted, PER_GPU, TTFT, TPOT))
        figures = [f"{m.title}: {m.shown(self.plan)}" for m in metrics]
        meets = f"keeps limits {probability(self.plan.p_meets)}, {self.plan.knobs.concurrency:,} in flight"
        return "\n".join([self.name, *figures, meets])


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatterLimit:
    """A limit on one of the two axes, in the axis's unit."""

    value: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """What is drawn."""

    x: Metric
    y: Metric
    marked: Sequence[Marked]
    """Drawn large; the rest of `feasible` and `infeasible` as dots."""
    feasible: Sequence[PlanResult]
    infeasible: Sequence[PlanResult]
    most_x: ScatterLimit | None = None
    least_y: ScatterLimit | None = None

    @property
    def others(self) -> tuple[list[PlanResult], list[PlanResult]]:
        """Plans of `feasible` and of `infeasible` that are not marked."""
        known = {m.plan.plan for m in self.marked}
        feasible, infeasible = ([p for p in plans if p.plan not in known] for plans in (self.feasible, self.infeasible))
        return feasible, infeasible


def scatter(drawing: Scatter) -> Chart:
    """The chart: less of x and more of y is better."""
    x, y = drawing.x, drawing.y
    rest, broken = drawing.others
    xs, ys = _axes(drawing, broken)

    def places(plans: Sequence[PlanResult]) -> list[tuple[float, float]]:
        return [(xs.at(x.of(p)), ys.at(y.of(p))) for p in plans]

    out = frame(xs, ys, f"{x.label}{', logarithmic' if xs.log else ''}", y.label)
    out += _limits(xs, ys, drawing)
    drawn = [p for p in broken if xs.holds(x.of(p)) and ys.holds(y.of(p))]
    out += [dots(places(plans), css) for plans, css in ((drawn, "dot-out"), (rest, "dot-plan")) if plans]
    special = [m for m in drawing.marked if m.role != "plan"]
    out += [_mark(xs, ys, drawing, m) for m in drawing.marked if m.role == "plan"]
    out += _front(xs, ys, pareto([(x.of(p), y.of(p)) for p in drawing.feasible]))
    out += [s for m in special for s in _whiskers(xs, ys, drawing, m)]
    out += [_mark(xs, ys, drawing, m) for m in reversed(special)]
    return Chart(
        title=f"{y.title} against {x.title[:4]}",  # TTFT or TPOT
        description=f"Each mark is a plan: {x.title} in {x.unit} across, {y.title} in {y.unit} up.",
        width=WIDTH,
        height=HEIGHT,
        shapes=tuple(out),
        note=_note(xs, ys, drawing, len(broken) - len(drawn)),
    )


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other beats on both, from the smallest x on: less of x and more of y is better."""
    out: list[tuple[float, float]] = []
    for px, py in sorted(points, key=lambda p: (p[0], -p[1])):
        if not out or py > out[-1][1]:
            out.append((px, py))
    return out


def _axes(drawing: Scatter, broken: Sequence[PlanResult]) -> tuple[Scale, Scale]:
    """Room for what keeps every limit and for what is marked; others and limits where they are not far off."""
    core = [*drawing.feasible, *(m.plan for m in drawing.marked)]
    ends = []
    for metric, limit in ((drawing.x, drawing.most_x), (drawing.y, drawing.least_y)):
        values = finite_positive(metric.of(p) for p in core) or [1.0]
        reach = FAR * max(values)
        special = [m.plan for m in drawing.marked if m.role != "plan"]
        whiskers = finite_positive(min(metric.interval(p)[1], reach) for p in special)
        near = [v for p in broken if max(values) < (v := metric.of(p)) <= reach]
        near += [limit.value] if limit is not None and limit.value <= reach else []
        ends.append((values, [*values, *whiskers, *near]))
    (core_x, all_x), (_, all_y) = ends
    return (
        fitted(core_x, start=LEFT, end=RIGHT, most=max(all_x)),
        linear(0.0, max(all_y) * 1.04, start=BOTTOM, end=TOP, count=7),
    )


def _limits(xs: Scale, ys: Scale, drawing: Scatter) -> list[Shape]:
    most_x, least_y = drawing.most_x, drawing.least_y
    out: list[Shape] = []
    if most_x is not None and most_x.value < xs.high:
        at = xs.at(max(most_x.value, xs.low))
        upright, label = x_limit(xs, at, ys.end, ys.start, most_x.label)
        out += [rect(at, ys.end, xs.end - at, ys.start - ys.end, "beyond"), label]
        out += [upright] if most_x.value >= xs.low else []
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
    return [path(d + "".join(f"H{px:g}V{py:g}" for px, py in places[1:]), "front")]


def _place(xs: Scale, ys: Scale, drawing: Scatter, mark: Marked) -> tuple[float, float]:
    return xs.at(xs.clamp(drawing.x.of(mark.plan))), ys.at(ys.clamp(drawing.y.of(mark.plan)))


def _whiskers(xs: Scale, ys: Scale, drawing: Scatter, mark: Marked) -> list[Shape]:
    (left, right), (low, high) = drawing.x.interval(mark.plan), drawing.y.interval(mark.plan)
    cx, cy = _place(xs, ys, drawing, mark)
    css = f"whisker {mark.role}"
    return [
        line(xs.at(xs.clamp(left)), cy, xs.at(xs.clamp(right)), cy, css),
        line(cx, ys.at(ys.clamp(low)), cx, ys.at(ys.clamp(high)), css),
    ]


def _mark(xs: Scale, ys: Scale, drawing: Scatter, mark: Marked) -> Shape:
    role = "out" if mark.role == "plan" and not mark.plan.feasible else mark.role
    return plan_mark(*_place(xs, ys, drawing, mark), role, mark.tip(drawing.y, drawing.x), mark.plan.plan)


def _note(xs: Scale, ys: Scale, drawing: Scatter, outside: int) -> str:
    said = []
    if drawing.most_x is not None and drawing.most_x.value >= xs.high:
        said.append(f"The {drawing.most_x.label} lies beyond the right edge.")
    if drawing.least_y is not None and drawing.least_y.value > ys.high:
        said.append(f"The {drawing.least_y.label} lies above the upper edge.")
    if outside:
        said.append(f"{count(outside, 'infeasible plan lies', 'infeasible plans lie')} outside the axes.")
    return " ".join(said)
