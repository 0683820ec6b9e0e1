"""A replay as a plot: requests per second over time, what came and what each strategy served within the limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from autotune.report.svg.scale import Scale, linear
from autotune.report.svg.shapes import Chart, Shape, frame, line, path, svg_file, text
from autotune.retuning.replay import ALWAYS, NEVER, ORACLE, OURS

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 860, 400, 66, 48, 844, 304
OFFERED = "offered"
DRAWN = (OFFERED, ORACLE, NEVER, ALWAYS, OURS)
"""In this order, so that the wide oracle lies under what reaches it."""
LEGEND_STEP = 110
STYLE = """
text { font: 12px sans-serif; fill: #444; } .name { fill: #222; }
.grid { stroke: #e3e3e3; } .axis { stroke: #444; } .log { stroke: #555; stroke-dasharray: 3 3; }
.offered, .oracle, .never, .always, .retune { fill: none; stroke-width: 2; }
.offered { stroke: #5f6368; stroke-width: 1.5; stroke-dasharray: 5 3; } .oracle { stroke: #7fbf7f; stroke-width: 6; }
.never { stroke: #b26a00; } .always { stroke: #a01c5c; } .retune { stroke: #1a5fb4; } .switch { fill: #1a5fb4; }
"""


def replay_svg(document: Mapping[str, Any]) -> str:
    """A document of `replay_document`, drawn as a file of its own. Triangles mark the switches of `retune`."""
    starts, step = document["starts_s"], document["step_s"]
    end = starts[-1] + step
    served = {s["strategy"]: s for s in document["strategies"]}
    values = {OFFERED: document["offered_per_s"], **{name: s["goodput_per_s"] for name, s in served.items()}}
    xs = linear(0.0, end / 60.0, start=LEFT, end=RIGHT, count=12)
    ys = linear(0.0, max(*document["offered_per_s"], 1e-9) * 1.06, start=BOTTOM, end=TOP)
    title = f"{document['study']}: requests/s within the limits, beginning with {document['first_plan']}"
    shapes = [text(LEFT, 16, title, "name"), *frame(xs, ys, "minutes", "requests/s"), *_logs(document["traffic"], xs)]
    shapes += [path(_stairs(xs, ys, starts, values[name], step), name) for name in DRAWN]
    moves = [m["at_s"] / 60.0 for m in served[OURS]["moves"] if m["decision"] == "switch"]
    shapes += [_triangle(xs.at(min(at, end / 60.0)), BOTTOM - 12) for at in moves]
    for i, name in enumerate(DRAWN):
        at = LEFT + i * LEGEND_STEP
        shapes += [line(at, HEIGHT - 12, at + 22, HEIGHT - 12, name), text(at + 27, HEIGHT - 8, name, "name")]
    at = LEFT + len(DRAWN) * LEGEND_STEP
    shapes += [_triangle(at + 5, HEIGHT - 18), text(at + 15, HEIGHT - 8, "retune decides to switch", "name")]
    description = "Requests per second that came, and that each strategy served within the limits, over time."
    chart = Chart(title=title, description=description, width=WIDTH, height=HEIGHT, shapes=tuple(shapes))
    return svg_file(chart, STYLE)


def _stairs(xs: Scale, ys: Scale, starts_s: Sequence[float], rates: Sequence[float], step_s: float) -> str:
    corners = zip(starts_s, rates, strict=True)
    flats = [f"{ys.at(v):g}H{xs.at((s + step_s) / 60.0):g}" for s, v in corners]
    return f"M{xs.at(starts_s[0] / 60.0):g} {'V'.join(flats)}"


def _triangle(x: float, top: float) -> Shape:
    return path(f"M{x:g} {top:g}l-5 12h10z", "switch")


def _logs(traffic: Sequence[Mapping[str, Any]], xs: Scale) -> list[Shape]:
    """Where each log ends, and its name in the middle of what it covers."""
    out: list[Shape] = []
    begin = 0.0
    for part in traffic:
        end = min(part["ends_s"] / 60.0, xs.high)
        middle, at = xs.at((begin + end) / 2.0), xs.at(end)
        name = PurePath(part["source"]).name
        out += [line(at, TOP, at, BOTTOM + 60, "log"), text(middle, BOTTOM + 58, name, anchor="middle")]
        begin = end
    return out
