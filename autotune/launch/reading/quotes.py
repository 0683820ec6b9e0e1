"""Quotations in lines of shell scripts: where one is open, and where a command ends."""

from __future__ import annotations


def quote_after(line: str, quote: str) -> str:
    """The quotation that is open after a line; `quote`: the one that is open before; empty: none."""
    escaped = False
    for c in line:
        quote, escaped = after(c, quote, escaped)
    return quote


def after(c: str, quote: str, escaped: bool) -> tuple[str, bool]:
    """The open quotation behind a character, and whether the next one is escaped."""
    if escaped:
        return quote, False
    if c == "\\" and quote != "'":
        return quote, True
    if quote:
        return ("" if c == quote else quote), False
    return (c if c in "'\"" else ""), False
