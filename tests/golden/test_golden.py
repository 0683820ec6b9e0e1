"""Nothing that a plan costs moves unseen: every part of TTFT and TPOT against what was recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from costmodel.version import MODEL_VERSION
from tests.golden.cases import ANSWERS, ENGINES, PLANS, SHOWN, loads, records
from tests.golden.table import TABLE, alike, read_table, write_table

VERSION, RECORDED = read_table()
COSTS = len(ENGINES) * len(PLANS) * len(loads()) * 2


@pytest.fixture(scope="module")
def computed() -> dict[str, dict[str, Any]]:
    """The same records as the code computes them now."""
    return dict(records())


def test_the_table_is_whole(computed: dict[str, dict[str, Any]]) -> None:
    """Ten plans, four loads, with and without residuals, for each engine, some answers, and nothing else."""
    assert list(RECORDED) == list(computed)
    assert len(RECORDED) == COSTS + SHOWN * len(ANSWERS)
    assert VERSION == MODEL_VERSION, "python -m tests.golden records the table of this version"


@pytest.mark.parametrize("name", list(RECORDED))
def test_as_recorded(name: str, computed: dict[str, dict[str, Any]]) -> None:
    """To one part in a million, part by part."""
    for field, recorded in RECORDED[name].items():
        assert alike(recorded, computed[name][field]), (field, recorded, computed[name][field])


def test_the_loads_exercise_every_part(computed: dict[str, dict[str, Any]]) -> None:
    """No part of TTFT and no operator group is zero in all records, but for the transfer that only pools have."""
    for table in ("ttft_parts_s", "prefill_s", "decode_s"):
        seen = {
            key for figures in list(computed.values())[:COSTS] for key, value in figures[table].items() if value > 0.0
        }
        assert seen == set(next(iter(computed.values()))[table]) - {"kv_transfer"}


def test_figures_do_not_move_under_one_version(tmp_path: Path) -> None:
    """Changed figures are recorded under a higher version alone; records and figures that are new are no change."""
    path = tmp_path / "table.json"
    first = {"a": {"ttft_s": 1.0, "parts": {"queue": 0.5}, "plan": "TP4"}, "b": {"ttft_s": 2.0}}
    write_table(3, first, path)
    wider = {"a": {**first["a"], "more": 1.0}, "c": {"ttft_s": 9.0}}
    write_table(3, wider, path)
    assert read_table(path) == (3, wider)
    for moved in ({"ttft_s": 1.00001}, {"parts": {"queue": 0.6}}, {"plan": "TP8"}, {"parts": {}}):
        with pytest.raises(ValueError, match="MODEL_VERSION"):
            write_table(3, {"a": {**wider["a"], **moved}}, path)
    assert read_table(path) == (3, wider)
    write_table(3, {"a": {**wider["a"], "ttft_s": 1.0 + 1e-9}}, path)
    write_table(4, {"a": {"ttft_s": 5.0}}, path)
    assert read_table(path) == (4, {"a": {"ttft_s": 5.0}})


def test_the_table_is_of_this_code(computed: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """What the code computes can be recorded as it is: nothing moved since."""
    path = tmp_path / "table.json"
    path.write_bytes(TABLE.read_bytes())
    write_table(MODEL_VERSION, computed, path)
    assert json.loads(path.read_text(encoding="utf-8"))["model_version"] == MODEL_VERSION
