"""A Pareto front in plain characters: what a user gets against what a GPU gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autotune.report.text_blocks import Block, Line
from autotune.scoring.dominance import nondominated
from autotune.scoring.plan_result import PlanResult
from autotune.text.numbers import number

WIDTH, HEIGHT = 62, 15
"""Columns and rows of the plot, which with its scale fits a terminal of 80 columns."""
SCALE = 10
"""Columns of the figures on the left."""
ON_FRONT, BEHIND = "*", "."
TICKS = 3
"""Figures along the lower edge."""


def front_plot(points: Sequence[PlanResult]) -> Block:
    """Output tokens/s per GPU, upwards, against tokens/s per user, to the right; both from zero.

    Points that no other beats in both are `*`; those that stand on the front for another objective alone are `.`.
    """
    users = np.array([1.0 / plan.metrics["tpot_s"] if plan.metrics["tpot_s"] else 0.0 for plan in points])
    rates = np.array([plan.metrics["output_tokens_per_s_per_gpu"] for plan in points])
    best = nondominated(np.stack([users, rates], axis=1))
    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    most_user, most_rate = float(users.max()) or 1.0, float(rates.max()) or 1.0
    columns = np.rint(users / most_user * (WIDTH - 1)).astype(int)
    rows = np.rint((1.0 - rates / most_rate) * (HEIGHT - 1)).astype(int)
    for column, row, first in zip(columns, rows, best, strict=True):
        if first or cells[row][column] == " ":
            cells[row][column] = ON_FRONT if first else BEHIND
    lines = []
    for i, row in enumerate(cells):
        value = most_rate * (1.0 - i / (HEIGHT - 1))
        label = number(value) if i % ((HEIGHT - 1) // 2) == 0 else ""
        lines.append(f"{label:>{SCALE}} |{''.join(row).rstrip()}")
    lines.append(f"{'':>{SCALE}} +{'-' * WIDTH}")
    lines.append(f"{'':>{SCALE}}  {_scale(most_user)}")
    title = "Output tokens/s per GPU (up) against tokens/s per user (right)"
    key = f"{ON_FRONT}: none is better in both; {BEHIND}: on the front for its TTFT or cost."
    return Block(title=title, lines=(*(Line(text=line, whole=True) for line in lines), key))


def _scale(most: float) -> str:
    """Figures below the lower edge: none, half and all."""
    texts = [number(most * i / (TICKS - 1)) for i in range(TICKS)]
    left, middle, right = texts
    gap = WIDTH // 2 - len(middle) // 2
    return f"{left:<{gap}}{middle}".ljust(WIDTH - len(right)) + right
