"""The seeded mistakes can be made in the code as it is now."""

from __future__ import annotations

import pytest

from tests.mutants import CHANGES
from tests.mutants.change import ROOT, Change


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.file}: {change.old}"[:80])
def test_every_change_can_be_made(change: Change) -> None:
    """Its old text stands in its file exactly once, and what comes of it is Python."""
    text = (ROOT / change.file).read_text(encoding="utf-8")
    compile(change.applied(text), change.file, "exec")


def test_there_are_enough_of_them() -> None:
    """Forty at least, none twice, of both packages."""
    assert len(set(CHANGES)) == len(CHANGES) >= 40
    assert {change.file.partition("/")[0] for change in CHANGES} == {"autotune", "costmodel"}


def test_a_change_that_does_not_apply_is_an_error() -> None:
    """Text that is not there, or twice, is no change of the file."""
    with pytest.raises(ValueError, match="stands 0 times"):
        Change(file="x.py", old="a = 1", new="a = 2").applied("b = 1\n")
    with pytest.raises(ValueError, match="stands 2 times"):
        Change(file="x.py", old="1", new="2").applied("a = 1\nb = 1\n")
