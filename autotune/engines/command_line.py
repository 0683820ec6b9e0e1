"""Building a command line from options that the engine's version has; every option is checked as it is added.

Arguments are no text of a shell or of YAML: what is known only where a plan is started (hosts, files, a script's
variables) stands in them as a reference, so that each target of an export can quote and name it in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass

from autotune.engines.options import OptionList
from costmodel.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHost:
    """The address of a node, known only where the plan is started; `port` completes it to HOST:PORT."""

    node: int
    """Index into `LaunchPlan.nodes`."""
    port: int | None = None
    scheme: str = ""
    """What stands before it, as `http://`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSlots:
    """Addresses of several nodes with the processes that MPI starts on each: `HOST:8,HOST:8`."""

    nodes: tuple[int, ...]
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePath:
    """A file that is written next to the scripts, by its name there."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRank:
    """A number that a node's place within its replica decides: `rank x each`."""

    rank: int
    each: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """What a benchmark script is told when it is started, by its name there."""

    name: str
    before: str = ""
    """Text of the same argument in front of it."""


Arg = str | NodeHost | HostSlots | FilePath | NodeRank | Variable
"""One element of a command line."""


class CommandLine:
    """Arguments in the order in which they are added, after the engine's command."""

    def __init__(self, options: OptionList) -> None:
        self.options = options
        self.argv: list[Arg] = list(options.command.split())

    def positional(self, value: Arg) -> CommandLine:
        """An argument without a name."""
        self.argv.append(value)
        return self

    def value(self, name: str, value: Arg | int | float, *, meaning: str | None = None) -> CommandLine:
        """An option with a value. `name` is the engine's own for it; `meaning` as in `OptionList.require`.

        Raises:
            InputError: this version has no such option, means something else by it, or does not take the value.
        """
        option = self.options.require(name, meaning=meaning)
        text = value if isinstance(value, Arg) else _number(value)
        if option.choices and isinstance(text, str) and text not in option.choices:
            raise InputError.single(
                "--engine-version",
                f"{option.flags[0]} of {self.options.engine} {self.options.version} must be one of "
                f"{', '.join(option.choices)}, got {text}",
            )
        self.argv += [option.flags[0], text]
        return self

    def degree(self, name: str, value: int, *, meaning: str | None = None) -> CommandLine:
        """An option that is left out at 1, as `value`."""
        return self if value == 1 else self.value(name, value, meaning=meaning)

    def values(self, name: str, values: list[Arg]) -> CommandLine:
        """An option that takes any number of values."""
        self.argv += [self.options.require(name).flags[0], *values]
        return self

    def flag(self, name: str) -> CommandLine:
        """An option without a value."""
        self.argv.append(self.options.require(name).flags[0])
        return self

    def done(self) -> tuple[Arg, ...]:
        """The whole command."""
        return tuple(self.argv)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"
