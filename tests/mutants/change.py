"""One seeded mistake: a piece of a file, and what stands there instead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A mistake that somebody could make: a constant, a sign or a term."""

    file: str
    """Path from the root of the repository."""
    old: str
    """Text that stands in the file exactly once."""
    new: str

    def applied(self, text: str) -> str:
        """The file's text with the mistake in it.

        Raises:
            ValueError: the old text does not stand there exactly once, or the change changes nothing.
        """
        found = text.count(self.old)
        if found != 1 or self.old == self.new:
            raise ValueError(f"{self.file}: {self.old!r} must stand there once and be changed, it stands {found} times")
        return text.replace(self.old, self.new)


def changes_of(file: str, *pairs: tuple[str, str]) -> tuple[Change, ...]:
    """The changes of one file, each as (old text, new text)."""
    return tuple(Change(file=file, old=old, new=new) for old, new in pairs)
