"""Charts as values: SVG elements that are written out elsewhere, every attribute and text escaped there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from autotune.report.svg.scale import Scale
from costmodel.errors import visible

Attribute = str | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One SVG element. Tag and attribute names are ours; values may be anybody's."""

    tag: str
    attrs: Mapping[str, Attribute]
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One picture. Lengths in SVG units: pixels at full width."""

    title: str
    description: str
    """What it shows, in a sentence, for those who do not see it."""
    width: int
    height: int
    shapes: tuple[Shape, ...]
    note: str = ""
    """What stands below it: what could not be drawn, and what the marks leave open."""
    legend: tuple[tuple[str, str], ...] = ()
    """(class of the mark, what it means)."""


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Shape:
    """A straight line."""
    return Shape(tag="line", attrs={"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": css})


def rect(x: float, y: float, width: float, height: float, css: str, tip: str = "") -> Shape:
    """A box; `tip` is shown when it is pointed at."""
    size = {"width": round(max(width, 0.0), 1), "height": height}
    return Shape(tag="rect", attrs={"x": x, "y": y, **size, "class": css, **_pointed(tip, "")})


def text(x: float, y: float, content: str, css: str = "tick", *, anchor: str = "start") -> Shape:
    """Text on a line."""
    return Shape(tag="text", attrs={"x": x, "y": y, "class": css, "text-anchor": anchor}, text=content)


def path(d: str, css: str, tip: str = "", key: str = "") -> Shape:
    """A path."""
    return Shape(tag="path", attrs={"d": d, "class": css, **_pointed(tip, key)})


def polyline(places: Sequence[tuple[float, float]], css: str) -> Shape:
    """A line from place to place."""
    return path("".join(f"{'L' if i else 'M'}{x:g} {y:g}" for i, (x, y) in enumerate(places)), css)


def circle(x: float, y: float, css: str, tip: str = "", key: str = "") -> Shape:
    """A dot; the style sheet gives its size."""
    return Shape(tag="circle", attrs={"cx": x, "cy": y, "r": 4, "class": css, **_pointed(tip, key)})


def plan_mark(x: float, y: float, role: str, tip: str, key: str, *, size: float = 8.0) -> Shape:
    """A diamond for the first plan, a square for the baseline, a dot for others (`plan`, `out`: beyond a limit)."""
    if role == "first":
        return path(
            f"M{x:g} {y - size:g}l{size:g} {size:g}l{-size:g} {size:g}l{-size:g} {-size:g}z", "mark first", tip, key
        )
    if role == "base":
        half = 0.75 * size
        return path(f"M{x - half:g} {y - half:g}h{2 * half:g}v{2 * half:g}h{-2 * half:g}z", "mark base", tip, key)
    return circle(x, y, f"mark {role}", tip, key)


def _pointed(tip: str, key: str) -> dict[str, Attribute]:
    """What is shown when a shape is pointed at, and the plan that lights up with it."""
    return {name: value for name, value in (("data-tip", tip), ("data-plan", key)) if value}


def dots(places: Sequence[tuple[float, float]], css: str) -> Shape:
    """Many dots as one element: plans that cannot be pointed at. Places that fall together are drawn once."""
    distinct = dict.fromkeys((round(x), round(y)) for x, y in places)
    return path("".join(f"M{x} {y}h0" for x, y in distinct), css)


def _tick_label(value: float) -> str:
    """A round number as it is written on an axis: without zeros that say nothing."""
    if value and abs(value) < 1e-3:
        return f"{value:g}"
    shown = f"{value:,.4f}".rstrip("0").rstrip(".")
    return shown or "0"


def frame(
    x: Scale, y: Scale, x_title: str, y_title: str, x_ticks: Sequence[tuple[float, str]] | None = None
) -> list[Shape]:
    """Grid, ticks and titles of two axes; `y` points up, its title stands above it. `x_ticks`: (value, label)."""
    out: list[Shape] = []
    for value in y.ticks:
        at = y.at(value)
        out += [line(x.start, at, x.end, at, "grid"), text(x.start - 8, at + 4, _tick_label(value), anchor="end")]
    for value, label in [(v, _tick_label(v)) for v in x.ticks] if x_ticks is None else x_ticks:
        at = x.at(value)
        anchor = "end" if at > x.end - 6 else "middle"
        out += [line(at, y.start, at, y.start + 5, "axis"), text(at, y.start + 20, label, anchor=anchor)]
    out += [
        line(x.start, y.start, x.end, y.start, "axis"),
        text((x.start + x.end) / 2, y.start + 42, x_title, "axis-title", anchor="middle"),
        text(4, y.end - 14, y_title, "axis-title"),
    ]
    return out


def x_grid(x: Scale, top: float, bottom: float) -> list[Shape]:
    """Upright lines at the ticks, with their labels below, kept within the picture."""
    out: list[Shape] = []
    for value in x.ticks:
        at = x.at(value)
        anchor = "start" if at < x.start + 6 else "end" if at > x.end - 6 else "middle"
        out += [line(at, top, at, bottom, "grid"), text(at, bottom + 18, _tick_label(value), anchor=anchor)]
    return out


def x_limit(x: Scale, at: float, top: float, bottom: float, label: str) -> list[Shape]:
    """An upright line at a limit, its label on the side that has room."""
    right = at > (x.start + x.end) / 2
    place = (at - 6, "end") if right else (at + 6, "start")
    return [line(at, top, at, bottom, "limit"), text(place[0], top + 13, label, "limit-text", anchor=place[1])]


def svg_file(chart: Chart, style: str) -> str:
    """The file. Attributes and texts are escaped; `style` is ours: the classes that the shapes name.

    Characters that XML has no place for stand as their escapes.
    """
    box = f'width="{chart.width}" height="{chart.height}" viewBox="0 0 {chart.width} {chart.height}"'
    ground = f'<rect width="{chart.width}" height="{chart.height}" fill="#ffffff"/>'
    head = f"<title>{_text(chart.title)}</title><desc>{_text(chart.description)}</desc><style>{style}</style>"
    shapes = "\n".join(_element(shape) for shape in chart.shapes)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">\n{head}\n{ground}\n{shapes}\n</svg>\n'


def _element(shape: Shape) -> str:
    attrs = "".join(f" {name}={quoteattr(visible(str(value)))}" for name, value in shape.attrs.items())
    return f"<{shape.tag}{attrs}>{_text(shape.text)}</{shape.tag}>"


def _text(content: str) -> str:
    return escape(visible(content))
