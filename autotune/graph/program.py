"""The program of one stage for one micro-batch: which GPU has which part, the nodes on every rank, and their edges."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autotune.graph.costs import LAYER_INPUT, Step
from autotune.graph.values import Group, Rank, Task
from costmodel.engine import EngineTraits
from costmodel.hardware import Cluster
from costmodel.plan.layout import Layout
from costmodel.plan.placement import stage_ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRanks:
    """The ranks of one replica, whose first has global rank 0; a later replica adds an offset."""

    gpu: NDArray[np.int64]
    """Global rank, shape `(pp, width)`: stage, index within the stage."""
    tp_group: NDArray[np.int64]
    """TP group of each index of a stage, shape `(width,)`."""

    @classmethod
    def of(cls, layout: Layout, engine: EngineTraits) -> ReplicaRanks:
        """The ranks of a layout as the engine orders them."""
        return cls(gpu=stage_ranks(layout, engine), tp_group=np.arange(layout.width) // layout.attn_tp)

    @property
    def size(self) -> int:
        """GPUs of the replica."""
        return int(self.gpu.size)

    def ranks(self, replicas: int, cluster: Cluster) -> tuple[Rank, ...]:
        """Every GPU of so many replicas, by global rank."""
        stages, width = self.gpu.shape
        place = {int(self.gpu[s, i]): (s, i) for s in range(stages) for i in range(width)}
        return tuple(
            Rank(replica=r, stage=place[g][0], index=place[g][1], host=(r * self.size + g) // cluster.gpus_per_node)
            for r in range(replicas)
            for g in range(self.size)
        )


class Groups:
    """The groups of one replica, numbered as they are asked for."""

    def __init__(self, cluster: Cluster) -> None:
        self._domain = cluster.domain_gpus
        self._index: dict[tuple[str, tuple[int, ...]], int] = {}

    def index(self, kind: str, ranks: NDArray[np.int64]) -> int:
        """Number of a group, new or known."""
        key = (kind, tuple(int(r) for r in ranks))
        return self._index.setdefault(key, len(self._index))

    def __len__(self) -> int:
        return len(self._index)

    def groups(self, replicas: int, size: int) -> tuple[Group, ...]:
        """Of so many replicas of `size` GPUs, one replica after the other."""
        return tuple(
            self._group(kind, tuple(g + r * size for g in ranks))
            for r in range(replicas)
            for kind, ranks in self._index
        )

    def _group(self, kind: str, ranks: tuple[int, ...]) -> Group:
        return Group(kind=kind, ranks=ranks, crosses=len({g // self._domain for g in ranks}) > 1)


Places = NDArray[np.int64]
"""Node of each index of a stage, shape `(width,)`; -1 where that rank has none."""


class TaskTable:
    """Tasks, each once."""

    def __init__(self) -> None:
        self._index: dict[Task, int] = {}

    def index(self, task: Task) -> int:
        """Number of a task, new or known."""
        return self._index.setdefault(task, len(self._index))

    def tasks(self) -> tuple[Task, ...]:
        """All of them, by number."""
        return tuple(self._index)


@dataclass(slots=True, kw_only=True)
class StageProgram:
    """Grows task by task; node numbers start at 0 for each stage and micro-batch."""

    stage: int
    ranks: ReplicaRanks
    active: NDArray[np.bool_]
    """Which indices have tokens of the micro-batch, shape `(width,)`."""
    tasks: TaskTable
    groups: Groups
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    """Columns task, layer, position, rank, group: one table per task."""
    pairs: list[NDArray[np.int64]] = field(default_factory=list)
    """Columns source, target, order."""
    inputs: Places = field(init=False)
    """First node of each rank that reads what the stage before hands over."""
    last: Places = field(init=False)
    """Last node of each rank so far."""
    size: int = 0
    _positions: int = 0

    def __post_init__(self) -> None:
        self.last = np.full(self.active.size, -1)
        self.inputs = np.full(self.active.size, -1)

    def add(self, task: Task, layer: int, scope: str) -> Places:
        """Nodes of one task on the ranks of `scope` (see `Step`); no edges yet."""
        width = self.active.size
        gpu = self.ranks.gpu[self.stage]
        places = np.full(width, -1)
        if scope in ("active", "all"):
            where = np.flatnonzero(self.active) if scope == "active" else np.arange(width)
            places[where] = self.size + np.arange(where.size)
            rank, group = gpu[where], np.full(where.size, -1)
        else:
            tp = self.ranks.tp_group
            member = np.flatnonzero(self.active) if scope == "tp" else np.arange(width)
            names, places_of = np.unique(tp[member] if scope == "tp" else np.zeros(width, int), return_inverse=True)
            places[member] = self.size + places_of
            group = np.array(
                [
                    self.groups.index(scope, gpu[np.flatnonzero(tp == g)] if scope == "tp" else np.sort(gpu))
                    for g in names
                ]
            )
            rank = np.full(group.size, -1)
        self._append(task, layer, rank, group)
        return places

    def send(self, task: Task) -> Places:
        """A send from each rank with tokens to the rank of the same index on the next stage."""
        where = np.flatnonzero(self.active)
        gpu = self.ranks.gpu
        group = np.array([self.groups.index("send", gpu[self.stage : self.stage + 2, i]) for i in where])
        places = np.full(self.active.size, -1)
        places[where] = self.size + np.arange(where.size)
        self._append(task, -1, np.full(where.size, -1), group)
        self.link(self.last, places)
        self.last = np.where(places >= 0, places, self.last)
        return places

    def _append(self, task: Task, layer: int, rank: NDArray[np.int64], group: NDArray[np.int64]) -> None:
        about = np.tile([self.tasks.index(task), layer, self._positions], (rank.size, 1))
        self.rows.append(np.column_stack([about, rank, group]))
        self.size += rank.size
        self._positions += 1

    def link(self, source: Places, target: Places, *, order: bool = False) -> None:
        """Edges between the nodes that each rank has in both."""
        both = (source >= 0) & (target >= 0)
        before, after = source[both], target[both]
        if not (_rising(before) or _rising(after)):
            # ranks share nodes on both sides: the edges between two collectives
            keys = np.unique(before * (self.size + 1) + after)
            before, after = keys // (self.size + 1), keys % (self.size + 1)
        table = np.empty((before.size, 3), dtype=np.int64)
        table[:, 0], table[:, 1], table[:, 2] = before, after, order
        self.pairs.append(table)

    def run(self, task: Task, layer: int, scope: str, *, order: bool = False) -> Places:
        """Add a task after whatever each of its ranks did last."""
        before = self.last.copy()
        places = self.add(task, layer, scope)
        self.link(before, places, order=order)
        self.last = np.where(places >= 0, places, self.last)
        return places

    def run_layer(self, steps: tuple[tuple[Step, Task], ...], layer: int) -> None:
        """Add the operators of a layer (its attention, or what follows it) after the one before."""
        before = self.last.copy()
        done: dict[str, Places] = {LAYER_INPUT: before}
        for step, task in steps:
            places = self.add(task, layer, step.scope)
            fed = np.zeros(places.size, dtype=bool)
            for name in step.after:
                if name in done:
                    self.link(done[name], places)
                    fed |= done[name] >= 0
            for name in step.order_after:
                if name in done:
                    self.link(done[name], places, order=True)
            # a rank without tokens of its own joins after whatever it did before
            self.link(np.where(fed, -1, before), places, order=True)
            first = (self.inputs < 0) & (places >= 0) & self.active
            self.inputs = np.where(first, places, self.inputs)
            done[step.name] = places
            self.last = np.where(places >= 0, places, self.last)


def _rising(places: Places) -> bool:
    """Whether no two of them are the same, as they are numbered in the order of the ranks."""
    return bool((places[1:] > places[:-1]).all())
