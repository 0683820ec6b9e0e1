"""Words of a command, as YAML holds them: one text, or a list."""

from __future__ import annotations

from typing import Any

from autotune.launch.reading.parse import split_command


def plain_words(value: Any) -> list[str]:
    """The words, as the process gets them: Compose and Kubernetes take `$$` for a dollar sign."""
    if isinstance(value, str):
        return split_command(value.replace("$$", "$"))
    if isinstance(value, list):
        return [plain_text(item) for item in value if not isinstance(item, list | dict)]
    return []


def plain_text(value: Any) -> str:
    """One of them."""
    return str(value).lower() if isinstance(value, bool) else str(value).replace("$$", "$")
