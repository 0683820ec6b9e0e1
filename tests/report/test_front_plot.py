"""The Pareto front drawn with plain characters."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from autotune.report.pareto_front import BEHIND, HEIGHT, ON_FRONT, WIDTH, front_plot
from autotune.traffic.load import load_study
from autotune.tuning.pareto_front import pareto

STUDY = Path(__file__).parents[2] / "studies" / "deepseek-v3-128xh200.toml"


def test_the_front_falls_from_left_to_right() -> None:
    """Points that none beats in both stand lower the farther right they are; the most of each touches its edge."""
    front = pareto(load_study(STUDY, ("cluster.gpus=32", "baseline=")))
    lines = [getattr(line, "text", line) for line in front_plot(front.points).lines]
    rows = [line.partition("|")[2] for line in lines[:HEIGHT]]
    marks = [(column, row) for row, text in enumerate(rows) for column, mark in enumerate(text) if mark == ON_FRONT]
    marks.sort()
    assert all(first[1] <= second[1] for first, second in pairwise(marks))
    assert ON_FRONT in rows[0]
    assert any(len(row) == WIDTH for row in rows)
    assert any(BEHIND in row for row in rows)
    assert max(map(len, lines)) <= 78
