"""What people type, and what they must see: jobs that are done and mistakes that are made."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from autotune.cli.main import main

ROOT = Path(__file__).resolve().parents[3]
SCREENS = Path(__file__).parent / "recorded"
WIDTHS = (80, 120, 160)
TIME = re.compile(r"\b\d+\.\d+ s\b|\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?")
"""What differs from run to run: how long it took, and when it was."""
DEEPSEEK, LLAMA = "studies/deepseek-v3-128xh200.toml", "studies/llama-70b-16xh100.toml"
QUICK = ("--model", "llama-3.1-8b", "--gpus", "8", "--gpu", "h100", "--isl", "1000", "--osl", "200")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command that does what is wanted."""

    name: str
    words: tuple[str, ...]
    sees: tuple[str, ...]
    code: int = 0
    recorded: bool = False
    """Whether its screens are kept and reviewed when they change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A command line that is wrong, and what its one message must hold."""

    words: tuple[str, ...]
    sees: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """What a terminal shows."""

    code: int
    shown: str
    errors: str


def screen(words: tuple[str, ...], width: int) -> Screen:
    """Run a command as on a terminal of so many columns, in a folder of its own that has the studies.

    In this process: a new one for each of a hundred commands would take minutes to import what they share.
    """
    out, errors, before = StringIO(), StringIO(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "studies").symlink_to(ROOT / "studies")
        (Path(folder) / "data").symlink_to(ROOT / "tests" / "data")
        given = {"COLUMNS": str(width), "XDG_DATA_HOME": f"{folder}/kept", "HOME": folder}
        changed = (patch.dict(os.environ, given), patch.object(sys, "argv", ["autotune", *words]))
        with changed[0], changed[1], redirect_stdout(out), redirect_stderr(errors):
            os.chdir(folder)
            try:
                main()
                code = 0
            except SystemExit as done:
                code = int(done.code or 0)
            finally:
                os.chdir(before)
        lines = [line.rstrip() for line in out.getvalue().replace(folder, "/HERE").splitlines()]
    shown = TIME.sub("TIME", "\n".join(lines) + "\n")
    return Screen(code=code, shown=shown, errors=errors.getvalue())


def _tune(*words: str) -> tuple[str, ...]:
    return ("tune", *words, "--table", "--no-storage")


