"""The drawing of the packages, from the layers that import-linter checks and from each package's first sentence."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from autotune.report.svg.shapes import Chart, Shape, line, path, rect, svg_file, text

WIDTH, LEFT, NAME_WIDTH, ROW, GAP = 900, 34, 130, 21, 7
STYLE = """
text { font: 12px sans-serif; fill: #333; } .name { font: 600 12px monospace; fill: #123; }
.title { font: 600 14px sans-serif; fill: #123; } .small { font: 11px sans-serif; fill: #555; }
.box { fill: #e8eff7; stroke: #7f9bbd; } .cost { fill: #e7f3ec; stroke: #7fae93; }
.way { stroke: #777; stroke-width: 1.5; fill: none; }
"""


def packages_svg(root: Path) -> str:
    """Every package of `autotune` and `costmodel` in its layer, the first sentence of its docstring beside it."""
    shapes: list[Shape] = []
    top = 20.0
    for container, layers in _layers(root).items():
        shapes.append(text(LEFT, top, f"{container}/", "title"))
        shapes.append(text(LEFT + NAME_WIDTH + 12, top, "a package imports those of the bands below it", "small"))
        top += 10.0
        first = top
        for layer in layers:
            for name in layer:
                shapes.append(rect(LEFT, top, NAME_WIDTH, ROW - 1, "cost" if container == "costmodel" else "box"))
                shapes.append(text(LEFT + 8, top + 14, name, "name"))
                shapes.append(text(LEFT + NAME_WIDTH + 12, top + 14, _first_sentence(root / container, name)))
                top += ROW
            top += GAP
        shapes += [
            line(18, first, 18, top - GAP - 8, "way"),
            path(f"M13 {top - GAP - 9:g}l5 9l5 -9", "way"),
        ]
        top += 24.0
    return svg_file(
        Chart(
            title="The packages of autotune and costmodel",
            description="Bands of packages from top to bottom; each imports only what lies in the bands below it.",
            width=WIDTH,
            height=round(top - 24.0),
            shapes=tuple(shapes),
        ),
        STYLE,
    )


def _layers(root: Path) -> dict[str, list[list[str]]]:
    """Container -> its layers from top to bottom, the packages of each."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    return {
        contract["containers"][0]: [
            [name.strip() for name in layer.split("|") if name.strip() != "__main__"]
            for layer in contract["layers"]
            if layer.strip() != "__main__"
        ]
        for contract in contracts
        if contract["type"] == "layers"
    }


def _first_sentence(folder: Path, name: str) -> str:
    """The first line of a package's or a module's docstring."""
    found = folder / name / "__init__.py"
    tree = ast.parse((found if found.exists() else folder / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").splitlines()[0].rstrip(".:")
