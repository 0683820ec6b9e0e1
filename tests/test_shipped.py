"""Every shipped study: its answer, the evaluation of its baseline, and its page, from one ranking."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.evaluation import evaluate, evaluate_plan
from autotune.evaluation.strategy import AXES
from autotune.report.evaluation import evaluation_document
from autotune.report.html.tune import tune_page
from autotune.space import format_plan
from autotune.study import load_study
from autotune.tuning import tune
from tests.remembered import asked_once
from tests.report.helpers import outline
from tests.studies import STUDIES

FIELDS = {
    "verdict", "plan", "layout", "checks", "strategy", "memory", "balance", "compatibility", "performance", "claims",
    "assumptions",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _answered_once() -> Iterator[None]:
    """An evaluation and a page are of the answer that is looked at first."""
    with asked_once((sys.modules[__name__], "tune"), (evaluate_plan, "tune")):
        yield


every_study = pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)


@every_study
def test_its_answer_adds_up(path: Path) -> None:
    """Each has an answer in which counts add up and nothing infeasible is ranked."""
    loaded = load_study(path)
    result = tune(loaded)
    assert result.complete
    valid = len(result.space.candidates)
    seen = result.by_percentile
    left = 0 if seen is None else len(seen.left) + len(seen.behind)  # not simulated, or others may come before them
    assert valid == len(result.ranked) + len(result.infeasible) + left
    assert sum(result.infeasible_counts.values()) == len(result.infeasible)
    assert result.space.enumerated == valid + sum(result.space.rejected.values())
    assert all(p.feasible and not p.violations for p in result.ranked)
    assert all(p.violations and p.violations[0].excess > 0 for p in result.infeasible)
    assert bool(result.ranked) == (path.stem != "infeasible-example")
    assert result.baseline is not None
    names = {format_plan(c.layout, c.engine) for c in result.space.candidates}
    assert (
        format_plan(result.baseline.resolution.candidate.layout, result.baseline.resolution.candidate.engine) in names
    )


@every_study
def test_its_baseline_is_evaluated(path: Path) -> None:
    """The baseline of each has all fixed fields, one verdict per axis, and memory that adds up."""
    found = evaluate(load_study(path))
    document: dict[str, Any] = json.loads(json.dumps(evaluation_document(found)))
    assert document.keys() >= FIELDS
    assert {v["axis"] for v in document["strategy"]} <= AXES.keys()
    for v in document["strategy"]:
        assert v["verdict"] in {"OPTIMAL", "UNDECIDED", "ACCEPTABLE", "HARMFUL", "INFEASIBLE"}
        assert (v["loss_frac"] is None) == (v["verdict"] == "INFEASIBLE")
        assert v["reason"]
    assert all(c["passed"] == (c["value"] is not None and c["passed"]) for c in document["checks"])
    assert document["verdict"] == ("PASSED" if all(c["passed"] for c in document["checks"]) else "FAILED")


@every_study
def test_its_page_is_whole(path: Path) -> None:
    """Markup is closed, nothing is undefined or a bare NaN, every assumption stands there, and the file is small."""
    result = tune(load_study(path))
    page = tune_page(result)
    seen = outline(page)
    assert not re.search(r"\bnan\b|\binf\b|None|Undefined", seen.text)
    for said in result.study.assumptions:
        assert said in seen.text
    assert len(page) < 1_500_000
    assert seen.seen["svg"] >= 4
