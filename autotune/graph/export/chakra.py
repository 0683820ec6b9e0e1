"""MLCommons Chakra execution traces: one `rank.N.et` per GPU, and the communicator groups.

A trace is a stream of length-delimited messages, one GlobalMetadata and then Nodes, of schema 0.0.4
(github.com/mlcommons/chakra, schema/protobuf/et_def.proto). Attribute names, types and the form of the groups
(`{"1": [ranks]}`, named by `pg_name`) are those that Chakra's feeder and ASTRA-sim read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from autotune.graph.export import wire
from autotune.graph.values import COMPUTE, PlanGraph, Task

SCHEMA_VERSION = "0.0.4"
GROUPS_FILE = "comm_group.json"
COMP_NODE, COMM_SEND_NODE, COMM_RECV_NODE, COMM_COLL_NODE = 4, 5, 6, 7
COLLECTIVES = {"all_reduce": 0, "all_gather": 2, "all_to_all": 6, "reduce_scatter": 7}
_DOUBLE, _INT32, _INT64, _UINT64, _BOOL, _STRING = 3, 7, 9, 13, 27, 29


def chakra(graph: PlanGraph) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file. Raises `ValueError` for a collapsed graph, which has no ranks."""
    if graph.collapse is not None:
        raise ValueError("a trace per rank needs a graph with its ranks, got a collapsed one")
    head = _metadata(graph)
    for rank, body in enumerate(_traces(graph)):
        yield f"rank.{rank}.et", head + bytes(body)
    yield GROUPS_FILE, (json.dumps(comm_groups(graph), indent=1) + "\n").encode()


def comm_groups(graph: PlanGraph) -> dict[str, list[int]]:
    """Communicators by the name that the nodes give; sends name their ranks themselves."""
    return {name: list(graph.groups[g].ranks) for g, name in _group_names(graph).items()}


def _group_names(graph: PlanGraph) -> dict[int, str]:
    joint = [g for g, group in enumerate(graph.groups) if group.kind != "send"]
    return {g: str(i) for i, g in enumerate(joint, start=1)}


def _attribute(name: str, value: bytes) -> bytes:
    return wire.nested(10, wire.text(1, name) + value)


def _metadata(graph: PlanGraph) -> bytes:
    named = {k: v for k, v in graph.attributes().items() if isinstance(v, str | int | float)}
    body = wire.text(1, SCHEMA_VERSION)
    for name, value in named.items():
        held = (
            wire.text(_STRING, value)
            if isinstance(value, str)
            else wire.double(_DOUBLE, value)
            if isinstance(value, float)
            else wire.whole(_INT64, value)
        )
        body += wire.nested(2, wire.text(1, name) + held)
    return wire.delimited(body)


def _traces(graph: PlanGraph) -> list[bytearray]:
    """The nodes of every rank, in an order in which each follows those that it depends on."""
    out = [bytearray() for _ in graph.ranks]
    counts = [0] * len(graph.ranks)
    known: list[dict[int, int]] = [{} for _ in graph.ranks]
    bodies = _Bodies(graph)
    e, n = graph.edges, graph.nodes
    order = np.argsort(e.target, kind="stable")
    sources, ordered = e.source[order].tolist(), e.order[order].tolist()
    first = np.searchsorted(e.target[order], np.arange(graph.num_nodes + 1)).tolist()
    ranks, groups, members = n.rank.tolist(), n.group.tolist(), [g.ranks for g in graph.groups]
    for node in range(graph.num_nodes):
        before = list(range(first[node], first[node + 1]))
        own = members[groups[node]] if groups[node] >= 0 else (ranks[node],)
        for place, rank in enumerate(own):
            mine = known[rank]
            data = [mine[sources[i]] for i in before if not ordered[i] and sources[i] in mine]
            control = [mine[sources[i]] for i in before if ordered[i] and sources[i] in mine]
            counts[rank] += 1
            message = (
                wire.whole(1, counts[rank])
                + bodies.name_and_type(node, place)
                + wire.packed(4, control)
                + wire.packed(5, data)
                + bodies.rest(node)
            )
            out[rank] += wire.delimited(message)
            mine[node] = counts[rank]
    return out


class _Bodies:
    """What the messages of a node share over ranks; what nodes of a task share is encoded once."""

    def __init__(self, graph: PlanGraph) -> None:
        self._graph = graph
        self._names = _group_names(graph)
        self._of_task = [_task_attributes(t) for t in graph.tasks]
        n = graph.nodes
        self._task, self._group, self._layer = n.task.tolist(), n.group.tolist(), n.layer.tolist()
        self._micro_batch = n.micro_batch.tolist()
        self._start = (graph.start_s * 1e6).round().astype(int).tolist()
        self._duration = ((graph.end_s - graph.start_s) * 1e6).round().astype(int).tolist()

    def name_and_type(self, node: int, place: int) -> bytes:
        """`place` is that of the rank in the node's group: of a send, 0 sends and 1 receives."""
        task = self._graph.tasks[self._task[node]]
        layer = f".layer{self._layer[node]}" if self._layer[node] >= 0 else ""
        kind, name = COMP_NODE, task.name
        if task.collective == "send":
            kind, name = ((COMM_SEND_NODE, "pp_send"), (COMM_RECV_NODE, "pp_recv"))[place]
        elif task.stream != COMPUTE:
            kind = COMM_COLL_NODE
        return wire.text(2, f"mb{self._micro_batch[node]}{layer}.{name}") + wire.whole(3, kind)

    def rest(self, node: int) -> bytes:
        """Timing and attributes."""
        task = self._task[node]
        out = wire.whole(6, self._start[node]) + wire.whole(7, self._duration[node]) + self._of_task[task]
        group = self._group[node]
        if group < 0:
            return out
        if group in self._names:
            return out + _attribute("pg_name", wire.text(_STRING, self._names[group]))
        source, target = self._graph.groups[group].ranks
        return (
            out
            + _attribute("comm_src", wire.whole(_INT32, source))
            + _attribute("comm_dst", wire.whole(_INT32, target))
            + _attribute("comm_tag", wire.whole(_INT32, self._micro_batch[node]))
        )


def _task_attributes(task: Task) -> bytes:
    out = _attribute("is_cpu_op", wire.whole(_BOOL, int(task.group == "host")))
    if task.stream == COMPUTE:
        out += _attribute("num_ops", wire.whole(_INT64, round(task.flops)))
        out += _attribute("tensor_size", wire.whole(_UINT64, round(task.hbm_bytes)))
    else:
        out += _attribute("comm_size", wire.whole(_INT64, max(round(task.message_bytes), 1)))
    if task.collective in COLLECTIVES:
        out += _attribute("comm_type", wire.whole(_INT64, COLLECTIVES[task.collective]))
    # durations of the schema are whole microseconds, which a kernel of five does not survive
    return out + _attribute("duration_s", wire.double(_DOUBLE, task.seconds))
