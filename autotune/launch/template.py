"""READMEs and shell scripts of an export: templates in `autotune/launch/templates`, filled with values."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from autotune.engines.benchmark import middle
from autotune.launch.quoting import one_line, shell_command
from autotune.text.escaping import markdown_cell, markdown_code, markdown_text

if TYPE_CHECKING:
    from jinja2 import Environment

SENTENCES = 600
"""Characters of a list's item in a README: an assumption says why, and what to do about it."""


def filled(template: str, values: Mapping[str, Any]) -> str:
    """The text of a template; text from outside goes through its filters. Ends with one line feed."""
    return _environment().get_template(f"{template}.jinja").render(values).rstrip("\n") + "\n"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # for those who write files

    made = Environment(  # noqa: S701  # no HTML
        loader=PackageLoader("autotune.launch"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "line": one_line,
        "text": lambda text: markdown_text(one_line(text, most=SENTENCES)),
        "cell": lambda text: markdown_cell(one_line(text)),
        "code": lambda text: markdown_code(one_line(text)),
        "quote": shlex.quote,
        "shell": shell_command,
        "number": lambda value: f"{value:,.0f}",
        "digits": lambda value: f"{value:.3g}",
        "gib": lambda size: f"{size / 2**30:.1f}",
        "percent": lambda share: f"{share:.0%}",
        "count": lambda number, noun: f"{number} {noun}{'' if number == 1 else 's'}",
        "span": _span,
        "few": _few,
        "node_name": lambda node: f"NODE_{node}",
        "script_name": lambda process: f"`{process.name}.sh`",
        "host_port": lambda process: f"NODE_{process.node}:{process.http_port}",
    }
    return made


def _span(span: tuple[int, int]) -> str:
    low, high = span
    return f"{low:,} tokens" if low == high else f"{low:,} to {high:,} tokens ({middle(span):,} on average)"


def _few(names: Sequence[str]) -> str:
    names = list(names)
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)})"
