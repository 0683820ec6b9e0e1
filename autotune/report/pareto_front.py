"""A Pareto front as a JSON document and as a report, with a plot in plain characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autotune.metrics import METRICS
from autotune.report.answer import assumed_block, space_line
from autotune.report.document import counts_document, finite, plan_document
from autotune.report.study_words import command, study_headline
from autotune.report.text_blocks import Block, Line, Report, text_table
from autotune.report.vocabulary.plan_names import has_local_prefill, local_prefill_words
from autotune.report.vocabulary.titles import broken
from autotune.report.vocabulary.words import percent
from autotune.scoring.dominance import nondominated
from autotune.scoring.plan_name import full_name
from autotune.scoring.plan_order import order
from autotune.scoring.plan_result import PlanResult
from autotune.text.numbers import number, probability, within
from autotune.tuning.pareto_front import Front


def shown_points(front: Front, top: int) -> list[PlanResult]:
    """`top` points evenly along the front, its ends among them; 0: all."""
    points = list(front.points)
    if top == 0 or len(points) <= top:
        return points
    if top == 1:
        return points[:1]
    return [points[round(i * (len(points) - 1) / (top - 1))] for i in range(top)]


def front_document(front: Front, *, top: int) -> dict[str, Any]:
    """The front; `top` points of it, 0 for all."""
    counts = counts_document(front.space, feasible=front.feasible, infeasible={})
    return finite(
        {
            "study": front.study.name,
            "complete": front.complete,
            "objectives": [{"metric": name, "direction": direction} for name, direction in front.goals],
            "counts": {k: counts[k] for k in ("enumerated", "valid", "feasible", "rejected")}
            | {"scored": front.plans_scored, "front": len(front.points)},
            "assumptions": list(front.study.assumptions),
            "plans": [plan_document(p, rank=None, baseline=None) for p in shown_points(front, top)],
            "scored_now": front.scored_now,
            "storage": front.storage,
        }
    )


def front_report(front: Front, *, top: int) -> Report:
    """Points along the front, then counts and assumptions."""
    goals = ", ".join(f"{within(METRICS[name].label)} ({direction})" for name, direction in front.goals)
    scored = f"{front.plans_scored:,} scored, {front.feasible:,} feasible"
    counts = space_line(front.space, scored, complete=front.complete, elapsed_s=front.elapsed_s)
    left = [f"{counts} ({front.scored_now:,} now)"]
    left += [] if front.storage is None else [f"Trials are in {front.storage}"]
    return Report(
        headline=study_headline(front.study, f"Pareto front of {goals}"),
        reason="" if front.points else "No plan keeps every limit: the front is empty.",
        tone="bad",
        blocks=(
            *([replace(front_plot(front.points), key="plot")] if front.points else []),
            _points(front, shown_points(front, top)),
            *([_next(front)] if front.points else []),
            Block(title="What was looked at", lines=tuple(left)),
            assumed_block(front.study.assumptions),
        ),
    )


BRIEF = ("plot", "points", "next")
"""Blocks that a terminal shows without --verbose."""


def first_point(front: Front) -> PlanResult:
    """The point that a ranking by the study's objective would put first."""
    return min(front.points, key=lambda plan: (order(front.study, plan), plan.plan))


def _next(front: Front) -> Block:
    """The commands that follow."""
    steps = (
        command(front.study, "evaluate", "--plan", full_name(front.study, first_point(front))),
        command(front.study, "tune"),
    )
    return Block(key="next", title="Next", lines=steps, tight=True)


def _points(front: Front, shown: Sequence[PlanResult]) -> Block:
    if not shown:
        near = front.nearest
        lines = [] if near is None else [f"{near.plan}: {broken(near.violations[0])}"]
        return Block(title="The nearest", lines=(*lines, "`autotune tune` without --pareto ranks the nearest plans"))
    header = [
        "plan",
        "in flight",
        "chunk",
        *(["local prefill"] if has_local_prefill(front.points) else []),
        *(METRICS[name].heading for name, _ in front.goals),
        "keeps limits",
        "memory",
    ]
    which = "All points of the front are shown"
    if len(shown) < len(front.points):
        which = f"{len(shown):,} of {len(front.points):,} points shown, evenly along the front"
    first = first_point(front)
    named, flight = full_name(front.study, first), f"{first.knobs.concurrency:,} in flight"
    ranked = f"Of the front, {named} with {flight} is first as `tune` ranks."
    return Block(
        key="points",
        title="Pareto front",
        table=text_table(header, [_cells(front, plan) for plan in shown]),
        lines=(f"{which}; a plan may stand several times, with other knobs.", ranked),
    )


def _cells(front: Front, plan: PlanResult) -> tuple[str, ...]:
    k, m, search = plan.knobs, plan.metrics, front.study.search
    stored = ""
    if len(search.weight_dtype) * len(search.kv_dtype) > 1:
        stored = f" w:{k.weight_dtype or 'checkpoint'} kv:{k.kv_dtype or 'checkpoint'}"
    return (
        full_name(front.study, plan) + stored,
        f"{k.concurrency:,}",
        f"{k.max_num_batched_tokens:,}",
        *([local_prefill_words(plan)] if has_local_prefill(front.points) else []),
        *(METRICS[name].text(m[name]) for name, _ in front.goals),
        probability(plan.p_meets),
        percent(m["memory_util_frac"]),
    )


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
