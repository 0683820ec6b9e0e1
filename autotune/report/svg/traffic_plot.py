"""Traffic as a picture: requests per second over time, and how long prompts and outputs are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from autotune.report.svg.scale import linear, logarithmic
from autotune.report.svg.shapes import Chart, Shape, frame, line, polyline, rect, svg_file, text

WIDTH, HEIGHT, TOP, BOTTOM = 860, 330, 56, 254
LEFT, MIDDLE, SECOND, RIGHT = 62, 450, 530, 844
LENGTHS = (("prompt", "prompt_tokens"), ("output", "output_tokens"))
STYLE = """
text { font: 12px sans-serif; fill: #444; } .name { fill: #222; } .grid { stroke: #e3e3e3; } .axis { stroke: #444; }
.bin { fill: #8ab0e0; } .mean { stroke: #1a5fb4; stroke-dasharray: 5 3; }
.prompt, .output { fill: none; stroke-width: 2; } .prompt { stroke: #1a5fb4; } .output { stroke: #b26a00; }
"""


def traffic_svg(document: Mapping[str, Any]) -> str:
    """A document of `traffic_document` that was not refused, drawn as a file of its own."""
    title = f"{PurePath(document['source']).name}: {document['requests']:,} requests"
    shapes = [text(LEFT, 18, title, "name"), *_rate(document), *_lengths(document)]
    description = "Requests per second over time, and the share of requests with at most so many tokens."
    chart = Chart(title=title, description=description, width=WIDTH, height=HEIGHT, shapes=tuple(shapes))
    return svg_file(chart, STYLE)


def _rate(document: Mapping[str, Any]) -> list[Shape]:
    mean, span_s = document["rate"]["mean_per_s"], document["span_s"]
    bins = document["rate_over_time"] or [
        {"start_s": document["start_s"], "end_s": document["start_s"] + span_s, "per_s": mean}
    ]
    begin = bins[0]["start_s"]
    hours = span_s >= 3 * 3600.0
    unit_s = 3600.0 if hours else 60.0
    xs = linear(0.0, (bins[-1]["end_s"] - begin) / unit_s, start=LEFT, end=MIDDLE)
    ys = linear(0.0, max(*(b["per_s"] for b in bins), mean, 1e-9) * 1.05, start=BOTTOM, end=TOP)
    out = frame(xs, ys, "hours" if hours else "minutes", "requests/s")
    for b in bins:
        left, right = (xs.at((b[end] - begin) / unit_s) for end in ("start_s", "end_s"))
        top = ys.at(b["per_s"])
        out.append(rect(left, top, right - left, round(BOTTOM - top, 1), "bin"))
    return [*out, line(LEFT, ys.at(mean), MIDDLE, ys.at(mean), "mean")]


def _lengths(document: Mapping[str, Any]) -> list[Shape]:
    curves = {}
    for name, key in LENGTHS:
        lengths = document[key]
        points = [(max(lengths[q], 1.0), float(q[1:])) for q in lengths if q.startswith("p")]
        curves[name] = [*points, (max(lengths["longest"], 1.0), 100.0)]
    values = [tokens for points in curves.values() for tokens, _ in points]
    xs = logarithmic(min(values), max(values), start=SECOND, end=RIGHT)
    ys = linear(0.0, 100.0, start=BOTTOM, end=TOP)
    out = frame(xs, ys, "tokens", "% of requests")
    for i, (name, points) in enumerate(curves.items()):
        at = SECOND + 90 * i
        places = [(xs.at(tokens), ys.at(share)) for tokens, share in points]
        out += [polyline(places, name), line(at, 14, at + 22, 14, name), text(at + 27, 18, name, "name")]
    return out