JOBS = (
    Job(
        name="first-answer",
        words=_tune(DEEPSEEK),
        sees=("Measure before you switch", "Never measured", "Next"),
        recorded=True,
    ),
    Job(
        name="quick",
        words=_tune(*QUICK, "--tpot", "30"),
        sees=("First of", "Study file: "),
        recorded=True,
    ),
    Job(name="init", words=("init",), sees=("[cluster]", "[workload]", "[constraints]")),
    Job(
        name="no-plan-fits",
        words=_tune("studies/infeasible-example.toml"),
        sees=("No plan keeps every limit", "What would have to give: --set"),
        code=3,
        recorded=True,
    ),
    Job(
        name="too-large",
        words=_tune(DEEPSEEK, "--set", "cluster.gpus=4", "--set", "baseline="),
        sees=("627 GiB", "--set cluster.gpus=6"),
        code=3,
        recorded=True,
    ),
    Job(name="any-engine", words=_tune(DEEPSEEK, "--set", "engine=any"), sees=("vllm:R16 TP8", "--set engine=any")),
    Job(name="at-a-rate", words=_tune(LLAMA, "--set", "workload.request_rate_per_s=8"), sees=("request", "keeps")),
    Job(
        name="fewest-gpus",
        words=_tune(LLAMA, "--set", "objective.minimize=gpus"),
        sees=("are enough", "by GPUs"),
        recorded=True,
    ),
    Job(
        name="all-figures",
        words=_tune(LLAMA, "-v"),
        sees=("What was left out, and why", "Assumed (the study leaves these open)"),
    ),
    Job(name="all-plans", words=_tune(LLAMA, "--top", "0"), sees=("now",)),
    Job(name="no-baseline", words=_tune(LLAMA, "--set", "baseline="), sees=("First of",)),
    Job(
        name="pools",
        words=_tune(LLAMA, "--set", "search.disaggregated=auto"),
        sees=("P8:TP8 + D8:TP8", "separate pools"),
        recorded=True,
    ),
    Job(
        name="unmeasured-gpu",
        words=_tune(LLAMA, "--set", "cluster.gpu=mi300x", "--set", "engine=any"),
        sees=("Never measured: mi300x",),
    ),
    Job(name="pareto", words=_tune(DEEPSEEK, "--pareto"), sees=("is first as `tune` ranks", "Next"), recorded=True),
    Job(name="json", words=("tune", LLAMA, "--no-storage", "--json", "--top", "1"), sees=('"plans"', '"assumptions"')),
    Job(name="evaluate", words=("evaluate", LLAMA, "--table"), sees=("PASSED", "-v: all of it"), recorded=True),
    Job(name="evaluate-best", words=("evaluate", LLAMA, "--plan", "best", "--table"), sees=("PASSED",)),
    Job(name="evaluate-rank", words=("evaluate", LLAMA, "--plan", "2", "--table"), sees=("Summary",)),
    Job(
        name="evaluate-short-name",
        words=("evaluate", DEEPSEEK, "--plan", "vllm:R16 TP8 ETP8", "--table"),
        sees=("vllm:R16 TP8 ETP8",),
    ),
    Job(
        name="evaluate-all",
        words=("evaluate", LLAMA, "--table", "-v"),
        sees=("Compatibility", "tokens/s through", "Memory"),
    ),
    Job(
        name="compare",
        words=("compare", DEEPSEEK, "--table"),
        sees=("measure both before you switch", "Never measured", "Next"),
        recorded=True,
    ),
    Job(
        name="compare-two",
        words=("compare", LLAMA, "--current", "R4 TP4", "--candidate", "R2 TP8", "--table"),
        sees=("current", "candidate"),
    ),
    Job(name="space", words=("space", LLAMA, "--table"), sees=("35 enumerated, 15 valid",), recorded=True),
    Job(name="catalog", words=("catalog", "--table"), sees=("h200_sxm", "deepseek-ai/DeepSeek-V3")),
    Job(name="model", words=("model", "deepseek-v3", "--table"), sees=("671", "parameters")),
    Job(name="schema", words=("schema",), sees=('"cluster"',)),
    Job(name="graph", words=("dag", LLAMA, "--plan", "TP8", "--table"), sees=("TP",)),
    Job(name="simulate", words=("simulate", LLAMA, "--plan", "best", "--table"), sees=("p95",)),
    Job(name="export", words=("export", LLAMA, "--target", "vllm", "--out", "launch", "--table"), sees=("launch",)),
    Job(
        name="export-production",
        words=("export", LLAMA, "--plan", "now", "--target", "vllm", "--out", "launch", "--table"),
        sees=("launch",),
    ),
    Job(
        name="export-rank",
        words=("export", LLAMA, "--plan", "1", "--target", "k8s", "--out", "launch", "--table"),
        sees=("launch",),
    ),
    Job(name="import", words=("import", "vllm serve meta-llama/Llama-3.1-70B -tp 8"), sees=("TP8",)),
    Job(name="percentile", words=_tune(LLAMA, "--set", "constraints.ttft_p95_ms=2000"), sees=("TTFT p95",)),
    Job(
        name="price",
        words=_tune(LLAMA, "--set", "prices.h100=3", "--set", "objective.minimize=usd_per_million_tokens"),
        sees=("USD",),
    ),
    Job(
        name="range",
        words=_tune(LLAMA, "--set", "objective.minimize=gpus", "--set", "search.gpus={min=4,max=12}"),
        sees=("GPUs",),
    ),
    Job(
        name="explain",
        words=("explain", DEEPSEEK, "--against", "aiconfigurator", "data/aiconfigurator", "--table"),
        sees=("The first plan is the peer's too", "Routed experts in decode", "Next"),
        recorded=True,
    ),
    Job(name="sample", words=("sample", "traffic"), sees=("timestamp,",)),
    Job(
        name="export-top",
        words=("export", LLAMA, "--target", "vllm", "--top", "2", "--out", "launch", "--table"),
        sees=("launch/top1", "launch/top2", "R4 TP4"),
    ),
    Job(name="help", words=("--help",), sees=("autotune init", "tune")),
    Job(name="version", words=("--version",), sees=("autotune, version",)),
    Job(name="study-help", words=("study", "--help"), sees=("export", "delete")),
)

