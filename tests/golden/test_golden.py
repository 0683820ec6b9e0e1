"""Nothing that a plan costs moves unseen: every part of TTFT and TPOT against what was recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.cases import ENGINES, PLANS, loads, records
from tests.golden.table import TABLE

RECORDED: dict[str, dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def computed() -> dict[str, dict[str, Any]]:
    """The same records as the code computes them now."""
    return dict(records())


def test_the_table_is_whole(computed: dict[str, dict[str, Any]]) -> None:
    """Ten plans, three loads, with and without residuals, for each engine, and none that is recorded no longer."""
    assert list(RECORDED) == list(computed)
    assert len(RECORDED) == len(ENGINES) * len(PLANS) * len(loads()) * 2


@pytest.mark.parametrize("name", list(RECORDED))
def test_as_recorded(name: str, computed: dict[str, dict[str, Any]]) -> None:
    """To one part in a million, part by part."""
    for field, recorded in RECORDED[name].items():
        found = computed[name][field]
        assert found == (recorded if isinstance(recorded, str) else pytest.approx(recorded, rel=1e-6, abs=1e-15)), field


def test_the_loads_exercise_every_part(computed: dict[str, dict[str, Any]]) -> None:
    """No part of TTFT and no operator group is zero in all records, but for the transfer that only pools have."""
    for table in ("ttft_parts_s", "prefill_s", "decode_s"):
        seen = {key for figures in computed.values() for key, value in figures[table].items() if value > 0.0}
        assert seen == set(next(iter(computed.values()))[table]) - {"kv_transfer"}
