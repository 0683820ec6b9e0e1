"""A plan as a directed acyclic graph: tables of nodes and edges, with what they stand for.

A node is a task (a kernel, a collective, a send, host work) of one micro-batch; what its tasks cost is said once,
in `PlanGraph.tasks`, and the nodes are columns, so that a hundred thousand of them stay small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.engines import Violation
from costmodel.plan.columns import Floats

Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]

PHASES = ("prefill", "decode")
COLLAPSES = ("layer", "rank")
COMPUTE, COMMUNICATION = "compute", "communication"
SEND = "send"
"""Kind of a group of two, and the collective that its task names."""


class InvalidPlanError(ValueError):
    """The engine cannot be launched with the plan; `violations` holds every rule that it breaks."""

    def __init__(self, plan: str, violations: Sequence[Violation]) -> None:
        self.plan = plan
        self.violations = tuple(violations)
        super().__init__("\n".join(f"{v.rule}: {v.message}" for v in self.violations))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a node does and costs, on one rank (collapsed graphs: on all ranks that a node stands for)."""

    name: str
    group: str
    """Operator group of the cost model (`costmodel.step.operators.GROUPS`), `host`, or `layer` in a collapsed graph."""
    stream: str
    """`compute` or `communication`: the stream of each rank that is busy for `seconds`."""
    collective: str = ""
    """`all_reduce`, `all_gather`, `reduce_scatter`, `all_to_all`, `send`; empty where nothing is exchanged."""
    flops: float = 0.0
    hbm_bytes: float = 0.0
    message_bytes: float = 0.0
    """All-reduce: the tensor; all-gather, reduce-scatter: the whole of the group; all-to-all, send: a rank's own."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Ranks that communicate."""

    kind: str
    """`tp`, `stage` (experts and attention-DP), `send`, or `collapsed`."""
    ranks: tuple[int, ...]
    """Global ranks; of a send, source and destination."""
    crosses: bool
    """Whether its traffic leaves the scale-up domain."""

    @property
    def busy_ranks(self) -> tuple[int, ...]:
        """Ranks whose communication stream is held: links are full duplex, so that a receive holds none."""
        return self.ranks[:1] if self.kind == SEND else self.ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One GPU: its global rank is its place in `PlanGraph.ranks`."""

    replica: int
    stage: int
    index: int
    """Within the stage."""
    host: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """Columns of shape `(num_nodes,)`, in an order in which every node follows those it depends on."""

    task: Ints
    replica: Ints
    stage: Ints
    micro_batch: Ints
    layer: Ints
    """Of the model, from 0; -1 for what belongs to no layer."""
    position: Ints
    """Of the task in its stage's program: the same on all ranks."""
    rank: Ints
    """Global rank; -1 for what joins several."""
    group: Ints
    """Index into `PlanGraph.groups`; -1 for what one rank does by itself."""

    def rows(self) -> Iterator[tuple[int, ...]]:
        """Task, replica, stage, micro-batch, layer, rank and group of each."""
        columns = (self.task, self.replica, self.stage, self.micro_batch, self.layer, self.rank, self.group)
        return zip(*(column.tolist() for column in columns), strict=True)

    def take(self, index: NDArray[np.int64]) -> Nodes:
        """Gather nodes."""
        return Nodes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Columns of shape `(num_edges,)`; `source` comes before `target`."""

    source: Ints
    target: Ints
    order: Bools
    """True where nothing flows: the engine runs one after the other all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A graph before it is scheduled."""

    tasks: tuple[Task, ...]
    groups: tuple[Group, ...]
    ranks: tuple[Rank, ...]
    nodes: Nodes
    edges: Edges


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanGraph(Built):
    """What a plan runs in one phase, scheduled."""

    study: str
    model: str
    engine: str
    plan: str
    phase: str
    collapse: str | None
    micro_batches: int
    """That follow each other through the stages: chunks of a prompt, or parts of the running batch."""
    replicas: int
    """In the graph; replicas are identical and share nothing."""
    start_s: Floats
    """Of the list schedule, shape `(num_nodes,)`."""
    end_s: Floats
    scheduled_step_s: float
    """End of the last node: the graph's own answer."""
    model_step_s: float
    """The cost model's closed form for the same step, filling and draining the pipeline included."""
    model_round_s: float | None
    """Decoding: the cost model's time from one token of a sequence to its next in a pipeline that stays full."""
    violations: tuple[str, ...]
    """Limits of the study that the plan breaks; it can be drawn all the same."""
    assumptions: tuple[str, ...]

    @property
    def num_nodes(self) -> int:
        """Nodes."""
        return int(self.nodes.task.size)

    @property
    def num_edges(self) -> int:
        """Edges."""
        return int(self.edges.source.size)

    @property
    def gap_frac(self) -> float:
        """Scheduled over modelled step, less one."""
        return self.scheduled_step_s / self.model_step_s - 1.0

    def attributes(self) -> dict[str, Any]:
        """What every export says of the graph as a whole."""
        return {
            "study": self.study,
            "model": self.model,
            "engine": self.engine,
            "plan": self.plan,
            "phase": self.phase,
            "collapse": self.collapse,
            "replicas": self.replicas,
            "gpus": len(self.ranks),
            "stages": 1 + max(r.stage for r in self.ranks),
            "micro_batches": self.micro_batches,
            "num_nodes": self.num_nodes,
            "num_edges": self.num_edges,
            "scheduled_step_s": self.scheduled_step_s,
            "model_step_s": self.model_step_s,
            "model_round_s": self.model_round_s,
            "violations": list(self.violations),
            "assumptions": list(self.assumptions),
        }
