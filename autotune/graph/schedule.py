"""A list schedule: every rank has one compute and one communication stream, and a node runs as soon as it can."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import numpy as np

from autotune.graph.values import COMPUTE, Edges, Group, Nodes, Task
from costmodel.plan.columns import Floats


def list_schedule(
    tasks: tuple[Task, ...], groups: tuple[Group, ...], nodes: Nodes, edges: Edges, num_ranks: int
) -> tuple[Floats, Floats]:
    """Start and end of every node, shape `(num_nodes,)`, seconds.

    Nodes are taken in the order in which they become ready, ties by their number: deterministic. A collective starts
    when the communication streams of all its ranks are free, and holds them all; a send holds its source's, since the
    rates of links are per direction.
    """
    count = nodes.task.size
    seconds = np.array([t.seconds for t in tasks])[nodes.task].tolist()
    streams = _streams(tasks, groups, nodes, num_ranks)
    order = np.argsort(edges.source, kind="stable")
    targets = edges.target[order].tolist()
    first = np.searchsorted(edges.source[order], np.arange(count + 1)).tolist()
    waits = np.bincount(edges.target, minlength=count).tolist()
    ready = [0.0] * count
    free = [0.0] * (2 * num_ranks)
    start, end = [0.0] * count, [0.0] * count
    queue = [(0.0, n) for n in range(count) if not waits[n]]
    heapify(queue)
    while queue:
        now, node = heappop(queue)
        own = streams[node]
        for stream in own:
            if free[stream] > now:
                now = free[stream]
        done = now + seconds[node]
        for stream in own:
            free[stream] = done
        start[node], end[node] = now, done
        for target in targets[first[node] : first[node + 1]]:
            if done > ready[target]:
                ready[target] = done
            waits[target] -= 1
            if not waits[target]:
                heappush(queue, (ready[target], target))
    return np.array(start), np.array(end)


def _streams(tasks: tuple[Task, ...], groups: tuple[Group, ...], nodes: Nodes, num_ranks: int) -> list[tuple[int, ...]]:
    """Streams that each node holds: a rank's own number is its compute stream, `num_ranks` more the other."""
    own = [(r,) for r in range(2 * num_ranks)]
    shared = [tuple(num_ranks + r for r in g.busy_ranks) for g in groups]
    computes = [t.stream == COMPUTE for t in tasks]
    return [
        shared[g] if g >= 0 else own[r if computes[t] else num_ranks + r]
        for t, r, g in zip(nodes.task.tolist(), nodes.rank.tolist(), nodes.group.tolist(), strict=True)
    ]
