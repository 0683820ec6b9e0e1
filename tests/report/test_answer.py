"""The short answer on a terminal: its length, and what it says of plans that cannot be launched."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from autotune.report.answer import answer_report
from autotune.report.terminal import Terminal, print_report
from autotune.report.verdict import sampling_errors
from autotune.traffic.load import load_study
from autotune.tuning import tune

STUDIES = Path(__file__).parents[2] / "studies"


def shown(name: str, *overrides: str, width: int = 80) -> str:
    """What `autotune tune` prints on a terminal of so many columns."""
    out = StringIO()
    console = Terminal(file=out, width=width)
    console.wraps = True
    print_report(console, answer_report(tune(load_study(STUDIES / f"{name}.toml", overrides)), top=5))
    return out.getvalue()


def test_an_answer_takes_a_screen() -> None:
    """Verdict, reach, five plans, the one in production and the next commands take 22 lines of 80 columns."""
    lines = shown("deepseek-v3-128xh200").splitlines()
    assert len(lines) <= 22
    steps = [line for line in lines if line.startswith("  autotune ")]
    assert max(len(line) for line in lines if line not in steps) <= 80
    assert [line.split()[1] for line in steps] == ["compare", "export", "verify"]


@pytest.mark.parametrize(("gpus", "refused"), [(31, True), (32, False)])
def test_a_plan_without_launch_files_says_so(gpus: int, refused: bool) -> None:
    """A replica of 31 GPUs on nodes of 8 is ranked with the rule that export refuses it by; no export is advised."""
    said = " ".join(shown("deepseek-v3-128xh200", f"cluster.gpus={gpus}", "baseline=").split())
    assert ("Export refuses" in said and "whole_nodes" in said) == refused
    assert ("autotune export" in said) == (not refused)


def test_a_sampled_answer_says_the_error_of_sampling() -> None:
    """What windows of a log leave open of the first plan's figures stands beside what was sampled, with its unit."""
    result = tune(load_study(STUDIES / "llama-70b-16xh100.toml"))
    assert sampling_errors(result) == ""
    shown = {"ttft_p95_ms": {"value": 230.0, "sampling_error": 6.4}, "attainment_frac": {"value": 0.99}}
    first = replace(result.ranked[0], breakdown={"simulated": shown})
    assert "± 6.4 ms" in sampling_errors(replace(result, ranked=(first, *result.ranked[1:])))
