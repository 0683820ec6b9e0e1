"""A server's command, read back: its options as text, and as numbers with every problem met on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from autotune.engines.options import OptionList
from costmodel.errors import Problem

_HUMAN = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
"""Suffixes as vLLM reads them (`human_readable_int`): small letters are decimal, and alone take fractions; capital
ones are binary.
"""
MAX_VALUE = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command that starts a server's process."""

    engine: str
    options: OptionList
    model: str | None
    values: Mapping[str, Any]
    """Option -> text, list of texts, or a truth value; only what was said."""
    env: Mapping[str, str]
    unknown: tuple[str, ...]
    """What this version does not know, as it was written."""
    assumptions: tuple[str, ...] = ()
    turned_off: Mapping[str, str] = field(default_factory=dict)
    """Flag -> what turned it off, as it was written."""
    own: tuple[str, ...] = ()
    """Options that the program which starts the engine takes for itself."""


@dataclass(slots=True)
class OptionReader:
    """The options of one command as numbers."""

    command: Command
    gpu_gib: float
    """Memory of the GPU, by which servers choose some defaults."""
    gpu_name: str = ""
    """The same; empty: not known."""
    backend: str | None = None
    """Of the exchange with experts, by which too; None: there is none, or it chooses none."""
    assumptions: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def text(self, name: str) -> str | None:
        """What was said of an option."""
        value = self.command.values.get(name)
        if isinstance(value, list):
            return " ".join(map(str, value))
        return None if value is None else str(value)

    def default(self, name: str) -> str | int | float | bool | None:
        """What the version takes where nothing is said; None: it finds it when it starts."""
        return self.command.options.default(name, gpu_gib=self.gpu_gib, gpu_name=self.gpu_name, backend=self.backend)

    def number(self, name: str, fallback: int | None = None, *, least: int = 1) -> int | None:
        """A whole number that was said, or the version's default, or `fallback`."""
        value = self.text(name)
        if value is None:
            default = self.default(name)
            return default if isinstance(default, int) and not isinstance(default, bool) else fallback
        match = re.fullmatch(r"(\d{1,12})([kKmMgGtT]?)|(\d{1,12}\.\d{1,12})([kmgt])", value.strip())
        number = -1
        if match is not None:
            number = int(Decimal(match[1] or match[3]) * _HUMAN.get(match[2] or match[4], 1))
        if not least <= number <= MAX_VALUE:
            option = self.command.options.options.get(name)
            where = name if option is None else option.flags[0]
            self.problems.append(
                Problem(path=where, message=f"must be a whole number from {least} to {MAX_VALUE:,}, got {value!r}")
            )
            return fallback
        return number

    def limit(self, name: str) -> int | None:
        """As `number`, of an option that -1 turns off; None: off, or not said."""
        if (self.text(name) or "").strip() == "-1":
            option = self.command.options.options.get(name)
            self.assumptions.append(f"{name if option is None else option.flags[0]} -1: off")
            return None
        return self.number(name)

    def one(self, name: str) -> int:
        """A degree: what was said, or the default, or 1."""
        return self.number(name) or 1

    def on(self, name: str) -> bool:
        """Whether a flag is set."""
        return self.command.values.get(name) is True or str(self.command.values.get(name)).lower() == "true"

    def fraction(self, text: str) -> float | None:
        """A share of memory."""
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if 0.0 < value <= 1.0:
            return value
        self.problems.append(Problem(path="memory fraction", message=f"must lie between 0 and 1, got {text[:40]!r}"))
        return None

    def guess_experts(self, likely: bool) -> bool:
        """Whether a model that is not known has experts: `likely` where the options speak of them; a guess is noted."""
        if not likely:
            self.assumptions.append("model not known: taken for a dense one, since neither EP nor attention-DP is set")
        return likely

    def stages(self, text: str | None, pp: int) -> tuple[int, ...]:
        """Layers per stage from `31,30`; none where nothing is said."""
        if text is None:
            return ()
        if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", text.strip()) or len(text.split(",")) != pp:
            self.problems.append(
                Problem(path="layer partition", message=f"must list the layers of {pp} stages, got {text[:100]!r}")
            )
            return ()
        return tuple(map(int, text.strip().split(",")))

    def divided(self, whole: int, part: int, what: str) -> int:
        """`whole / part`, which has to be whole."""
        if part < 1 or whole % part:
            self.problems.append(Problem(path="COMMAND", message=f"{what}: {part} must divide {whole}"))
            return whole
        return whole // part
