"""Headed tables with lines below them: the same on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.text.escaping import markdown_cell, markdown_text

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A heading, a table (may be empty) and lines below it."""

    title: str
    header: tuple[str, ...] = ()
    rows: Rows = ()
    lines: tuple[str, ...] = ()
    texts: tuple[int, ...] = (0,)
    """Columns of text, to the left; the others are figures, to the right. The last may wrap where it is text."""


def print_blocks(console: Console, blocks: Iterable[Block]) -> None:
    """On a terminal."""
    for block in blocks:
        console.print()
        console.print(f"[bold]{escape(block.title)}[/]", highlight=False)
        if block.rows:
            table = Table(box=None, pad_edge=False, header_style="bold")
            last = len(block.header) - 1
            for i, title in enumerate(block.header):
                wraps = i == 0 or (i == last and i in block.texts)
                table.add_column(title, justify="left" if i in block.texts else "right", no_wrap=not wraps)
            for row in block.rows:
                table.add_row(*(escape(cell) for cell in row))
            console.print(table)
        for line in block.lines:
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


def markdown_blocks(blocks: Iterable[Block]) -> list[str]:
    """Lines of Markdown (tables as GitHub renders them)."""
    out: list[str] = []
    for block in blocks:
        out += ["", f"## {markdown_text(block.title)}", ""]
        if block.rows:
            marks = ["---" if i in block.texts else "---:" for i in range(len(block.header))]
            out += [_row(block.header), _row(marks)]
            out += [_row([markdown_cell(c) for c in row]) for row in block.rows]
            out += [""] if block.lines else []
        out += [f"- {markdown_text(line)}" for line in block.lines]
    return out


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
