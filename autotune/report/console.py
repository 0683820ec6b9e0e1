"""The console that every table is printed on."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from costmodel.errors import visible


class Terminal(Console):
    """A console on which names from files cannot send sequences to the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does it, with control characters as their escapes."""
        return super().render_str(visible(text), **options)
