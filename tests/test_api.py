"""The Python API, as the README shows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import autotune

ROOT = Path(__file__).resolve().parents[1]


def test_a_notebook() -> None:
    """Load, tune, evaluate, compare and draw: typed values all the way."""
    study = autotune.load_study(
        ROOT / "studies" / "qwen3-235b-64xh100.toml", ["cluster.gpus=8", "engine=vllm", "workload.concurrency=64"]
    )
    answer = autotune.tune(study)
    best = answer.ranked[0]
    assert best.feasible
    assert best.metrics["tpot_s"] < 1.0
    report = autotune.evaluate(study, best.plan)
    assert report.passed
    assert answer.baseline is not None
    both = autotune.compare(study, current=best.plan, candidate=answer.ranked[-1].plan)
    assert both.current.plan == best.plan
    assert both.p_better < 0.5
    assert both.verdict.verdict == "keep"
    graph = autotune.plan_graph(study, best.plan, "decode")
    assert graph.num_nodes > 100


def test_import_is_light() -> None:
    """`import autotune` brings neither numpy nor Optuna before something is asked for."""
    code = "import sys, autotune; sys.exit(any(m in sys.modules for m in ('numpy', 'optuna')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(autotune.__all__) <= set(dir(autotune))
