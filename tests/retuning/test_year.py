"""A year of re-tuning in three runs a month, of those that `python -m tests.year` makes."""

from __future__ import annotations

from pathlib import Path

from tests.year import EVENTS, play


def test_a_year_leads_to_no_false_switch_and_no_lasting_refusal(tmp_path: Path) -> None:
    """Every run is counted, one plan stays the right one, and whatever is refused is gone an hour later."""
    year = play(3, tmp_path)
    assert year.decisions.total() == 3 * len(EVENTS)
    assert not any(year.refused.values())
    assert year.decisions["refuse"] >= 1
    assert not year.decisions["unread"]
    assert not year.switches
    assert year.ledger_bytes < 10_000 * year.decisions.total()
