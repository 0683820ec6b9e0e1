"""networkx node-link JSON: `networkx.node_link_graph(json.load(file))` reads the same graph back.

A node keeps the `stream` of each of its `ranks` busy for `seconds`; of its `busy_ranks`, where it names them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from autotune.graph.values import Group, PlanGraph, Task


def node_link(graph: PlanGraph) -> Iterator[str]:
    """The document in pieces. Keys of nodes and edges as in `networkx.node_link_data` of networkx 3.4 and later."""
    yield '{"directed": true, "multigraph": false, "graph": '
    yield _json(graph.attributes())
    yield ',\n"nodes": [\n'
    yield from _joined(_nodes(graph))
    yield '\n],\n"edges": [\n'
    yield from _joined(_edges(graph))
    yield "\n]}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _joined(items: Iterator[str]) -> Iterator[str]:
    lead = ""
    for item in items:
        yield lead + item
        lead = ",\n"


def _nodes(graph: PlanGraph) -> Iterator[str]:
    tasks = [_task(t) for t in graph.tasks]
    groups = [_group(g) for g in graph.groups]
    ranks = [_json({"rank": i, "ranks": [i], "host": r.host})[1:-1] for i, r in enumerate(graph.ranks)]
    rows = zip(graph.nodes.rows(), graph.start_s.tolist(), graph.end_s.tolist(), strict=True)
    for i, ((task, replica, stage, micro_batch, layer, rank, group), start, end) in enumerate(rows):
        where = groups[group] if group >= 0 else ranks[rank]
        yield (
            f'{{"id": {i}, {tasks[task]}, "replica": {replica}, "stage": {stage}, "micro_batch": {micro_batch}, '
            f'"layer": {layer if layer >= 0 else "null"}, {where}, "start_s": {start!r}, "end_s": {end!r}}}'
        )


def _task(task: Task) -> str:
    fields = {
        "name": task.name,
        "operator_group": task.group,
        "stream": task.stream,
        "collective": task.collective or None,
        "flops": task.flops,
        "hbm_bytes": task.hbm_bytes,
        "message_bytes": task.message_bytes,
        "seconds": task.seconds,
    }
    return _json(fields)[1:-1]


def _group(group: Group) -> str:
    fields = {"ranks": list(group.ranks), "communicator": group.kind, "crosses_domain": group.crosses}
    if group.busy_ranks != group.ranks:
        fields["busy_ranks"] = list(group.busy_ranks)
    return _json(fields)[1:-1]


def _edges(graph: PlanGraph) -> Iterator[str]:
    e = graph.edges
    kinds = ('"data"', '"order"')
    for source, target, order in zip(e.source.tolist(), e.target.tolist(), e.order.tolist(), strict=True):
        yield f'{{"source": {source}, "target": {target}, "kind": {kinds[order]}}}'
