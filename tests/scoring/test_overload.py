"""Under more load than a plan serves its first tokens have no time: said alike wherever people are told of one."""

from __future__ import annotations

import json
from math import inf, isfinite
from pathlib import Path
from typing import Any

import pytest

from autotune.comparison import compare
from autotune.evaluation import Evaluation, evaluate
from autotune.report.comparison import comparison_document
from autotune.report.comparison_text import comparison_blocks
from autotune.report.evaluation import evaluation_document
from autotune.report.evaluation_text import evaluation_report
from autotune.report.html.evaluation import evaluation_page
from autotune.report.markdown import markdown_report
from autotune.scoring.overload import Overload, overload_of, told
from autotune.scoring.trial_record import Recorder, plan_of
from autotune.study import Study, study_from_document
from autotune.tuning import tune
from tests.command import autotune

STUDY = {
    "name": "r",
    "engine": "vllm",
    "model": "llama-3.1-8b",
    "cluster": {"gpus": 1, "gpu": "l40s"},
    "workload": {"isl": 2000, "osl": 300, "request_rate_per_s": 1},
    "constraints": {"ttft_ms": 3000, "tpot_ms": 80, "e2e_ms": 60000},
    "baseline": {"plan": "TP1"},
}
WORDS = "grows without bound: 20 requests/s come, 3.662 are served"


def study(rate: float, gpus: int = 1) -> Study:
    """The plan serves 3.66 of them on a GPU."""
    document: dict[str, Any] = {
        **STUDY,
        "cluster": {"gpus": gpus, "gpu": "l40s"},
        "workload": {"isl": 2000, "osl": 300, "request_rate_per_s": rate},
    }
    return study_from_document(document, Path("r.toml"))


def evaluated(rate: float) -> Evaluation:
    """The plan at a rate."""
    found = evaluate(study(rate))
    assert isinstance(found, Evaluation)
    return found


@pytest.mark.parametrize("rate", [5.0, 8.0, 20.0])
def test_a_first_token_has_no_time(rate: float) -> None:
    """TTFT and the time of a request fail their limits; what binds is the rate, and what decodes has its TPOT."""
    found = evaluated(rate)
    checks = {check.name: check for check in found.checks}
    for name in ("ttft_ms", "e2e_ms"):
        assert (checks[name].passed, checks[name].value, checks[name].grows) == (False, None, True)
    assert isfinite(checks["tpot_ms"].value or inf)
    assert not checks["tpot_ms"].grows
    assert found.binding == "request_rate_per_s"
    assert found.sections.quantities["ttft_s"] == inf


def test_a_rate_that_is_served_has_a_first_token() -> None:
    """Nothing grows, and nothing is said of it."""
    found = evaluated(1.0)
    assert not any(check.grows for check in found.checks)
    assert found.result is not None
    assert overload_of(found.result.breakdown) is None
    assert told(found.result, "ttft_s") == found.result.metrics["ttft_s"]


def test_every_page_says_it() -> None:
    """Terminal, Markdown and HTML have the words, and JSON has no figure."""
    document = evaluation_document(evaluated(20.0))
    text = json.dumps(document, allow_nan=False)
    assert WORDS in text
    assert document["performance"]["ttft_longest_s"] is None
    assert document["confidence"]["ttft_p90_s"] is None
    assert WORDS in markdown_report(evaluation_report(document))
    assert WORDS in evaluation_page(document)
    assert "TTFT at the longest prompt grows without bound" in document["conclusion"]


def test_the_nearest_plans_say_it() -> None:
    """What is broken most is the rate, then what follows from it; nobody is shown 0.657 s."""
    (plan,) = tune(study(20.0)).infeasible
    assert overload_of(plan.breakdown) == Overload(offered_per_s=20.0, served_per_s=plan.metrics["requests_per_s"])
    codes = [violation.code for violation in plan.violations]
    assert codes[0] == "request_rate_per_s"
    assert {"ttft_ms", "e2e_ms"} <= set(codes)
    assert plan.margins["ttft_ms"] == inf
    assert plan_of(Recorder.of(study(20.0), [plan.candidate]).record(plan)) == plan


def test_the_answer_says_it(tmp_path: Path) -> None:
    """The table has no seconds, the line below it says why."""
    path = tmp_path / "r.toml"
    path.write_text(
        'engine = "vllm"\nmodel = "llama-3.1-8b"\n[cluster]\ngpus = 1\ngpu = "l40s"\n[workload]\nisl = 2000\n'
        "osl = 300\nrequest_rate_per_s = 20\n[constraints]\nttft_ms = 3000\n",
        encoding="utf-8",
    )
    said = autotune("tune", str(path), "--no-storage", "--table").stdout
    assert "∞: grows without bound" in said
    assert "0.657" not in said


def test_a_plan_that_serves_the_rate_serves_more() -> None:
    """Beside a request without end no time is said; the plan in production has none in the table either."""
    found = evaluate(study(6.0, gpus=2), "TP2")
    assert "serves 16% more requests" in found.conclusion
    assert "time for a request" not in found.conclusion


def test_comparisons_say_it() -> None:
    """A plan that serves the rate surely has the shorter TTFT than one that does not."""
    document = comparison_document(compare(study(6.0, gpus=2), "TP2", "R2"))
    rows = {row["name"]: row for row in document["metrics"]}
    assert rows["ttft_s"]["current"] is None
    assert rows["ttft_s"]["candidate"] > 0.0
    assert rows["ttft_s"]["p_better"] == 0.8  # GPUs of this type were never measured
    assert rows["ttft_s"]["difference_frac"] is None
    shown = next(block for block in comparison_blocks(document) if block.key == "metrics")
    assert any(line.startswith("∞: with the current plan it grows without bound") for line in map(str, shown.lines))
    json.dumps(document, allow_nan=False)
