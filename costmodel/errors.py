"""Errors of the input: one exception that lists every problem with its path.

InputError
    a file, a field or an argument is malformed; `problems` holds all of them
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from unicodedata import category


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with an input: where (`$.cluster.gpus`, a file name) and what."""

    path: str
    message: str

    def __str__(self) -> str:
        return visible(f"{_shortened(self.path, MOST_PATH)}: {_shortened(self.message, MOST_MESSAGE)}")


MOST_PATH, MOST_MESSAGE = 600, 2_000
"""Characters that are told of a problem: an input of megabytes is not echoed."""
MOST_PROBLEMS = 100
"""Problems that are told of at once."""


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end]} ({len(text) - most:,} more characters) {text[-end:]}"


_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of what is not shown but does something: controls, directions, halves of characters, breaks."""


def visible(text: str) -> str:
    """Text that moves no cursor and hides nothing where a terminal shows it: such characters as their escapes."""
    if text.isprintable():
        return text
    return "".join(
        c if c in "\n\t" or category(c) not in _UNSEEN else c.encode("unicode_escape").decode() for c in text
    )


class InputError(ValueError):
    """Malformed input. Carries every problem found, so that a user mends a file in one go."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.told()))

    def told(self) -> list[str]:
        """A line for each problem, as many as can be read."""
        lines = [str(problem) for problem in self.problems[:MOST_PROBLEMS]]
        more = len(self.problems) - MOST_PROBLEMS
        return lines if more <= 0 else [*lines, f"and {more:,} more problems of this kind"]

    @classmethod
    def single(cls, path: str, message: str) -> InputError:
        """Build an error of one problem."""
        return cls([Problem(path=path, message=message)])
