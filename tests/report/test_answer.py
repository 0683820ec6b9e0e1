"""The short answer on a terminal: its length, and what it says of plans that cannot be launched."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from autotune.evaluation import evaluate
from autotune.report.answer import answer_document, answer_report
from autotune.report.evaluation import evaluation_document
from autotune.report.html.tune import tune_page
from autotune.report.terminal import Terminal, print_report
from autotune.report.verdict import sampling_errors
from autotune.traffic.load import load_study
from autotune.tuning import TuneResult, tune

STUDIES = Path(__file__).parents[2] / "studies"


def screen(result: TuneResult) -> str:
    """What `autotune tune` prints on a terminal of 80 columns."""
    out = StringIO()
    console = Terminal(file=out, width=80)
    console.wraps = True
    print_report(console, answer_report(result, top=5))
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "next_ones"),
    [
        ("deepseek-v3-128xh200", ["compare", "export", "verify"]),
        ("reference-128", ["compare"]),
        ("infeasible-example", ["tune"]),
    ],
)
def test_an_answer_takes_a_screen(name: str, next_ones: list[str]) -> None:
    """Verdict, reach, five plans, the one in production and the next commands take 20 lines of 80 columns.

    What was never measured stands before the first figure of a plan.
    """
    lines = screen(tune(load_study(STUDIES / f"{name}.toml"))).splitlines()
    assert len(lines) <= 20
    steps = [line for line in lines if line.startswith("  autotune ")]
    assert max(len(line) for line in lines if line not in steps) <= 80
    assert [line.split()[1] for line in steps] == next_ones
    reach = next(i for i, line in enumerate(lines) if line.startswith(("  Never measured:", "  Measured:")))
    assert not re.search(r"\d%|\bms\b", " ".join(lines[1:reach]))


@pytest.mark.parametrize(("gpus", "refused"), [(31, True), (32, False)])
def test_a_plan_without_launch_files_says_so(gpus: int, refused: bool) -> None:
    """A replica of 31 GPUs on nodes of 8 is ranked with the rule that export refuses it by; no export is advised.

    Terminal, page and JSON say the same, and so does the evaluation of the plan.
    """
    study = load_study(STUDIES / "deepseek-v3-128xh200.toml", [f"cluster.gpus={gpus}", "baseline="])
    result = tune(study)
    document = answer_document(result, top=5)
    assert ([1, "whole_nodes"] in [[r["rank"], r["why"][:11]] for r in document["export_refuses"]]) == refused
    said = " ".join(screen(result).split())
    for text in (said, tune_page(result)):
        assert ("Export refuses # 1" in text and "whole_nodes" in text) == refused
    assert ("autotune export" in said) == ("autotune export" in " ".join(document["next"])) == (not refused)
    assert document["verdict"]["sentence"] in said
    first = evaluation_document(evaluate(study, result.ranked[0].plan))
    assert first["export_refuses"].startswith("whole_nodes") == refused


def test_a_sampled_answer_says_the_error_of_sampling() -> None:
    """What windows of a log leave open of the first plan's figures stands beside what was sampled, with its unit."""
    result = tune(load_study(STUDIES / "llama-70b-16xh100.toml"))
    assert sampling_errors(result) == ""
    shown = {"ttft_p95_ms": {"value": 230.0, "sampling_error": 6.4}, "attainment_frac": {"value": 0.99}}
    first = replace(result.ranked[0], breakdown={"simulated": shown})
    assert "± 6.4 ms" in sampling_errors(replace(result, ranked=(first, *result.ranked[1:])))


def test_lengths_of_sessions_are_said_by_their_mean() -> None:
    """Prompts that grow from turn to turn have a mean far from the middle of their range, which is what is named."""
    sessions = ["workload.sessions={turns=8,system_tokens=2000}", "workload.request_rate_per_s=1"]
    result = tune(load_study(STUDIES / "llama-70b-16xh100.toml", sessions))
    work = result.study.workload
    assert f"{work.isl.mean:,.0f}+{work.osl.mean:,.0f} " in answer_report(result, top=1).headline
    assert f"{work.isl.max:,}" not in tune_page(result)[: tune_page(result).index("</header>")]
