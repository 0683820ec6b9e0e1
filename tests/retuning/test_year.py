"""Some hours of the year of re-tuning that `python -m tests.year` plays."""

from __future__ import annotations

from pathlib import Path

from tests.year import play

TROUBLED = ("torn ledger", "long prompts", "read-only state", "two hosts at once")


def test_trouble_leads_to_no_false_switch_and_no_lasting_refusal(tmp_path: Path) -> None:
    """The one lasting change is followed at once; whatever is refused or cannot be written goes on an hour later."""
    year = play(2, tmp_path, TROUBLED)
    assert year.decisions.total() == 2 * len(TROUBLED)
    assert year.refused.pop("read-only state") == 1  # its last hour
    assert not any(year.refused.values())
    assert year.decisions["unread"] == 1
    assert [event for event, _, _ in year.switches] == ["long prompts"]
    assert not year.false_switches
    assert not year.missed
    assert year.ledger_bytes < 10_000 * year.decisions.total()
