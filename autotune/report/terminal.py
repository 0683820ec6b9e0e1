"""Tables and lines on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from textwrap import wrap
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from autotune.report.text_blocks import Block, Cell, Column, Line, Report, Table
from costmodel.errors import visible

WIDTH = 156
"""Columns where no terminal says how many: in a file or a pipe."""
MANY = 8
"""A table of more columns leaves one blank between them instead of two."""
KEPT = 2
"""Columns that name a row, at the beginning of each part of a table that is continued."""
MOST_NAMED = 3
"""Columns without room that are named."""
PROSE = 24
"""Columns that a last column of sentences needs at least."""
NAME = 20
"""Columns that a first column of names needs at least, if they are longer."""
STYLES = {"good": "green", "open": "yellow", "bad": "red", "dim": "dim", "base": "bold cyan", "same": "green"}


class Terminal(Console):
    """A console on which names from files cannot send sequences to the terminal.

    `wraps`: whether lines are broken between words, as where people read; a file has them whole.
    """

    wraps = False

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does it, with control characters as their escapes."""
        return super().render_str(visible(text), **options)


def stdout_console(width: int = WIDTH) -> Terminal:
    """The console of standard output: as wide as the terminal or COLUMNS, `width` in a file or a pipe."""
    asked = os.environ.get("COLUMNS", "")
    read = sys.stdout.isatty() or (asked.isdecimal() and int(asked) > 0)
    console = Terminal(width=None if sys.stdout.isatty() else int(asked) if read else width, highlight=False)
    console.wraps = read
    return console


def print_line(console: Console, line: str | Line, *, indent: str = "", style: str = "") -> None:
    """A line, broken between words where people read; a command stays whole, so that it can be copied."""
    given = line if isinstance(line, Line) else Line(text=line)
    text, style = visible(given.text), style or STYLES.get(given.tone, "")
    if not getattr(console, "wraps", False) or given.whole:
        console.print(Text(indent + text, style=style), soft_wrap=True, highlight=False)
        return
    for part in broken_lines(text, console.width, indent) or [""]:
        console.print(Text(part, style=style), soft_wrap=True, highlight=False)


def broken_lines(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most `width` columns, broken at blanks; what follows the first is set in."""
    return wrap(
        text,
        max(width, PROSE),
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_table(console: Console, table: Table) -> None:
    """A table without a frame; its heading is left out where no column has a title.

    What does not fit loses whole columns from the right, no figure is cut; `Table.overflow` says what becomes of them.
    """
    titles = [column.heading or column.title for column in table.columns]
    widths, blanks = _widths(table, titles, console.width)
    shown = RichTable(
        box=None, pad_edge=False, header_style="bold", show_header=any(titles), collapse_padding=blanks == 1
    )
    for title, column, width in zip(titles, table.columns, widths, strict=False):
        justify: Literal["left", "right"] = "right" if column.numeric else "left"
        shown.add_column(Text(title), justify=justify, width=width, overflow="fold")
    for row in table.rows:
        cells = [
            Text(visible(_shown(cell, column)), style=STYLES.get(cell.tone, ""))
            for cell, column, _ in zip(row.cells, table.columns, widths, strict=False)
        ]
        shown.add_row(*cells, style=STYLES.get(row.role, ""))
    console.print(shown)
    left = [title.replace("\n", " ") for title in titles[len(widths) :] if title]
    if left and table.overflow == "continued" and len(widths) > KEPT:
        console.print()
        print_table(console, _rest(table, len(widths)))
    elif left and table.overflow != "dropped":
        named = ", ".join(left[:MOST_NAMED]) + (f" and {len(left) - MOST_NAMED} more" if left[MOST_NAMED:] else "")
        print_line(console, Line(text=f"a wider terminal shows: {named}", tone="dim"), indent="  ")


def _shown(cell: Cell, column: Column) -> str:
    """The text of a cell, and its likely range where it has one."""
    return f"{cell.text} {cell.small}" if column.ranged and cell.small else cell.text


def _rest(table: Table, shown: int) -> Table:
    """The first columns again, and those after the first `shown`."""
    rows = tuple(replace(row, cells=(*row.cells[:KEPT], *row.cells[shown:])) for row in table.rows)
    return replace(table, columns=(*table.columns[:KEPT], *table.columns[shown:]), rows=rows)


def _widths(table: Table, titles: Sequence[str], width: int) -> tuple[list[int], int]:
    """Widths of the columns that fit, from the left, and the blanks between them."""
    blanks = 1 if len(titles) > MANY else 2
    natural, least = [], []
    for i, (title, column) in enumerate(zip(titles, table.columns, strict=True)):
        texts = [*title.split("\n"), *(visible(_shown(row.cells[i], column)) for row in table.rows)]
        natural.append(max(map(cell_len, texts)))
        wraps = column.wraps or i == 0 or (i == len(titles) - 1 and not column.numeric)
        # a longer word, as a path, is broken: a column of prose is not left out for it
        words = [min(cell_len(word), width * 9 // 20) for text in texts for word in text.split()] or [0]
        floor = NAME if i < len(titles) - 1 else PROSE
        least.append(
            min(natural[i], max(*words, floor) if len(words) > 1 else max(words[0], floor)) if wraps else natural[i]
        )
    count = len(titles)
    while count > 1 and sum(least[:count]) + blanks * (count - 1) > width:
        count -= 1
    out, spare = least[:count], width - sum(least[:count]) - blanks * (count - 1)
    for i in range(count):
        more = min(max(spare, 0), natural[i] - out[i])
        out[i], spare = out[i] + more, spare - more
    return out, blanks


def print_blocks(console: Console, blocks: Iterable[Block]) -> None:
    """Blocks that hold something, each after an empty line, unless it is tight."""
    for block in (b for b in blocks if b.lines or (b.table is not None and b.table.rows)):
        if not block.tight:
            console.print()
        if block.title:
            print_line(console, block.title, style="bold")
        if block.table is not None and block.table.rows:
            print_table(console, block.table)
        for line in block.lines:
            print_line(console, line, indent="  ")


def print_report(console: Console, report: Report) -> None:
    """What it is about, what comes of it in its colour, and the blocks."""
    print_line(console, report.headline, style="bold")
    colour = STYLES.get(report.tone, "")
    if report.verdict and not getattr(console, "wraps", False):
        said = Text.assemble((visible(report.verdict), f"bold {colour}".strip()), visible(report.reason))
        console.print(said, soft_wrap=True, highlight=False)
    elif report.verdict or report.reason:
        print_line(console, report.verdict + report.reason, style=f"bold {colour}".strip())
    for line in report.lines:
        print_line(console, line, indent="  ")
    print_blocks(console, report.blocks)
