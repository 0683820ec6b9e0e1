"""A replay as a plot: requests per second over time, what came and what each strategy served within the limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, log10
from pathlib import PurePath
from typing import Any
from xml.sax.saxutils import escape

from autotune.retuning.replay import ALWAYS, NEVER, ORACLE, OURS
from costmodel.errors import visible

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 860, 400, 66, 30, 16, 78
OFFERED = "offered"
STYLES = {
    OFFERED: ("#5f6368", 1.5, ' stroke-dasharray="5 3"'),
    ORACLE: ("#7fbf7f", 6.0, ""),
    NEVER: ("#b26a00", 2.0, ""),
    ALWAYS: ("#a01c5c", 2.0, ""),
    OURS: ("#1a5fb4", 2.0, ""),
}
"""Name -> colour, width, dash; drawn in this order, so that the wide oracle lies under what reaches it."""


def nice_step(top: float, parts: int) -> float:
    """A round step of 1, 2 or 5 times a power of ten that cuts 0 to `top` into at most so many parts."""
    least = max(top, 1e-12) / parts
    power = 10.0 ** floor(log10(least))
    return next(f * power for f in (1.0, 2.0, 5.0, 10.0) if f * power >= least * (1.0 - 1e-9))


def replay_svg(document: Mapping[str, Any]) -> str:
    """The plot; what `replay_document` holds, drawn. Triangles mark the switches of `retune`."""
    starts, step = document["starts_s"], document["step_s"]
    end = starts[-1] + step
    top = max(*document["offered_per_s"], 1e-9) * 1.06

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(seconds, end) / end

    def y(rate: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * rate / top

    def line(name: str, values: Sequence[float]) -> str:
        colour, width, dash = STYLES[name]
        points = " ".join(
            f"{x(s + side * step):.1f},{y(v):.1f}" for s, v in zip(starts, values, strict=True) for side in (0, 1)
        )
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dash}/>'

    served = {s["strategy"]: s for s in document["strategies"]}
    values = {OFFERED: document["offered_per_s"], **{name: s["goodput_per_s"] for name, s in served.items()}}
    box = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
    title = f"{document['study']}: requests/s within the limits, beginning with {document['first_plan']}"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="18" fill="#222">{escape(title)}</text>',
        *_axes(document, x, y, top, end),
        *(line(name, values[name]) for name in STYLES),
    ]
    for move in served[OURS]["moves"]:
        if move["decision"] == "switch":
            at, low = x(move["at_s"]), HEIGHT - BOTTOM
            out.append(f'<path d="M{at:.1f} {low - 12} l-5 12 h10 z" fill="{STYLES[OURS][0]}"/>')
    for i, name in enumerate(STYLES):
        at, (colour, width, dash) = LEFT + i * 110, STYLES[name]
        mark = f'x1="{at}" x2="{at + 22}" y1="{HEIGHT - 12}" y2="{HEIGHT - 12}"'
        out.append(f'<line {mark} stroke="{colour}" stroke-width="{width:g}"{dash}/>')
        out.append(f'<text x="{at + 27}" y="{HEIGHT - 8}" fill="#222">{escape(name)}</text>')
    at = LEFT + len(STYLES) * 110
    out.append(f'<path d="M{at + 5} {HEIGHT - 18} l-5 12 h10 z" fill="{STYLES[OURS][0]}"/>')
    out.append(f'<text x="{at + 15}" y="{HEIGHT - 8}" fill="#222">retune decides to switch</text>')
    return "\n".join([*out, "</svg>", ""])


def _axes(document: Mapping[str, Any], x: Any, y: Any, top: float, end: float) -> list[str]:
    out: list[str] = []
    low, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    rates = nice_step(top, 5)
    for i in range(int(top / rates) + 1):
        at = y(i * rates)
        out.append(f'<line x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e3e3e3"/>')
        out.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" fill="#444">{i * rates:,.10g}</text>')
    minutes = nice_step(end / 60.0, 12)
    for i in range(int(end / 60.0 / minutes) + 1):
        at = x(i * minutes * 60.0)
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{low}" y2="{low + 4}" stroke="#444"/>')
        out.append(f'<text x="{at:.1f}" y="{low + 17}" text-anchor="middle" fill="#444">{i * minutes:g}</text>')
    out.append(f'<text x="{right}" y="{TOP - 12}" text-anchor="end" fill="#444">minutes across</text>')
    begin = 0.0
    for part in document["traffic"]:
        middle, at = (x(begin) + x(part["ends_s"])) / 2.0, x(part["ends_s"])
        dashed = f'y1="{TOP}" y2="{low + 36}" stroke="#555" stroke-dasharray="3 3"/>'
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" {dashed}')
        name = escape(visible(PurePath(part["source"]).name))
        out.append(f'<text x="{middle:.1f}" y="{low + 34}" text-anchor="middle" fill="#444">{name}</text>')
        begin = part["ends_s"]
    return out
