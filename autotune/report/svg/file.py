"""A chart as an SVG file of its own."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from autotune.report.svg.shapes import Chart, Shape
from costmodel.errors import visible


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
