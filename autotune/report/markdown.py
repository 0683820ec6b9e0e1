"""Tables and lines as Markdown (tables as GitHub renders them)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autotune.report.text_blocks import Block, Line, Report
from autotune.text.escaping import markdown_cell, markdown_text


def markdown_report(report: Report) -> str:
    """A whole document."""
    verdict = f"**{markdown_text(report.verdict)}**{markdown_text(report.reason)}"
    head = [f"# {markdown_text(report.headline)}", "", verdict]
    return "\n".join(head + markdown_blocks(report.blocks)) + "\n"


def markdown_blocks(blocks: Iterable[Block]) -> list[str]:
    """Lines of Markdown."""
    out: list[str] = []
    for block in blocks:
        out += ["", f"## {markdown_text(block.title)}", ""]
        if block.table is not None and block.table.rows:
            columns = block.table.columns
            out += [_row([markdown_cell(c.title) for c in columns])]
            out += [_row(["---:" if c.numeric else "---" for c in columns])]
            out += [_row([markdown_cell(cell.text) for cell in row.cells]) for row in block.table.rows]
            out += [""] if block.lines else []
        out += [f"- {markdown_text(line.text if isinstance(line, Line) else line)}" for line in block.lines]
    return out


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
