"""What was drawn: the summary of a plan's graph, for programs and for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autotune.graph import PlanGraph
from autotune.report.document import finite


def dag_document(graph: PlanGraph, form: str, written: Sequence[Path]) -> dict[str, Any]:
    """The graph's attributes, and where it was written."""
    document: dict[str, Any] = finite(graph.attributes())
    document |= {"gap_frac": graph.gap_frac, "seconds_by_group": seconds_by_group(graph)}
    return document | {"format": form, "files": len(written), "out": str(_place(form, written))}


def seconds_by_group(graph: PlanGraph) -> dict[str, float]:
    """Busy seconds of the fullest stage's ranks by operator group, mean over its ranks; waits are not in."""
    totals: dict[int, dict[str, float]] = {}
    widths: dict[int, int] = {}
    for rank in graph.ranks:
        widths[rank.stage] = widths.get(rank.stage, 0) + 1
    nodes = graph.nodes
    for task, stage, group in zip(nodes.task.tolist(), nodes.stage.tolist(), nodes.group.tolist(), strict=True):
        known = graph.tasks[task]
        members = len(graph.groups[group].ranks) if group >= 0 else 1
        share = 1 if known.collective == "send" else members
        of_stage = totals.setdefault(stage, {})
        of_stage[known.group] = of_stage.get(known.group, 0.0) + known.seconds * share / widths[stage]
    return max(totals.values(), key=lambda of_stage: sum(of_stage.values()))


def print_dag(console: Console, graph: PlanGraph, form: str, written: Sequence[Path]) -> None:
    """The summary as a table."""
    table = Table(
        title=escape(f"{graph.study}: {graph.phase} of {graph.plan}"), show_header=False, title_justify="left"
    )
    about = graph.attributes()
    covered = (
        f"{_count(about['gpus'], 'GPU')}: {graph.replicas} of the plan's replicas, {_count(about['stages'], 'stage')}, "
        f"{_count(graph.micro_batches, 'micro-batch', 'micro-batches')}"
    )
    rows = [
        ("graph", f"{graph.num_nodes:,} nodes, {graph.num_edges:,} edges"),
        ("covers", covered),
        ("scheduled step", f"{graph.scheduled_step_s * 1e3:.3f} ms, pipeline filled and drained"),
        ("modelled step", f"{graph.model_step_s * 1e3:.3f} ms (schedule {round(graph.gap_frac, 4) + 0.0:+.2%})"),
    ]
    if graph.model_round_s is not None:
        rows.append(("token to token", f"{graph.model_round_s * 1e3:.3f} ms in a pipeline that stays full (model)"))
    rows.append(("written", f"{form}: {_place(form, written)} ({_count(len(written), 'file')})"))
    for name, text in rows:
        table.add_row(name, escape(text))
    console.print(table)
    for text in graph.violations:
        console.print(f"[yellow]breaks[/] {escape(text)}", soft_wrap=True)
    for text in graph.assumptions:
        console.print(f"[dim]assumed: {escape(text)}[/]", soft_wrap=True)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _place(form: str, written: Sequence[Path]) -> Path:
    return written[0].parent if form == "chakra" else written[0]
