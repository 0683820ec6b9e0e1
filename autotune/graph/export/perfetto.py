"""Chrome trace JSON of the schedule, for ui.perfetto.dev: a track per GPU and a track per link.

Trace Event Format: complete events (`X`) with `ts` and `dur` in microseconds, `M` events that name the tracks. The
link of a GPU is its scale-up port, or its NIC for groups that leave the scale-up domain.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from autotune.graph.export.dot import spans
from autotune.graph.values import COMPUTE, PlanGraph

_GPUS, _SCALE_UP, _SCALE_OUT = 1, 2, 3
_PROCESSES = {_GPUS: "GPUs", _SCALE_UP: "scale-up links", _SCALE_OUT: "scale-out links"}


def perfetto(graph: PlanGraph) -> Iterator[str]:
    """The document in pieces."""
    yield '{"displayTimeUnit": "ms", "otherData": '
    yield json.dumps(graph.attributes(), ensure_ascii=False, allow_nan=False)
    yield ',\n"traceEvents": [\n'
    used: dict[tuple[int, int], None] = {}
    lead = ""
    for process, track, event in _slices(graph):
        used.setdefault((process, track))
        yield lead + event
        lead = ",\n"
    for event in _names(graph, used):
        yield lead + event
    yield "\n]}\n"


def _tracks(graph: PlanGraph, group: int, rank: int, replica: int, stage: int) -> tuple[int, ...]:
    """Tracks of a node: its ranks, or its stage in a collapsed view."""
    if graph.collapse is not None:
        return (replica * _stages(graph) + stage,)
    return (rank,) if group < 0 else graph.groups[group].busy_ranks


def _stages(graph: PlanGraph) -> int:
    return 1 + max(r.stage for r in graph.ranks)


def _slices(graph: PlanGraph) -> Iterator[tuple[int, int, str]]:
    names = [json.dumps(t.name, ensure_ascii=False) for t in graph.tasks]
    groups = [json.dumps(t.group) for t in graph.tasks]
    costs = [
        json.dumps({"flops": t.flops, "hbm_bytes": t.hbm_bytes, "message_bytes": t.message_bytes})[1:-1]
        for t in graph.tasks
    ]
    computes = [t.stream == COMPUTE for t in graph.tasks]
    starts, ends = ((seconds * 1e6).round(3).tolist() for seconds in (graph.start_s, graph.end_s))
    for (task, replica, stage, micro_batch, layer, rank, group), start, end in zip(
        graph.nodes.rows(), starts, ends, strict=True
    ):
        process = _GPUS if computes[task] else _SCALE_OUT if graph.groups[group].crosses else _SCALE_UP
        about = (
            f'"name": {names[task]}, "cat": {groups[task]}, "args": {{"micro_batch": {micro_batch}, '
            f'"layer": {layer if layer >= 0 else "null"}, {costs[task]}}}'
        )
        for track in _tracks(graph, group, rank, replica, stage):
            at = f'"pid": {process}, "tid": {track}, "ts": {start}, "dur": {round(end - start, 3)}'
            yield process, track, f'{{"ph": "X", {at}, {about}}}'


def _names(graph: PlanGraph, used: dict[tuple[int, int], None]) -> Iterator[str]:
    for process in sorted({p for p, _ in used}):
        yield json.dumps({"ph": "M", "pid": process, "name": "process_name", "args": {"name": _PROCESSES[process]}})
        yield json.dumps({"ph": "M", "pid": process, "name": "process_sort_index", "args": {"sort_index": process}})
    for process, track in sorted(used):
        at = {"ph": "M", "pid": process, "tid": track}
        yield json.dumps({**at, "name": "thread_name", "args": {"name": _track_name(graph, process, track)}})
        yield json.dumps({**at, "name": "thread_sort_index", "args": {"sort_index": track}})


def _track_name(graph: PlanGraph, process: int, track: int) -> str:
    if graph.collapse is not None:
        replica, stage = divmod(track, _stages(graph))
        members = tuple(i for i, r in enumerate(graph.ranks) if (r.replica, r.stage) == (replica, stage))
        what = {_GPUS: "", _SCALE_UP: " scale-up links", _SCALE_OUT: " scale-out links"}[process]
        return f"replica {replica}, stage {stage} ({spans(members)}){what}"
    rank = graph.ranks[track]
    if process == _GPUS:
        return f"GPU {track} (replica {rank.replica}, stage {rank.stage}, host {rank.host})"
    return f"GPU {track} {'scale-up port' if process == _SCALE_UP else 'NIC'}"