MISTAKES = (
    Mistake(words=("tun", LLAMA), sees=("did you mean 'tune'",)),
    Mistake(words=("tune",), sees=("STUDY", "--model")),
    Mistake(words=("tune", "missing.toml"), sees=("missing.toml",)),
    Mistake(words=("tune", "--model", "deepseek-v3"), sees=("--gpus", "--isl")),
    Mistake(words=("tune", LLAMA, "--gpus", "8"), sees=("--gpus", "--set")),
    Mistake(words=("tune", *QUICK[:-2]), sees=("--osl",)),
    Mistake(words=("tune", "--model", "deepseek-v33", *QUICK[2:]), sees=("deepseek",)),
    Mistake(words=("tune", *QUICK[:4], "--gpu", "h1000", *QUICK[6:]), sees=("h1000",)),
    Mistake(words=("tune", *QUICK, "--engine", "vlm"), sees=("vllm",)),
    Mistake(words=("tune", *QUICK, "--rate", "3", "--concurrency", "8"), sees=("concurrency",)),
    Mistake(words=("tune", *QUICK, "--ttft", "-5"), sees=("--ttft",)),
    Mistake(words=("tune", LLAMA, "--set", "constraints.ttft=5"), sees=("ttft_ms",)),
    Mistake(words=("tune", LLAMA, "--set", "cluster.gpus=0"), sees=("cluster.gpus",)),
    Mistake(words=("tune", LLAMA, "--set", "cluster.gpus=many"), sees=("cluster.gpus",)),
    Mistake(words=("tune", LLAMA, "--set", "model=llama-70c"), sees=("llama",)),
    Mistake(words=("tune", LLAMA, "--set", "cluster.gpu=h1000"), sees=("h1000",)),
    Mistake(words=("tune", LLAMA, "--set", 'cluster.gpu=["h100", "h200"]'), sees=("cluster.also",)),
    Mistake(words=("tune", LLAMA, "--set", "engine=vlm"), sees=("vllm",)),
    Mistake(words=("tune", LLAMA, "--set", "nonsense"), sees=("path.to.field=VALUE",)),
    Mistake(words=("tune", LLAMA, "--set", "baseline.plan=TP3"), sees=("TP3",)),
    Mistake(words=("tune", LLAMA, "--set", "baseline.plan=XX8"), sees=("cannot read",)),
    Mistake(words=("tune", LLAMA, "--set", "search.gpus={min=9,max=3}"), sees=("search.gpus",)),
    Mistake(words=("tune", LLAMA, "--set", "objective.maximize=speed"), sees=("objective.maximize",)),
    Mistake(words=("tune", LLAMA, "--set", "workload.isl=200000"), sees=("max_position_embeddings",)),
    Mistake(words=("tune", LLAMA, "--set", "workload.isl={min=9,max=3}"), sees=("isl",)),
    Mistake(words=("tune", LLAMA, "--set", "constraints.memory_util_frac=90"), sees=("memory_util_frac",)),
    Mistake(words=("tune", LLAMA, "--set", "prices.h1000=3"), sees=("h1000",)),
    Mistake(words=("tune", LLAMA, "--top", "-1"), sees=("--top",)),
    Mistake(words=("tune", LLAMA, "--pareto", "--html", "x.html"), sees=("--html",)),
    Mistake(words=("evaluate", LLAMA, "--plan", "9999"), sees=("must be a rank from 1 to",)),
    Mistake(words=("evaluate", LLAMA, "--plan", "0"), sees=("must be a rank from 1 to",)),
    Mistake(words=("evaluate", LLAMA, "--plan", "TP7"), sees=("TP7",)),
    Mistake(words=("evaluate", LLAMA, "--claims", "none.toml"), sees=("none.toml",)),
    Mistake(words=("evaluate", LLAMA, "--format", "svg"), sees=("--format",)),
    Mistake(words=("evaluate", LLAMA, "--out", "report.pdf"), sees=(".html", "--format")),
    Mistake(words=("compare", LLAMA, "--candidate", "P8 TP8 + D8"), sees=("cannot read",)),
    Mistake(words=("compare", LLAMA, "--traffic", "none.csv"), sees=("none.csv",)),
    Mistake(words=("compare", LLAMA, "--set", "baseline="), sees=("--current",)),
    Mistake(words=("export", LLAMA, "--out", "x"), sees=("--target",)),
    Mistake(words=("export", LLAMA, "--target", "docker", "--out", "x"), sees=("compose",)),
    Mistake(words=("verify", "none.json"), sees=("none.json",)),
    Mistake(words=("study", "show", "none", "--storage", "none.db"), sees=("none",)),
)
