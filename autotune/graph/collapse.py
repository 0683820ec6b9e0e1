"""Views that a person can read: the ranks of a stage as one, and the operators of a layer as one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autotune.graph.values import Edges, Group, PlanGraph, Task

LAYER = "layer"


def collapsed(graph: PlanGraph, collapse: str) -> PlanGraph:
    """The same schedule with nodes joined; what they cost is summed over what they stand for.

    `rank` keeps a node per task, micro-batch, stage and replica; `layer` one per layer. A node lasts from the first
    start to the last end of its members.
    """
    member = _member(graph, collapse)
    count = int(member.max()) + 1
    order = np.argsort(member, kind="stable")
    first = order[np.searchsorted(member[order], np.arange(count))]
    start, end = np.full(count, np.inf), np.zeros(count)
    np.minimum.at(start, member, graph.start_s)
    np.maximum.at(end, member, graph.end_s)
    groups, group = _groups(graph, member, count)
    tasks, task = _tasks(graph, member, first, end - start, collapse)
    nodes = graph.nodes.take(first)
    return replace(
        graph,
        collapse=collapse,
        tasks=tasks,
        groups=groups,
        nodes=replace(nodes, task=task, rank=np.full(count, -1, dtype=np.int32), group=group),
        edges=_edges(graph, member),
        start_s=start,
        end_s=end,
    )


def _member(graph: PlanGraph, collapse: str) -> NDArray[np.int64]:
    """New number of every node, in the order in which the old ones come."""
    nodes = graph.nodes
    inside = (nodes.layer >= 0) & (collapse == LAYER)
    place = np.where(inside, nodes.layer, nodes.position)
    keys = np.column_stack([nodes.replica, nodes.micro_batch, nodes.stage, inside, place])
    _, first, member = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(first.size, dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(first.size)
    return rank[member.reshape(-1)]


def _edges(graph: PlanGraph, member: NDArray[np.int64]) -> Edges:
    """One edge for all that join the same two nodes; data where any of them is."""
    source, target = member[graph.edges.source], member[graph.edges.target]
    keep = source != target
    table = np.column_stack([source, target, graph.edges.order])[keep]
    table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]
    new = np.ones(len(table), dtype=bool)
    new[1:] = (table[1:, :2] != table[:-1, :2]).any(axis=1)
    table = table[new]
    return Edges(
        source=table[:, 0].astype(np.int32), target=table[:, 1].astype(np.int32), order=table[:, 2].astype(bool)
    )


def _groups(graph: PlanGraph, member: NDArray[np.int64], count: int) -> tuple[tuple[Group, ...], NDArray[np.int32]]:
    """The ranks that each node stands for."""
    ranks: list[set[int]] = [set() for _ in range(count)]
    crosses = [False] * count
    for node, rank, group in zip(member.tolist(), graph.nodes.rank.tolist(), graph.nodes.group.tolist(), strict=True):
        if group >= 0:
            ranks[node].update(graph.groups[group].ranks)
            crosses[node] |= graph.groups[group].crosses
        else:
            ranks[node].add(rank)
    index: dict[Group, int] = {}
    found = [
        index.setdefault(Group(kind="collapsed", ranks=tuple(sorted(r)), crosses=c), len(index))
        for r, c in zip(ranks, crosses, strict=True)
    ]
    return tuple(index), np.array(found, dtype=np.int32)


def _tasks(
    graph: PlanGraph, member: NDArray[np.int64], first: NDArray[np.int64], seconds: NDArray[np.float64], collapse: str
) -> tuple[tuple[Task, ...], NDArray[np.int32]]:
    def total(name: str) -> NDArray[np.float64]:
        each = np.array([getattr(t, name) for t in graph.tasks])
        return np.bincount(member, weights=each[graph.nodes.task], minlength=first.size).astype(np.float64)

    flops, hbm_bytes, message_bytes = total("flops"), total("hbm_bytes"), total("message_bytes")
    index: dict[Task, int] = {}
    found = []
    for node, old in enumerate(first.tolist()):
        task, layer = graph.tasks[graph.nodes.task[old]], int(graph.nodes.layer[old])
        if collapse == LAYER and layer >= 0:
            task = Task(name=f"layer {layer}", group=LAYER, stream=task.stream)
        new = replace(
            task,
            flops=float(flops[node]),
            hbm_bytes=float(hbm_bytes[node]),
            message_bytes=float(message_bytes[node]),
            seconds=float(seconds[node]),
        )
        found.append(index.setdefault(new, len(index)))
    return tuple(index), np.array(found, dtype=np.int32)
