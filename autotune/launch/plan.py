"""What a plan means on machines: which process starts on which node, with what, in which order.

An engine turns a `Service` into a `LaunchPlan`; a target (shell scripts, Compose, Kubernetes, Dynamo) turns a
`LaunchPlan` into files. Nothing in it is text of a shell or of YAML: arguments are a list, hosts are references and
configuration files are plain values, so that each target can quote and name them in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autotune.engines import ENGINES, Engine
from autotune.engines.command_line import Arg
from autotune.engines.service import Service
from costmodel.hardware import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One GPU's part in a replica."""

    rank: int
    """Within the replica, in the engine's order."""
    node: int
    """Index into `LaunchPlan.nodes`."""
    gpu: int
    """Index on that node."""
    pp: int
    attn_dp: int
    attn_cp: int
    attn_tp: int
    moe_ep: int
    moe_tp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Where a process is started, if not beside its script: whoever starts it says so."""

    variable: str
    """In which its node finds it."""
    text: str
    """What has to lie there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProcess:
    """One command on one node: what a person would type there."""

    name: str
    """`replica0-node0`: fit for a file name and for a Kubernetes name."""
    replica: int
    node: int
    """Index into `LaunchPlan.nodes`."""
    node_rank: int
    """Place of that node within the replica; 0 is its head."""
    role: str
    """`head` answers HTTP, `worker` does not, `router` spreads requests over the heads."""
    gpus: tuple[int, ...]
    """Indices of its GPUs on the node, in rank order; empty for a router."""
    argv: tuple[Arg, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    http_port: int | None = None
    """Where it answers requests; None for a worker."""
    other_ports: tuple[int, ...] = ()
    """Ports that other servers reach it at."""
    health_path: str | None = None
    """Answers 200 when it is ready; None: as the engine's servers do."""
    folder: Folder | None = None
    """None: that of the scripts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One server, on one or more nodes."""

    index: int
    nodes: tuple[int, ...]
    """Indices into `LaunchPlan.nodes`; the first is its head."""
    processes: tuple[NodeProcess, ...]
    """In the order in which to start them."""
    ranks: tuple[Rank, ...]

    @property
    def head(self) -> NodeProcess:
        """The process on the first node, which answers requests."""
        return self.processes[0]

    @property
    def index_on_node(self) -> int:
        """Its place among the replicas of its first node."""
        return self.head.gpus[0] // len(self.head.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """Every process of a plan."""

    service: Service
    nodes: tuple[str, ...]
    """Names of the host parameters, `NODE_0` and on; what they stand for is given when the plan is started."""
    gpus_per_node: int
    replicas: tuple[Replica, ...]
    router: NodeProcess | None
    """None where a load balancer of the user's own spreads requests over the heads."""
    program_words: int
    """Words of a replica's command that name the program; options and their values follow."""
    files: Mapping[str, Mapping[str, Any]]
    """Configuration files that commands name by `FilePath`: name -> content, which is written as YAML."""
    assumptions: tuple[str, ...]
    """What was chosen that the plan does not say, in plain sentences."""
    hands_over: bool = False
    """Whether servers hand caches to others: those of pools that prefill and decode."""
    node_types: tuple[Cluster, ...] = ()
    """What each node belongs to, where the plan's pools are on GPUs of different types; empty: any node will do."""

    @property
    def engine(self) -> Engine:
        """What is launched."""
        return ENGINES[self.service.engine]

    @property
    def reaches_nodes(self) -> bool:
        """Whether a server exchanges data with another node: its own other nodes, or the other pool."""
        return (self.hands_over and len(self.nodes) > 1) or any(len(r.nodes) > 1 for r in self.replicas)

    @property
    def start_s(self) -> int:
        """Time that a server is given until it answers: the model is fetched and loaded, graphs are captured."""
        return int(self.engine.ready_s + self.service.download_s)

    @property
    def processes(self) -> tuple[NodeProcess, ...]:
        """All of them, in the order in which to start them."""
        own = tuple(p for r in self.replicas for p in r.processes)
        return own if self.router is None else (*own, self.router)
