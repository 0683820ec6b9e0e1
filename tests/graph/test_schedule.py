"""The list schedule by hand, and what must hold of any schedule."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from autotune.graph import PlanGraph, plan_graph
from autotune.graph.drawing import list_schedule
from autotune.graph.values import COMMUNICATION, COMPUTE, Edges, Group, Nodes, Task
from tests.graph.plans import DEEPSEEK, REFERENCE, random_plans, study


def _task(name: str, seconds: float, stream: str = COMPUTE) -> Task:
    return Task(name=name, group="experts", stream=stream, seconds=seconds)


def _nodes(*rows: tuple[int, int, int]) -> Nodes:
    """Columns of (task, rank, group)."""
    table = np.array(rows, dtype=np.int32)
    zero = np.zeros(len(rows), dtype=np.int32)
    return Nodes(
        task=table[:, 0],
        replica=zero,
        stage=zero,
        micro_batch=zero,
        layer=zero,
        position=zero,
        rank=table[:, 1],
        group=table[:, 2],
    )


def _edges(*pairs: tuple[int, int]) -> Edges:
    table = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    return Edges(source=table[:, 0], target=table[:, 1], order=np.zeros(len(pairs), dtype=bool))


PAIR = (Group(kind="tp", ranks=(0, 1), crosses=False),)


def test_collective_waits_for_the_last_rank() -> None:
    """Ranks of 2 and 3 s, an all-reduce of 5 s, then 7 s on each: 3 + 5 + 7."""
    tasks = (_task("a", 2.0), _task("b", 3.0), _task("reduce", 5.0, COMMUNICATION), _task("c", 7.0))
    nodes = _nodes((0, 0, -1), (1, 1, -1), (2, -1, 0), (3, 0, -1), (3, 1, -1))
    start, end = list_schedule(tasks, PAIR, nodes, _edges((0, 2), (1, 2), (2, 3), (2, 4)), 2)
    assert start.tolist() == [0.0, 0.0, 3.0, 8.0, 8.0]
    assert end.tolist() == [2.0, 3.0, 8.0, 15.0, 15.0]


def test_streams_overlap_and_queue() -> None:
    """A rank computes while it communicates, but does one of each at a time: 11 s of kernels hide 3 + 3 s."""
    tasks = (_task("kernel", 11.0), _task("reduce", 3.0, COMMUNICATION))
    start, end = list_schedule(tasks, PAIR, _nodes((0, 0, -1), (1, -1, 0), (1, -1, 0), (0, 0, -1)), _edges(), 2)
    assert start.tolist() == [0.0, 0.0, 3.0, 11.0]
    assert end.max() == 22.0


def test_two_micro_batches_through_two_stages() -> None:
    """Stages of 2 and 5 s, sends of 1 s that wait for no kernel: the second of two micro-batches ends at 2+1+5+5."""
    tasks = (_task("first", 2.0), _task("send", 1.0, COMMUNICATION), _task("second", 5.0))
    nodes = _nodes((0, 0, -1), (1, -1, 0), (2, 1, -1), (0, 0, -1), (1, -1, 0), (2, 1, -1))
    groups = (Group(kind="send", ranks=(0, 1), crosses=False),)
    start, end = list_schedule(tasks, groups, nodes, _edges((0, 1), (1, 2), (0, 3), (3, 4), (4, 5), (2, 5)), 2)
    assert start.tolist() == [0.0, 2.0, 3.0, 2.0, 4.0, 8.0]
    assert end.max() == 13.0


def test_receiving_holds_no_stream() -> None:
    """Two sends of 3 s, there and back between two ranks, cross each other; two the same way queue."""
    tasks = (_task("send", 3.0, COMMUNICATION),)
    groups = (Group(kind="send", ranks=(0, 1), crosses=False), Group(kind="send", ranks=(1, 0), crosses=False))
    _, crossing = list_schedule(tasks, groups, _nodes((0, -1, 0), (0, -1, 1)), _edges(), 2)
    _, queueing = list_schedule(tasks, groups, _nodes((0, -1, 0), (0, -1, 0)), _edges(), 2)
    assert (crossing.max(), queueing.max()) == (3.0, 6.0)


def _graphs() -> list[PlanGraph]:
    drawn = [plan_graph(asked, plan, phase) for asked, plan, phase in random_plans(seed=7, count=12)]
    return [*drawn, plan_graph(study(DEEPSEEK)), plan_graph(study(REFERENCE), phase="prefill", replicas=2)]


def test_nothing_starts_before_what_it_needs() -> None:
    """Every node starts when all that it depends on is over, and takes as long as its task."""
    for graph in _graphs():
        assert (graph.start_s[graph.edges.target] >= graph.end_s[graph.edges.source]).all()
        seconds = np.array([t.seconds for t in graph.tasks])[graph.nodes.task]
        assert graph.end_s - graph.start_s == pytest.approx(seconds, abs=1e-12)
        assert (graph.edges.source < graph.edges.target).all(), "the order of the nodes is topological"


def test_a_stream_does_one_thing_at_a_time() -> None:
    """On no rank do two kernels overlap, nor two communications."""
    for graph in _graphs():
        busy: dict[tuple[str, int], list[tuple[float, float]]] = {}
        rows = zip(graph.nodes.task, graph.nodes.rank, graph.nodes.group, graph.start_s, graph.end_s, strict=True)
        for task, rank, group, start, end in rows:
            ranks = graph.groups[group].ranks if group >= 0 else (int(rank),)
            for member in ranks[:1] if graph.tasks[task].name == "pp_send" else ranks:
                busy.setdefault((graph.tasks[task].stream, member), []).append((float(start), float(end)))
        for spans in busy.values():
            spans.sort()
            assert all(a[1] <= b[0] for a, b in pairwise(spans))
        longest = max(sum(e - s for s, e in spans) for spans in busy.values())
        assert graph.scheduled_step_s >= longest * (1 - 1e-12)


def test_deterministic() -> None:
    """The same plan twice gives the same graph to the last bit."""
    first, second = (plan_graph(study(REFERENCE), phase="prefill") for _ in range(2))
    assert (first.start_s == second.start_s).all()
    assert (first.edges.source == second.edges.source).all()
    assert first.tasks == second.tasks
