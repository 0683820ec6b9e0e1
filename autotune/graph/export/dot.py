"""Graphviz: a box per node, a cluster per pipeline stage, dashes where nothing but order joins two nodes."""

from __future__ import annotations

from collections.abc import Iterator

from autotune.graph.values import COMMUNICATION, PlanGraph

_COLORS = {"host": "#d9d9d9", "layer": "#cfe2f3"}
_COMPUTE_COLOR, _COMMUNICATION_COLOR = "#cfe2f3", "#fce5cd"


def dot(graph: PlanGraph) -> Iterator[str]:
    """The document in pieces."""
    title = (
        f"{graph.study}: {graph.plan}, {graph.phase}, {graph.micro_batches} micro-batches, "
        f"{graph.scheduled_step_s * 1e3:.3f} ms scheduled, {graph.model_step_s * 1e3:.3f} ms modelled"
    )
    yield "digraph plan {\n"
    yield f"  label={quoted(title)}; labelloc=t; rankdir=LR; fontname=Helvetica;\n"
    yield "  node [shape=box, style=filled, fontname=Helvetica, fontsize=10]; edge [arrowsize=0.6];\n"
    nodes = graph.nodes
    by_stage: dict[tuple[int, int], list[int]] = {}
    for i, key in enumerate(zip(nodes.replica.tolist(), nodes.stage.tolist(), strict=True)):
        by_stage.setdefault(key, []).append(i)
    for (replica, stage), members in by_stage.items():
        yield f"  subgraph cluster_{replica}_{stage} {{ label={quoted(f'replica {replica}, stage {stage}')};\n"
        for i in members:
            yield _node(graph, i)
        yield "  }\n"
    e = graph.edges
    for source, target, order in zip(e.source.tolist(), e.target.tolist(), e.order.tolist(), strict=True):
        yield f"  n{source} -> n{target}{' [style=dashed]' if order else ''};\n"
    yield "}\n"


def _node(graph: PlanGraph, i: int) -> str:
    task = graph.tasks[graph.nodes.task[i]]
    layer, rank, group = int(graph.nodes.layer[i]), int(graph.nodes.rank[i]), int(graph.nodes.group[i])
    ranks = (rank,) if group < 0 else graph.groups[group].ranks
    name = task.name if layer < 0 or task.name == f"layer {layer}" else f"layer {layer} {task.name}"
    label = f"micro-batch {graph.nodes.micro_batch[i]}\n{name}\n{spans(ranks)}\n{task.seconds * 1e6:.1f} µs"
    color = _COMMUNICATION_COLOR if task.stream == COMMUNICATION else _COLORS.get(task.group, _COMPUTE_COLOR)
    return f'    n{i} [label={quoted(label)}, fillcolor="{color}"];\n'


def spans(ranks: tuple[int, ...]) -> str:
    """Ranks as text, runs of neighbours joined."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs[:4])
    return f"GPU {text}" + (f" and {len(runs) - 4} more runs" if len(runs) > 4 else "")


def quoted(text: str) -> str:
    """A double-quoted Graphviz string: names come from study files, so nothing in them may end or escape it."""
    clean = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
