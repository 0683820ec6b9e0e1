"""What was drawn: the summary of a plan's graph, for programs and for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune.graph import PlanGraph
from autotune.report.document import finite
from autotune.report.text_blocks import Block, Line, Report, text_table
from autotune.report.vocabulary.words import count


def dag_document(graph: PlanGraph, form: str, written: Sequence[Path]) -> dict[str, Any]:
    """The graph's attributes, and where it was written."""
    document: dict[str, Any] = finite(graph.attributes())
    document |= {"gap_frac": graph.gap_frac, "seconds_by_group": seconds_by_group(graph)}
    place = written[0].parent if form == "chakra" else written[0]
    return document | {"format": form, "files": len(written), "out": str(place)}


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


def dag_report(document: Mapping[str, Any]) -> Report:
    """The summary, for people."""
    d = document
    covered = f"{count(d['gpus'], 'GPU')}: {d['replicas']} of the plan's replicas, {count(d['stages'], 'stage')}"
    schedule = f"schedule {round(d['gap_frac'], 4) + 0.0:+.2%}"
    rows = [
        ("graph", f"{d['num_nodes']:,} nodes, {d['num_edges']:,} edges"),
        ("covers", f"{covered}, {count(d['micro_batches'], 'micro-batch', 'micro-batches')}"),
        ("scheduled step", f"{d['scheduled_step_s'] * 1e3:.3f} ms, pipeline filled and drained"),
        ("modelled step", f"{d['model_step_s'] * 1e3:.3f} ms ({schedule})"),
    ]
    if d["model_round_s"] is not None:
        rows.append(("token to token", f"{d['model_round_s'] * 1e3:.3f} ms in a pipeline that stays full (model)"))
    rows.append(("written", f"{d['format']}: {d['out']} ({count(d['files'], 'file')})"))
    return Report(
        headline=f"{d['study']}: {d['phase']} of {d['plan']}",
        blocks=(
            Block(
                title="What was drawn",
                table=text_table(("", ""), rows, texts=(0, 1)),
                lines=tuple(Line(text=f"breaks {text}", tone="open") for text in d["violations"]),
            ),
            Block(title="Assumed", lines=tuple(d["assumptions"])),
        ),
    )
