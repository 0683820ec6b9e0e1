"""What pages are made of: a verdict with key figures, and sections of words, charts and tables."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from autotune.report.svg.shapes import Chart, Shape
from autotune.report.text_blocks import Block, Line, Table
from autotune.report.verdict import Verdict
from autotune.version import VERSION
from costmodel.version import MODEL_VERSION

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **context: Any) -> str:
    """The page of a template in `templates/`.

    Raises:
        jinja2.TemplateError: the template and its context do not fit: a mistake of this package.
    """
    style, script = _asset("report.css"), _asset("report.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    return page.render(policy=policy, style=Markup(style), script=Markup(script), **context) + "\n"  # noqa: S704  # ours


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache(maxsize=4)
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One key figure."""

    title: str
    value: str
    unit: str = ""
    small: str = ""
    change: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph: text, code, text, code and so on."""

    said: tuple[str, ...]
    css: str = "lead"
    kind: ClassVar[str] = "words"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True, slots=True)
class Legend:
    """What marks mean: (class of a coloured box, or shapes in a square of 20 units; words)."""

    items: tuple[tuple[str | tuple[Shape, ...], str], ...]
    kind: ClassVar[str] = "legend"


@dataclass(frozen=True, slots=True)
class Grid:
    """Charts and tables side by side, in `two` or `three` columns; one below the other on a phone."""

    items: tuple[Chart | Table, ...]
    columns: str = "two"
    kind: ClassVar[str] = "grid"


@dataclass(frozen=True, slots=True)
class Plain:
    """A table that fits the page."""

    table: Table
    css: str = "spaced"
    kind: ClassVar[str] = "plain"


@dataclass(frozen=True, slots=True)
class Sortable:
    """A long table that sorts by a click; `engines` (key, words) and a filter stand above it, or it is folded."""

    table: Table
    key: str
    engines: tuple[tuple[str, str], ...] | None = None
    """None: no filter."""
    folded: str = ""
    """What is clicked to unfold it; empty: it stands open."""
    kind: ClassVar[str] = "sortable"


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of text."""

    lines: Sequence[str]
    css: str = "lines"
    kind: ClassVar[str] = "lines"


@dataclass(frozen=True, slots=True)
class Prose:
    """A text of ours that is a template of its own."""

    template: str
    kind: ClassVar[str] = "prose"


Part = Words | Heading | Legend | Grid | Plain | Sortable | Lines | Prose


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and its parts."""

    key: str
    """Where links in the page lead."""
    title: str
    nav: str = ""
    """Its title in the list of sections; empty: the same."""
    parts: tuple[Part, ...]
    folded: bool = False
    """Whether a click opens it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page."""

    kind: str
    title: str
    facts: Sequence[str]
    verdict: Verdict
    subject: tuple[str, str] | None = None
    """What the verdict is about: (words, plan string)."""
    tiles: Sequence[Tile] = ()
    sections: Sequence[Section]
    steps: Sequence[str] = ()
    """Commands that follow from it."""
    made_by: str = ""
    """The command that makes the page."""

    @property
    def foot(self) -> tuple[str, ...]:
        """When it was made, by what and how, so that a printout can be traced."""
        when = (
            f"Made {datetime.now().astimezone():%Y-%m-%d %H:%M %Z} by autotune {VERSION}, cost model {MODEL_VERSION}."
        )
        return (when, *([self.made_by] if self.made_by else []))


def render_page(page: Page) -> str:
    """The page as HTML."""
    return render("document.html.jinja", page=page)


FOLDED = ("alternatives", "assumed", "balance", "compatibility", "memory", "robustness")
"""Blocks of reports that a click opens."""


def block_section(block: Block, charts: Sequence[Chart] = (), legend: Legend | None = None) -> Section:
    """A block of a report with its charts."""
    parts: list[Part] = [] if legend is None else [legend]
    parts += [Grid(tuple(charts))] if charts else []
    parts += [Plain(block.table)] if block.table is not None and block.table.rows else []
    lines = [line.text if isinstance(line, Line) else line for line in block.lines]
    parts += [Lines(lines)] if lines else []
    nav = block.short_title
    key = block.key or re.sub(r"[^a-z0-9]+", "-", nav.lower())
    return Section(key=key, title=block.title, nav=nav, parts=tuple(parts), folded=key in FOLDED)


def assumed_section(assumptions: Sequence[str]) -> Section:
    """What was left open, and what was taken instead."""
    lead = "What the study, the model and the baseline leave open, and what was taken instead."
    lines = assumptions or ("Nothing: the study says everything.",)
    return Section(key="assumed", title="Assumed", folded=True, parts=(Words((lead,)), Lines(lines, "assumed")))
