"""A Pareto front as a JSON document and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.report.clusters import table_name
from autotune.report.document import counts_document, finite, plan_document
from autotune.scoring.plan_result import PlanResult
from autotune.tuning.pareto_front import Front

TITLES = {
    "total_tokens_per_s_per_gpu": ("tok/s/GPU", 1.0, ",.0f"),
    "output_tokens_per_s_per_gpu": ("out/s/GPU", 1.0, ",.0f"),
    "total_tokens_per_s": ("tok/s", 1.0, ",.0f"),
    "output_tokens_per_s": ("out/s", 1.0, ",.0f"),
    "requests_per_s": ("req/s", 1.0, ",.2f"),
    "ttft_s": ("TTFT s", 1.0, ".3f"),
    "tpot_s": ("TPOT ms", 1e3, ".2f"),
    "usd_per_million_tokens": ("USD/Mtok", 1.0, ",.4f"),
}
"""Metric -> column, factor to its unit, format."""


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


def print_front(console: Console, front: Front, *, top: int) -> None:
    """Table of points along the front, then counts and assumptions."""
    study = front.study
    goals = ", ".join(f"{name} ({direction})" for name, direction in front.goals)
    console.print(
        f"[bold]{escape(study.name)}[/]: {escape(study.arch.name)} on {study.cluster.gpus} x "
        f"{escape(study.cluster.gpu.name)}, engine {study.engine}; Pareto front of {goals}",
        highlight=False,
    )
    shown = shown_points(front, top)
    if shown:
        console.print(_table(front, shown))
        text = f"{len(shown):,} of {len(front.points):,} points shown, evenly along the front"
        console.print(f"{text if len(shown) < len(front.points) else 'All points of the front are shown'}; "
                      "a plan may stand several times, with other knobs.", highlight=False)  # fmt: skip
    else:
        console.print("[bold red]No plan keeps every constraint[/]: the front is empty.")
        if front.nearest is not None:
            worst = front.nearest.violations[0]
            console.print(
                f"{front.nearest.plan} breaks {worst.code}: {worst.value:,.4g} against {worst.limit:,.4g} "
                f"{worst.unit}; `autotune tune` without --pareto ranks the nearest plans.",
                highlight=False,
            )
    scope = "every valid plan was scored" if front.complete else "sampled: not every plan was scored"
    console.print(
        f"{front.space.enumerated:,} layouts enumerated, {len(front.space.candidates):,} valid, {front.plans_scored:,} "
        f"scored, {front.feasible:,} feasible; {scope} in {front.elapsed_s:.2f} s ({front.scored_now:,} now)",
        highlight=False,
    )
    console.print("[bold]Assumed[/] (the study leaves these open):")
    for line in study.assumptions:
        console.print(f"  - {escape(line)}", highlight=False, soft_wrap=True)
    if front.storage is not None:
        console.print(f"Trials are in {escape(front.storage)}", highlight=False, soft_wrap=True)


def _table(front: Front, shown: Sequence[PlanResult]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    table.add_column("plan", no_wrap=True)
    titles = ["in flight", "chunk", *(TITLES[name][0] for name, _ in front.goals), "P(meets)", "mem"]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    dense = not front.study.arch.is_moe
    dtypes = len(front.study.search.weight_dtype) * len(front.study.search.kv_dtype) > 1
    for plan in shown:
        k, m = plan.knobs, plan.metrics
        stored = f" w:{k.weight_dtype or 'checkpoint'} kv:{k.kv_dtype or 'checkpoint'}" if dtypes else ""
        table.add_row(
            f"{plan.engine}: {table_name(plan, dense=dense)}{stored}",
            f"{k.concurrency:,}",
            f"{k.max_num_batched_tokens:,}",
            *(format(m[name] * TITLES[name][1], TITLES[name][2]) for name, _ in front.goals),
            f"{plan.p_meets:.0%}",
            f"{m['memory_util_frac']:.0%}",
        )
    return table
