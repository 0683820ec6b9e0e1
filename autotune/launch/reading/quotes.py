"""Quotations in lines of shell scripts: where one is open, and where a command ends."""

from __future__ import annotations

import re

_COMPOUND = re.compile(
    r"(?:^|[;&|]|\b(?:do|then|else))\s*(?:for|while|until|if|elif|else|fi|then|case|esac|select|do|done)\b|;;"
)


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


def words_of(line: str) -> list[str]:
    """Words of a line as they are written, with their quotes."""
    words, word, quote, escaped = list[str](), "", "", False
    for c in line:
        if c.isspace() and not quote and not escaped:
            words += [word] if word else []
            word = ""
        else:
            word += c
        quote, escaped = after(c, quote, escaped)
    return [*words, word] if word else words


def commands_of(line: str) -> list[str]:
    """The commands of a line that `;` or `&` part; a line with words of loops or conditions stays whole."""
    if not (";" in line or "&" in line) or _COMPOUND.search(line):
        return [line]
    out, quote, escaped, depth, start = list[str](), "", False, 0, 0
    for i, c in enumerate(line):
        if not quote and not escaped:
            depth += (c in "({") - (c in ")}")
            beside = line[max(i - 1, 0)] + line[i + 1 : i + 2]
            if depth == 0 and (c == ";" or (c == "&" and not set(beside) & set("&<>"))):
                out.append(line[start : i + (c == "&")])
                start = i + 1
        quote, escaped = after(c, quote, escaped)
    return [command for command in (*out, line[start:]) if command.strip(" \t&")]
