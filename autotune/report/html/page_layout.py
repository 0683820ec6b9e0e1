"""Pages of sections: what a document page is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.report.html.page import render
from autotune.report.html.shapes import Chart
from autotune.report.html.tables import Cell, Column, Row, Table
from autotune.report.html.verdict import Verdict
from autotune.report.text_blocks import Block

GIB = 2**30
SENTENCE = 24
"""Characters from which a cell is taken for a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One key figure."""

    title: str
    value: str
    unit: str = ""
    small: str = ""
    change: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, charts side by side, tables, and lines of text."""

    key: str
    """Where links in the page lead."""
    title: str
    lead: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    """(class of the mark, words)"""
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    lines: tuple[str, ...] = ()


def document_page(
    *,
    kind: str,
    title: str,
    facts: Sequence[str],
    verdict: Verdict,
    tiles: Sequence[Tile],
    sections: Sequence[Section],
    assumptions: Sequence[str],
) -> str:
    """A page of sections."""
    return render(
        "document.html.jinja",
        kind=kind,
        title=title,
        facts=facts,
        verdict=verdict,
        tiles=tiles,
        sections=sections,
        assumptions=assumptions,
    )


def block_tables(block: Block, words: Mapping[str, str], tones: Mapping[str, str]) -> tuple[Table, ...]:
    """A block's table, or none. `words`: first cell -> what it is called on a page; `tones`: cell -> its colour."""
    if not block.rows:
        return ()
    columns = tuple(
        Column(
            title=title,
            numeric=i not in block.texts,
            wide=0 < i in block.texts and max(len(row[i]) for row in block.rows) > SENTENCE,
        )
        for i, title in enumerate(block.header)
    )
    rows = tuple(
        Row(cells=(_named(row[0], words), *(Cell(text=cell, tone=tones.get(cell, "")) for cell in row[1:])))
        for row in block.rows
    )
    return (Table(caption="", columns=columns, rows=rows),)


def _named(name: str, words: Mapping[str, str]) -> Cell:
    """What people call it, and below it the name that studies and documents use; a star stays."""
    plain = name.removesuffix(" *")
    if plain not in words:
        return Cell(text=name)
    return Cell(text=f"{words[plain]}{name[len(plain) :]}", small=plain if "_" in plain else "")
