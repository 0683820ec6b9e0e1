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
        return visible(f"{self.path}: {self.message}")


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
        super().__init__("\n".join(str(p) for p in self.problems))

    @classmethod
    def single(cls, path: str, message: str) -> InputError:
        """Build an error of one problem."""
        return cls([Problem(path=path, message=message)])
