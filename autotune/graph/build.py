"""Nodes and edges of a phase: a program per stage, stamped once per micro-batch and replica."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotune.graph.costs import PhaseCosts
from autotune.graph.program import Groups, Places, ReplicaRanks, StageProgram, TaskTable
from autotune.graph.values import COMMUNICATION, COMPUTE, Built, Edges, Nodes, Task
from costmodel.arch import Arch
from costmodel.engine import EngineTraits
from costmodel.hardware import Cluster
from costmodel.plan.layout import Layout

HOST, LAUNCH_WAIT, SEND = "host", "launch_wait", "pp_send"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """A finished program: its tables, and where other programs are joined to it."""

    rows: NDArray[np.int64]
    pairs: NDArray[np.int64]
    host: Places
    last: Places
    inputs: Places
    sends: Places


def build(  # noqa: PLR0913  # what is drawn, and how much of it
    arch: Arch,
    cluster: Cluster,
    engine: EngineTraits,
    layout: Layout,
    costs: PhaseCosts,
    *,
    phase: str,
    micro_batches: int,
    replicas: int,
    rounds: int = 1,
) -> Built:
    """The graph of `micro_batches` through every stage of `replicas`.

    `rounds` > 1 lets each micro-batch decode as many tokens, one after the other: a token is fed back to the first
    stage, which shows the pace that the pipeline settles into.
    """
    ranks, table, groups = ReplicaRanks.of(layout, engine), TaskTable(), Groups(cluster)
    stages = [_stage(arch, layout, ranks, costs, phase, s, table, groups) for s in range(layout.pp)]
    rows, pairs = _stamp(stages, ranks, micro_batches, rounds)
    size = len(rows)
    offsets = np.arange(replicas)
    columns = np.tile(rows, (replicas, 1))
    replica = np.repeat(offsets, size)
    rank = np.where(columns[:, 3] >= 0, columns[:, 3] + replica * ranks.size, -1)
    group = np.where(columns[:, 4] >= 0, columns[:, 4] + replica * len(groups), -1)
    joined = np.tile(pairs, (replicas, 1))
    shift = np.repeat(offsets * size, len(pairs))
    return Built(
        tasks=table.tasks(),
        groups=groups.groups(replicas, ranks.size),
        ranks=ranks.ranks(replicas, cluster),
        nodes=Nodes(
            task=columns[:, 0].astype(np.int32),
            replica=replica.astype(np.int32),
            stage=columns[:, 5].astype(np.int32),
            micro_batch=columns[:, 6].astype(np.int32),
            layer=columns[:, 1].astype(np.int32),
            position=columns[:, 2].astype(np.int32),
            rank=rank.astype(np.int32),
            group=group.astype(np.int32),
        ),
        edges=Edges(
            source=(joined[:, 0] + shift).astype(np.int32),
            target=(joined[:, 1] + shift).astype(np.int32),
            order=joined[:, 2].astype(bool),
        ),
    )


def _stage(  # noqa: PLR0913  # what all stages share, and which it is
    arch: Arch,
    layout: Layout,
    ranks: ReplicaRanks,
    costs: PhaseCosts,
    phase: str,
    stage: int,
    table: TaskTable,
    groups: Groups,
) -> _Stage:
    # a prompt is the work of one attention-DP rank; the others take part in its experts alone
    attention_dp = np.arange(layout.width) // (layout.attn_tp * layout.attn_cp)
    active = (attention_dp == 0) if phase == "prefill" else np.ones(layout.width, dtype=bool)
    program = StageProgram(stage=stage, ranks=ranks, active=active, tasks=table, groups=groups)
    host = program.run(Task(name=HOST, group=HOST, stream=COMPUTE, seconds=costs.host_s), -1, "all")
    first = sum(layout.stage_layers[:stage])
    kernels_s = 0.0
    for layer in range(first, first + layout.stage_layers[stage]):
        for kind in arch.layer_groups(layer):
            program.run_layer(costs.steps[kind], layer)
            kernels_s += sum(task.seconds for _, task in costs.steps[kind])
    ends = stage == layout.pp - 1
    if ends:
        program.run_layer(costs.steps["head"], -1)
        kernels_s += sum(task.seconds for _, task in costs.steps["head"])
    waits_s = costs.layer_floor_s * layout.stage_layers[stage] - kernels_s - (0.0 if ends else costs.send_s)
    if waits_s > 0.0:
        # kernels are launched one by one: the GPU idles where the host is slower
        program.run(Task(name=LAUNCH_WAIT, group=HOST, stream=COMPUTE, seconds=waits_s), -1, "active", order=True)
    sends = np.full(layout.width, -1)
    if not ends:
        sends = program.send(
            Task(
                name=SEND,
                group=SEND,
                stream=COMMUNICATION,
                collective="send",
                message_bytes=costs.send_bytes,
                seconds=costs.send_s,
            )
        )
    return _Stage(
        rows=np.vstack(program.rows),
        pairs=np.vstack([p for p in program.pairs if p.size] or [np.empty((0, 3), dtype=np.int64)]),
        host=host,
        last=program.last,
        inputs=program.inputs,
        sends=sends,
    )


def _stamp(
    stages: list[_Stage], ranks: ReplicaRanks, micro_batches: int, rounds: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (task, layer, position, rank, group, stage, micro-batch) and edges of one replica, in topological order."""
    handed = [_handed(stages[s], stages[s + 1], ranks) for s in range(len(stages) - 1)]
    rows: list[NDArray[np.int64]] = []
    pairs: list[NDArray[np.int64]] = []
    before = [-1] * len(stages)
    fed_back = [-1] * micro_batches
    offset = 0
    for step, micro_batch in ((r, m) for r in range(rounds) for m in range(micro_batches)):
        previous = -1
        for s, stage in enumerate(stages):
            count = len(stage.rows)
            rows.append(np.column_stack([stage.rows, np.full(count, s), np.full(count, micro_batch)]))
            pairs.append(_shifted(stage.pairs, offset, offset))
            if before[s] >= 0:
                pairs.append(_aligned(stage.last + before[s], stage.host + offset, order=1))
            if previous >= 0:
                pairs.append(_shifted(handed[s - 1], previous, offset))
            elif step > 0:
                pairs.append(_aligned(stages[-1].last + fed_back[micro_batch], stage.host + offset, order=0))
            before[s] = previous = offset
            offset += count
        fed_back[micro_batch] = previous
    return np.vstack(rows), np.vstack(pairs)


def _shifted(pairs: NDArray[np.int64], source: int, target: int) -> NDArray[np.int64]:
    return pairs + np.array([source, target, 0])


def _aligned(source: Places, target: Places, *, order: int) -> NDArray[np.int64]:
    """Edges between nodes of the same index; one node may stand for several ranks."""
    return np.unique(np.column_stack([source, target, np.full(source.size, order)]), axis=0)


def _handed(stage: _Stage, following: _Stage, ranks: ReplicaRanks) -> NDArray[np.int64]:
    """Each TP rank sends its slice; a rank of the next stage reads those of its whole TP group."""
    found = []
    for group in np.unique(ranks.tp_group):
        member = ranks.tp_group == group
        sends, inputs = stage.sends[member], following.inputs[member]
        sends, inputs = sends[sends >= 0], np.unique(inputs[inputs >= 0])
        found.append(np.column_stack([np.repeat(sends, inputs.size), np.tile(inputs, sends.size)]))
    joined = np.vstack(found)
    return np.column_stack([joined, np.zeros(len(joined), dtype=np.int64)])
