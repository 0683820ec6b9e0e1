"""What stands above and below the ranked table of a terminal."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from autotune.report.answer import tune_report
from autotune.report.terminal import print_report
from autotune.study import load_study
from autotune.tuning import tune
from tests.studies import FOLDER


def _printed(name: str, *overrides: str) -> str:
    out = StringIO()
    print_report(Console(file=out, width=250), tune_report(tune(load_study(FOLDER / name, overrides)), top=2))
    return out.getvalue()


def test_the_answer_comes_first_and_the_commands_last() -> None:
    """A plan in production that breaks a limit is named with it, then what the best costs against it."""
    lines = _printed("reference-128.toml").splitlines()
    assert lines[1].startswith("Measure before you switch to R2 PP16 TP4 EP4.")
    assert lines[2].strip().startswith("Never measured: reference GPU")
    assert "short by" in lines[3]
    assert lines[-2].endswith("autotune compare " + str(FOLDER / "reference-128.toml"))
    assert "--model" in lines[-1]
    steps = [line.split() for line in _printed("deepseek-v3-128xh200.toml").splitlines()[-3:]]
    assert [words[1] for words in steps] == ["compare", "export", "verify"]
    assert steps[1][2:] == [str(FOLDER / "deepseek-v3-128xh200.toml"), "--target", "vllm", "--out", "launch"]


def test_equal_service_is_told_apart_by_time() -> None:
    """At a given request rate no gain of throughput is claimed."""
    shown = _printed("deepseek-v3-128xh200.toml", "workload.request_rate_per_s=20")
    assert "time for a request at the same load" in shown.splitlines()[3]


def test_other_readings_name_their_engine() -> None:
    """With several engines the same short plan means different things."""
    shown = _printed("deepseek-v3-128xh200.toml", "engine=any", "baseline.plan=ADP8+EP8+R16")
    (line,) = [x for x in shown.splitlines() if "could also have meant" in x]
    assert "sglang:R16 DP8 EP8" in line


def test_small_figures_keep_their_digits() -> None:
    """A tenth of a token per second and GPU is not nothing."""
    shown = _printed("deepseek-v3-128xh200.toml", "workload.request_rate_per_s=0.01")
    row = next(x for x in shown.splitlines() if x.strip().startswith("1 "))
    assert "0.391" in row  # 0.01 x 5,000 tokens over 128 GPUs
