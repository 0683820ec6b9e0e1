"""Headed tables with lines: what a terminal, Markdown and a page show of one document, each in its own way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autotune.text.numbers import within


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column. What is only looked at by a page, which sorts and has room for a second line, says so."""

    title: str
    unit: str = ""
    heading: str = ""
    """Title and unit where columns are narrow: on a terminal. Empty: the title."""
    numeric: bool = True
    """Figures stand to the right. On a terminal, text wraps in the first and the last column."""
    first: str = "ascending"
    """Direction of the first click on its heading."""
    hint: str = ""
    wraps: bool = False
    """Text that may take several lines on a terminal, as the first and the last column may."""
    minor: bool = False
    """Left out on a phone."""
    ranged: bool = False
    """The second line of its cells is a likely range, which a terminal shows beside the figure."""
    wide: bool = False
    """Holds sentences: on a phone it keeps a width in which they can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell."""

    text: str
    small: str = ""
    """A second line, on a page alone: an interval, the name that studies and documents use."""
    tone: str = ""
    """`good`, `open` or `bad`: its colour, beside what it says."""
    by: float | str | None = None
    """What it sorts by; None goes last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row. The first cell is its heading."""

    cells: tuple[Cell, ...]
    role: str = ""
    """`first`, `base` or nothing: what its plan is."""
    plan: str = ""
    engine: str = ""
    alike: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns and rows."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    caption: str = ""
    overflow: str = "named"
    """What a narrow terminal does with columns that have no room: they are `named` on a line below, `continued` in a
    table below that begins with the first two columns again, or `dropped`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of text: `good`, `open`, `bad` or `dim`."""

    text: str
    tone: str = ""
    whole: bool = False
    """A command: never broken, so that it can be copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A heading, a table (may be missing) and lines below it."""

    title: str
    key: str = ""
    """Name of the block, for who adds to it: a page its charts."""
    table: Table | None = None
    lines: tuple[str | Line, ...] = ()
    tight: bool = False
    """On a terminal, no empty line stands before it."""
    short: Block | None = None
    """What a terminal shows of it without --verbose; None: all."""

    @property
    def short_title(self) -> str:
        """The title up to its first comma, colon or parenthesis."""
        return re.split(r"[:,(]", self.title)[0].strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A document for people: what it is about, what comes of it, and the blocks that say why."""

    headline: str
    verdict: str = ""
    """The word that has a colour (`tone`); empty: `reason` is in that colour."""
    reason: str = ""
    tone: str = ""
    lines: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()


def brief(report: Report, keys: Sequence[str]) -> Report:
    """The report with the blocks of these keys alone, without empty lines, and a line on what it leaves out."""
    kept = tuple(replace(block.short or block, tight=True) for block in report.blocks if block.key in keys)
    left = ", ".join(within(block.short_title) for block in report.blocks if block.key not in keys)
    more = Block(title="", lines=(Line(text=f"-v: all of it, and {left}.", tone="dim"),), tight=True)
    return replace(report, blocks=(*kept, more) if left else kept)


def text_table(header: Sequence[str], rows: Iterable[Sequence[str | Cell]], texts: Sequence[int] = (0,)) -> Table:
    """A table of plain columns: `texts` are those of text, to the left; the others hold figures, to the right."""
    made = tuple(Row(cells=tuple(c if isinstance(c, Cell) else Cell(text=c) for c in row)) for row in rows)
    columns = tuple(
        Column(
            title=title, numeric=i not in texts, wide=0 < i in texts and any(len(r.cells[i].text) > 24 for r in made)
        )
        for i, title in enumerate(header)
    )
    return Table(columns=columns, rows=made)


def table_of(
    rows: Iterable[Any], columns: Mapping[str, Callable[[Any], str | Cell]], texts: Sequence[int] = (0,)
) -> Table:
    """A table of plain columns, each a title and how a row's cell in it is written; `texts` as in `text_table`."""
    return text_table(list(columns), [[cell(row) for cell in columns.values()] for row in rows], texts)


def toned(text: str, tones: dict[str, str]) -> Cell:
    """A cell in the colour that its text has."""
    return Cell(text=text, tone=tones.get(text, ""))


def named(key: str, titles: dict[str, str], mark: str = "") -> Cell:
    """A cell with the title of a key; a page shows the key below it, as studies and documents use it."""
    title = titles.get(key, key)
    return Cell(text=title + mark, small=key if title != key and "_" in key else "")
