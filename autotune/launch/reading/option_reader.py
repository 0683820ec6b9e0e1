"""Options of a command as numbers, with every problem met on the way."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from autotune.launch.reading.parse import Command
from costmodel.errors import Problem

_HUMAN = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
"""Suffixes as vLLM reads them: small letters are decimal, capital ones binary."""
MAX_VALUE = 10**9


@dataclass(slots=True)
class Values:
    """Options of one command as numbers, with every problem met on the way."""

    command: Command
    gpu_gib: float
    said: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def text(self, name: str) -> str | None:
        """What was said of an option."""
        value = self.command.values.get(name)
        if isinstance(value, list):
            return " ".join(map(str, value))
        return None if value is None else str(value)

    def number(self, name: str, fallback: int | None = None, *, least: int = 1) -> int | None:
        """A whole number that was said, or the version's default, or `fallback`."""
        value = self.text(name)
        if value is None:
            default = self.command.options.default(name, gpu_gib=self.gpu_gib)
            return default if isinstance(default, int) and not isinstance(default, bool) else fallback
        match = re.fullmatch(r"(\d{1,12})([kKmMgG]?)", value)
        number = int(match[1]) * _HUMAN.get(match[2], 1) if match else -1
        if not least <= number <= MAX_VALUE:
            option = self.command.options.options.get(name)
            where = name if option is None else option.flags[0]
            self.problems.append(
                Problem(path=where, message=f"must be a whole number from {least} to {MAX_VALUE:,}, got {value!r}")
            )
            return fallback
        return number

    def one(self, name: str) -> int:
        """A degree: what was said, or the default, or 1."""
        return self.number(name) or 1

    def on(self, name: str) -> bool:
        """Whether a flag is set."""
        return self.command.values.get(name) is True or str(self.command.values.get(name)).lower() == "true"

    def stages(self, text: str | None, pp: int) -> tuple[int, ...] | None:
        """Layers per stage from `31,30`."""
        if text is None:
            return None
        if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", text.strip()) or len(text.split(",")) != pp:
            self.problems.append(
                Problem(path="layer partition", message=f"must list the layers of {pp} stages, got {text[:100]!r}")
            )
            return None
        return tuple(map(int, text.strip().split(",")))

    def divided(self, whole: int, part: int, what: str) -> int:
        """`whole / part`, which has to be whole."""
        if part < 1 or whole % part:
            self.problems.append(Problem(path="COMMAND", message=f"{what}: {part} must divide {whole}"))
            return whole
        return whole // part
