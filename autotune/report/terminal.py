"""Tables and lines on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from autotune.report.text_blocks import Block, Line, Report, Table
from costmodel.errors import visible

WIDTH = 156
"""Columns where no terminal says how many: in a file or a pipe."""
MANY = 8
"""A table of more columns leaves one blank between them instead of two."""
STYLES = {"good": "green", "open": "yellow", "bad": "red", "dim": "dim", "base": "bold cyan", "same": "green"}


class Terminal(Console):
    """A console on which names from files cannot send sequences to the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does it, with control characters as their escapes."""
        return super().render_str(visible(text), **options)


def stdout_console(width: int = WIDTH) -> Terminal:
    """The console of standard output: as wide as the terminal, `width` in a file or a pipe."""
    return Terminal(width=None if sys.stdout.isatty() else width, highlight=False)


def print_line(console: Console, line: str | Line, *, indent: str = "", style: str = "") -> None:
    """A line that only the terminal wraps, so that it can be copied whole. No markup is read in it."""
    text, tone = (line.text, line.tone) if isinstance(line, Line) else (line, "")
    shown = Text(indent + visible(text), style=style or STYLES.get(tone, ""))
    console.print(shown, soft_wrap=True, highlight=False)


def print_table(console: Console, table: Table) -> None:
    """A table without a frame; its heading is left out where no column has a title."""
    titles = [column.heading or column.title for column in table.columns]
    shown = RichTable(
        box=None, pad_edge=False, header_style="bold", show_header=any(titles), collapse_padding=len(titles) > MANY
    )
    for i, (title, column) in enumerate(zip(titles, table.columns, strict=True)):
        wraps = i == 0 or (i == len(titles) - 1 and not column.numeric)
        shown.add_column(Text(title), justify="right" if column.numeric else "left", no_wrap=not wraps)
    for row in table.rows:
        cells = [Text(visible(cell.text), style=STYLES.get(cell.tone, "")) for cell in row.cells]
        shown.add_row(*cells, style=STYLES.get(row.role, ""))
    console.print(shown)


def print_blocks(console: Console, blocks: Iterable[Block]) -> None:
    """Blocks, each after an empty line."""
    for block in blocks:
        console.print()
        print_line(console, block.title, style="bold")
        if block.table is not None and block.table.rows:
            print_table(console, block.table)
        for line in block.lines:
            print_line(console, line, indent="  ")


def print_report(console: Console, report: Report) -> None:
    """What it is about, what comes of it in its colour, and the blocks."""
    print_line(console, report.headline, style="bold")
    colour = STYLES.get(report.tone, "")
    if report.verdict:
        said = Text.assemble((visible(report.verdict), f"bold {colour}".strip()), visible(report.reason))
        console.print(said, soft_wrap=True, highlight=False)
    elif report.reason:
        print_line(console, report.reason, style=f"bold {colour}".strip())
    for line in report.lines:
        print_line(console, line, indent="  ")
    print_blocks(console, report.blocks)
