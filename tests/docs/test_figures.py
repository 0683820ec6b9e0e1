"""Figures of accuracy that stand in the README and on the pages are those of the calibration that is shipped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import costmodel

ROOT = Path(__file__).parents[2]
DATA = Path(costmodel.__file__).parent / "calibration" / "data" / "hopper-vllm.json"
ROUNDED = 0.06
"""Half of the last digit of a figure in per cent, and what the data leaves of a second rounding."""
ROWS = {
    "whole deployments": "deployment",
    "a model": "model",
    "a GPU": "gpu",
    "an engine version": "version",
    "the newest version of each engine": "newest version",
    "a GPU and its versions of an engine": "gpu and version",
    "a generation of GPUs": "generation",
    "a precision": "precision",
    "a benchmark (its source)": "source",
}
"""Rows of the table of docs/accuracy-tables.md, and the splits that they are of."""
POOL_ROWS = ("a deployment", "a model")
"""Rows of the table of docs/disaggregate.md."""


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = json.loads(DATA.read_text("utf-8"))["about"]["cross_validated"]
    return found


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_the_table(row: str, errors: dict[str, dict[str, dict[str, float]]]) -> None:
    """Mean and median of either figure."""
    page = (ROOT / "docs" / "accuracy-tables.md").read_text("utf-8")
    figures = r"([\d.]+) % / ([\d.]+) %"
    match = re.search(rf"^\| {re.escape(row)} \| TPOT \| {figures}.*\n\|  \| TTFT \| {figures}", page, re.MULTILINE)
    assert match
    split = errors[ROWS[row]]
    wanted = [100.0 * split[name][key] for name in ("tpot", "ttft") for key in ("mape", "median")]
    assert [float(text) for text in match.groups()] == pytest.approx(wanted, abs=ROUNDED)


def test_figures_of_the_readme(errors: dict[str, dict[str, dict[str, float]]]) -> None:
    """Means with whole deployments, then with a model left out."""
    readme = (ROOT / "README.md").read_text("utf-8")
    match = re.search(
        r"TPOT is ([\d.]+) % off on average and TTFT ([\d.]+) %;\s+with a model left out, ([\d.]+) % and ([\d.]+) %",
        readme,
    )
    assert match
    wanted = [100.0 * errors[split][name]["mape"] for split in ("deployment", "model") for name in ("tpot", "ttft")]
    assert [float(text) for text in match.groups()] == pytest.approx(wanted, abs=ROUNDED)


def test_pools_of_the_readme_are_those_of_their_page() -> None:
    """TPOT and TTFT, whole deployments and a model left out."""
    readme = (ROOT / "README.md").read_text("utf-8")
    match = re.search(r"TPOT ([\d.]+) %, TTFT ([\d.]+) %; with a model left out ([\d.]+) % and ([\d.]+) %", readme)
    assert match
    page = (ROOT / "docs" / "disaggregate.md").read_text("utf-8")
    rows = [re.search(rf"^\| {row} \| ([\d.]+) / \S+ % \| ([\d.]+) /", page, re.MULTILINE) for row in POOL_ROWS]
    assert [figure for row in rows if row for figure in row.groups()] == list(match.groups())
