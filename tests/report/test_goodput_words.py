"""Goodput is what tables, verdicts and commands speak of where it is what plans are ranked by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autotune.comparison import compare
from autotune.evaluation import evaluate
from autotune.metrics import GOODPUT, METRICS
from autotune.report.answer import answer_report
from autotune.report.comparison import comparison_document
from autotune.report.ranked_table import key_words
from autotune.report.simulation import simulation_report
from autotune.report.text_blocks import Report
from autotune.scoring.pair_words import against, change_words
from autotune.scoring.value_and_gain import value_per_s
from autotune.simulation.report_simulation import simulation_document
from autotune.simulation.simulate_plan import simulate_plan, study_traffic
from autotune.study import Study
from autotune.tuning import tune
from autotune.tuning.answer_study import score_plan
from tests.tuning.brute import question

RATE = {"isl": {"min": 700, "max": 1300}, "osl": {"min": 40, "max": 90}, "request_rate_per_s": 12.0}
CLOSED = {"isl": {"min": 700, "max": 1300}, "osl": {"min": 40, "max": 90}, "concurrency": 8}

pytestmark = pytest.mark.usefixtures("few_requests")
"""What is said follows from the same requests everywhere, whatever their number."""


def asked(load: dict[str, Any], **limits: float) -> Study:
    """A study of few plans by goodput, of which one runs."""
    return question(
        "llama-3.1-8b",
        4,
        workload=load,
        constraints=limits or {"ttft_ms": 60.0, "tpot_ms": 4.6},
        objective={"maximize": GOODPUT},
        baseline={"plan": "R2 TP2"},
        search={"max_num_batched_tokens": [1024, 8192]},
    )


@pytest.mark.parametrize(("load", "then"), [(RATE, ", then request s"), (CLOSED, "")])
def test_rows_are_by_goodput_and_say_so(load: dict[str, Any], then: str) -> None:
    """The key, the column against the plan in production and the verdict are of goodput, at a rate too."""
    study = asked(load)
    found = tune(study)
    assert key_words(study) == f"by expected (good req/s/GPU x keeps limits){then}"
    first, base = found.ranked[0], found.baseline.result if found.baseline else None
    assert base is not None
    share = first.metrics[GOODPUT] / base.metrics[GOODPUT] - 1.0
    assert share > 0.005
    words = change_words(METRICS[GOODPUT], share)
    assert words.endswith("more requests within the limits")
    assert words in against(study, first, base)
    table = answer_report(found, top=3).blocks[0].table
    assert table is not None
    (versus,) = [i for i, column in enumerate(table.columns) if column.title == "vs now"]
    assert table.rows[0].cells[versus].by == pytest.approx(share)
    own, other = (value_per_s(study, plan, base) for plan in (first, base))
    for plan, value in ((first, own), (base, other)):
        assert value == pytest.approx(4.0 * plan.metrics[GOODPUT] * plan.p_meets)


def test_a_plan_with_goodput_against_one_without() -> None:
    """Of none there is no share: what is served is said."""
    study = asked(RATE)
    plan = tune(study).ranked[0]
    none = replace(plan, metrics={**plan.metrics, GOODPUT: 0.0})
    assert "requests/s/GPU within the limits instead of none" in against(study, plan, none)


def said(study: Study, name: str) -> tuple[Report, str]:
    """What `simulate` says, and its lines on what is served."""
    plan = score_plan(study, name).result
    assert plan is not None
    traffic = study_traffic(study)
    report = simulation_report(
        simulation_document(study, plan, traffic, simulate_plan(study, plan, traffic)) | {"next": [], "plan": plan.plan}
    )
    (service,) = [block for block in report.blocks if block.key == "service"]
    return report, str(service.lines[0])


def test_simulate_holds_single_requests_to_their_limits() -> None:
    """That a study has limits on requests is seen, and which: those of percentiles where no other is given."""
    report, kept = said(asked(RATE, ttft_ms=5000.0, tpot_ms=90.0), "TP4")
    assert report.reason == "The plan serves 100 % of the requests within the limits."
    assert report.tone == "good"
    assert "the limits on TTFT (5,000 ms), TPOT (90 ms) at once" in kept
    report, kept = said(asked(RATE, ttft_p95_ms=5000.0, tpot_ms=0.1), "TP4")
    assert report.reason == "The plan serves no request within the limits."
    assert report.tone == "bad"
    assert kept.startswith("0 % of requests keep the limits on TTFT (5,000 ms), TPOT (0.1 ms)")
    report, _ = said(asked(RATE, ttft_p95_ms=5000.0, tpot_ms=90.0), "TP4")
    assert report.reason.endswith("of the requests within the limits, and keeps every other.")


@pytest.mark.parametrize("load", [RATE, CLOSED])
def test_commands_agree_on_which_plan_has_more_goodput(load: dict[str, Any]) -> None:
    """`evaluate` finds no plan better than the first, `compare` has the figures, knobs and probability of `tune`."""
    study = asked(load)
    found = tune(study)
    first, base = found.ranked[0], found.baseline.result if found.baseline else None
    assert base is not None
    evaluated = evaluate(study, "best")
    assert evaluated.result is not None
    assert evaluated.best is not None
    assert evaluated.result.runs_as(first)
    assert evaluated.best.runs_as(first)
    assert evaluated.conclusion.startswith(("Proceed", "Measure before you proceed"))
    compared = compare(study)
    assert compared.candidate is not None
    for side, plan in ((compared.current, base), (compared.candidate, first)):
        assert side.result is not None
        assert side.result.runs_as(plan)
        assert side.result.metrics[GOODPUT] == plan.metrics[GOODPUT]
    (row,) = [row for row in compared.metrics if row.name == GOODPUT]
    assert (row.current, row.candidate) == (base.metrics[GOODPUT], first.metrics[GOODPUT])
    assert compared.p_better == pytest.approx(found.confidence[first.plan].p_better_than_baseline)
    document = comparison_document(compared)
    assert document["objective"]["metric"] == GOODPUT
