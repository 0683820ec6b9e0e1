"""The audit of pinned dependencies: what pip-audit says, read."""

from __future__ import annotations

from tools.audit import Audit

REPORT = {
    "dependencies": [
        {"name": "one", "version": "1.0", "vulns": []},
        {"name": "two", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]},
        {"name": "three", "skip_reason": "not found"},
    ],
    "fixes": [],
}


def test_an_advisory_fails() -> None:
    """It is named with its package."""
    found = Audit.of(REPORT)
    assert (found.advisories, found.looked_up, found.unknown) == (("two 2.0: PYSEC-1",), 2, 1)
    assert found.fails(strict=False)


def test_what_is_not_looked_up_fails_where_that_is_asked() -> None:
    """No answer is no all-clear, and no advisory either."""
    found = Audit.of({"dependencies": [REPORT["dependencies"][0], REPORT["dependencies"][2]]})  # type: ignore[index]
    assert not found.fails(strict=False)
    assert found.fails(strict=True)
    assert not Audit.of({"dependencies": [REPORT["dependencies"][0]]}).fails(strict=True)
