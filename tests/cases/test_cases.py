"""The cases, where they lie beside the repository: all are read right."""

from __future__ import annotations

from pathlib import Path

from tests.cases.checks import cases, wrong


def test_every_case_is_right(shared_dir: Path) -> None:
    """Each is read as its `expected.json` says, or refused by naming what it must be refused for."""
    found = list(cases(shared_dir / "cases"))
    assert len(found) >= 33
    assert {case.name: said for case in found if (said := wrong(case)) is not None} == {}
