"""Reading typed fields out of a mapping, collecting every problem instead of stopping at the first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from costmodel.errors import InputError, Problem

LIMITS: dict[str, int] = {
    "num_hidden_layers": 10_000,
    "vocab_size": 10_000_000,
    "num_experts": 100_000,
    "sliding_window": 1_000_000_000,
    "attention_chunk_size": 1_000_000_000,
    "max_position_embeddings": 1_000_000_000,
}
"""Largest value accepted per field; every other size is held to `SIZE_LIMIT`."""
SIZE_LIMIT = 10_000_000


class Fields:
    """A mapping under a path, with the problems found while reading it."""

    def __init__(self, values: Mapping[str, Any], path: str, problems: list[Problem]) -> None:
        self.values = values
        self.path = path
        self.problems = problems
        self.read: set[str] = set()
        """Names that were asked for, given or not."""

    def problem(self, name: str, message: str) -> None:
        """Note a problem of one field."""
        self.problems.append(Problem(path=f"{self.path}.{name}", message=message))

    def given(self, *names: str) -> str | None:
        """First of these names that is present and not null."""
        self.read.update(names)
        return next((n for n in names if self.values.get(n) is not None), None)

    def integer(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """A whole number under the first of `names` that is given; a missing one without default is a problem."""
        name = self.given(*names)
        if name is None:
            if default is None:
                synonyms = f" (or {', '.join(names[1:])})" if names[1:] else ""
                self.problem(names[0], f"is required{synonyms}, got nothing")
                return least
            return default
        value = self.values[name]
        if isinstance(value, list) and value and all(type(x) is int and x == value[0] for x in value):
            value = value[0]  # one entry per layer, all alike (Hunyuan)
        if isinstance(value, bool) or not isinstance(value, int):
            whole = isinstance(value, float) and math.isfinite(value) and value.is_integer()
            if not whole:
                self.problem(name, f"must be a whole number, got {value!r}")
                return least
            value = int(value)
        limit = LIMITS.get(names[0], SIZE_LIMIT)
        if not least <= value <= limit:
            self.problem(name, f"must lie between {least} and {limit}, got {value}")
            return least
        return value

    def value(self, name: str) -> Any:
        """What stands under a name, of any type; None where nothing does."""
        self.read.add(name)
        return self.values.get(name)

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean."""
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(name, f"must be true or false, got {value!r}")
            return default
        return value

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        value = self.value(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self.problem(name, f"must be a string, got {value!r}")
            return default
        return value

    def table(self, name: str) -> Mapping[str, Any] | None:
        """A nested object, or None."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.problem(name, f"must be an object, got {value!r}")
            return None
        return value

    def items(self, name: str) -> list[Any] | None:
        """A list, or None."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, list):
            self.problem(name, f"must be a list, got {value!r}")
            return None
        return value

    def finish(self) -> None:
        """Raise `InputError` with everything noted so far, if anything was."""
        if self.problems:
            raise InputError(self.problems)
