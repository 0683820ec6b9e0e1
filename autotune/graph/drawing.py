"""What is asked of a graph, and a built graph scheduled: the same for replicas and for pools.

A list schedule: every rank has one compute and one communication stream, and a node runs as soon as it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from heapq import heapify, heappop, heappush

import numpy as np

from autotune.graph.collapse import collapsed
from autotune.graph.values import COLLAPSES, COMPUTE, Built, Edges, Group, Nodes, PlanGraph, Task
from autotune.scoring.plan_result import PlanResult
from autotune.study import Study
from costmodel.errors import InputError, Problem
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


MOST_NODES = 1_500_000
"""A graph beyond this is refused: with all its exports it takes about 1 GB and half a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What is to be drawn of a plan; fields as the arguments of `plan_graph`."""

    phase: str
    replicas: int
    collapse: str | None
    micro_batches: int | None

    def check(self, phases: Sequence[str], most_replicas: int) -> None:
        """Raise `InputError` with every field that is malformed."""
        problems = []
        if self.phase not in phases:
            problems.append(Problem(path="phase", message=f"must be one of {', '.join(phases)}, got {self.phase!r}"))
        if self.collapse not in (None, *COLLAPSES):
            message = f"must be one of {', '.join(COLLAPSES)}, got {self.collapse!r}"
            problems.append(Problem(path="collapse", message=message))
        if not 1 <= self.replicas <= most_replicas:
            message = f"must be from 1 to the plan's {most_replicas}, got {self.replicas}"
            problems.append(Problem(path="replicas", message=message))
        if self.micro_batches is not None and self.micro_batches < 1:
            problems.append(Problem(path="micro_batches", message=f"must be at least 1, got {self.micro_batches}"))
        if problems:
            raise InputError(problems)


def scheduled(
    study: Study,
    plan: PlanResult,
    built: Built,
    drawing: Drawing,
    *,
    model_s: tuple[float, float | None],
    assumptions: Sequence[str],
) -> PlanGraph:
    """The graph of a plan with every node at its time, collapsed as asked.

    `model_s`: the cost model's seconds of the step, and of a round (`PlanGraph.model_round_s`).
    """
    start, end = list_schedule(built.tasks, built.groups, built.nodes, built.edges, len(built.ranks))
    graph = PlanGraph(
        study=study.name,
        model=study.arch.name,
        engine=plan.engine,
        plan=plan.plan,
        phase=drawing.phase,
        collapse=None,
        micro_batches=drawing.micro_batches or 1,
        replicas=drawing.replicas,
        **{field.name: getattr(built, field.name) for field in fields(Built)},
        start_s=start,
        end_s=end,
        scheduled_step_s=float(end.max()),
        model_step_s=model_s[0],
        model_round_s=model_s[1],
        violations=tuple(
            f"{v.code}: {v.value:.6g} against a limit of {v.limit:.6g} {v.unit}".rstrip() for v in plan.violations
        ),
        assumptions=(*study.assumptions, *assumptions),
    )
    return graph if drawing.collapse is None else collapsed(graph, drawing.collapse)
