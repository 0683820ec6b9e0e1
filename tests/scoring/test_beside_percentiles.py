"""Means of the closed form beside percentiles that are simulated: said where they are far off."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from autotune.report.answer import answer_report
from autotune.report.document import assumptions
from autotune.scoring.plan_result import PERCENTILES
from autotune.scoring.unsure_means import CLOSED_FORM, beside_percentiles
from autotune.tuning import TuneResult, tune
from tests.tuning.brute import question


@cache
def _answer() -> TuneResult:
    study = question(
        "llama-3.1-8b",
        4,
        workload={"isl": 1009, "osl": 211, "request_rate_per_s": 10.0},
        constraints={"ttft_p99_ms": 1000.0},
        baseline={"plan": "TP4"},
    )
    return tune(study)


def test_means_that_are_far_off_are_said() -> None:
    """By the plan's name, with what was simulated; those that are close are not."""
    result = _answer()
    plan = result.ranked[0]
    simulated = plan.breakdown[PERCENTILES]
    assert beside_percentiles(result.study, {"it": plan, "none": None}) == ()
    told = {**plan.metrics, "tpot_s": simulated["tpot_mean_ms"] / 1e3 * 1.06}
    (said,) = beside_percentiles(result.study, {"it": replace(plan, metrics=told)})
    assert said.startswith(CLOSED_FORM)
    assert f"it {simulated['ttft_mean_ms']:,.0f} ms and {simulated['tpot_mean_ms']:,.1f} ms" in said
    off = replace(result, ranked=(replace(plan, metrics=told), *result.ranked[1:]))
    assert said.replace("it ", "the first plan ") in assumptions(off)


def test_a_title_counts_what_is_not_ranked() -> None:
    """Plans that may keep every limit and were not ranked are no part of how many are the best."""
    result = _answer()
    count = len(result.ranked)
    assert result.by_percentile is not None
    title = answer_report(result, top=3).blocks[0].title
    assert title.startswith(f"Best of {count}" if not result.unplaced else f"Best {count} of up to")
    some = replace(result.by_percentile, left=result.ranked[-1:])
    cut = replace(result, ranked=result.ranked[:-1], by_percentile=some)
    assert answer_report(cut, top=3).blocks[0].title.startswith(f"Best {count - 1} of up to {count} ")
