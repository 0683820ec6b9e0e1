"""The Python API, as the README shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import autotune

ROOT = Path(__file__).resolve().parents[1]


def test_a_notebook() -> None:
    """Load, tune, evaluate, compare and draw: typed values all the way."""
    study = autotune.load_study(ROOT / "studies" / "llama-70b-16xh100.toml", ["cluster.gpus=8", "workload.isl=512"])
    answer = autotune.tune(study)
    best = answer.ranked[0]
    assert best.feasible
    assert best.metrics["tpot_s"] < 1.0
    report = autotune.evaluate(study, best.plan)
    assert report.passed
    both = autotune.compare(study, current="TP8", candidate=best.plan)
    assert both.verdict.verdict in {"switch", "keep", "undecided"}
    graph = autotune.plan_graph(study, best.plan, "decode")
    assert graph.num_nodes > 100


def test_the_readme_shows_it(tmp_path: Path) -> None:
    """The README's Python examples run as they stand, after the command whose storage one of them goes on with."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    assert len(blocks) >= 2
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    (before,) = [line for line in text.splitlines() if line.endswith(" --storage sqlite:///plans.db")][:1]
    python = [sys.executable, "-m", "autotune", *before.split()[1:], "--json"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(python, cwd=tmp_path, env=env, capture_output=True, check=True)
    for block in blocks:
        script = tmp_path / "example.py"
        script.write_text(block, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(script)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_import_is_light() -> None:
    """`import autotune` brings neither numpy nor Optuna before something is asked for."""
    code = "import sys, autotune; sys.exit(any(m in sys.modules for m in ('numpy', 'optuna')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(autotune.__all__) <= set(dir(autotune))
