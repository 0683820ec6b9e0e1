"""Text from users in CSV, Markdown and crontabs: names of studies, models and files are nothing but text there."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What spreadsheets take for the beginning of a formula, full-width forms included (OWASP, CSV Injection)."""
_MARKUP = {"<": "&lt;", "[": "\\[", "`": "\\`"}


def csv_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe before it.

    A carriage return, which `csv` leaves unquoted and spreadsheets take for the end of a row, becomes a line feed.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if value.lstrip(" ").startswith(_FORMULA) else text


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, a header among them or not."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([csv_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


def cron_command(words: Sequence[str]) -> str:
    """A command for a line of a crontab, where an unescaped `%` would end it."""
    return shlex.join(words).replace("%", "\\%")


def markdown_text(text: str) -> str:
    """Text on its line of Markdown: no HTML, link, image or code begins in it."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return "".join(_MARKUP.get(c, c) for c in shown)


def markdown_cell(text: str) -> str:
    """The same in a cell of a table."""
    return markdown_text(text).replace("|", "\\|")


def markdown_code(text: str) -> str:
    """Text as code on its line of Markdown, in as many backticks as none of its own end."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence} {shown} {fence}" if len(fence) > 1 else f"`{shown}`"
