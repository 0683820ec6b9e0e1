"""What a plan means on machines: which process starts on which node, with what, in which order.

An engine's module (`vllm`, `sglang`, `trtllm`) turns a `Service` into a `LaunchPlan`; a target (shell scripts,
Compose, Kubernetes, Dynamo) turns a `LaunchPlan` into files. Nothing in it is text of a shell or of YAML: arguments are
a list, hosts are references, so that each target can quote and name them in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from autotune.launch.limits import StartLimits
from autotune.tuning import Knobs
from costmodel.arch import Arch
from costmodel.hardware import Cluster
from costmodel.plan.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHost:
    """The address of a node, known only where the plan is started; `port` completes it to HOST:PORT."""

    node: int
    """Index into `LaunchPlan.nodes`."""
    port: int | None = None
    scheme: str = ""
    """What stands before it, as `http://`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSlots:
    """Addresses of several nodes with the processes that MPI starts on each: `HOST:8,HOST:8`."""

    nodes: tuple[int, ...]
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePath:
    """A file that is written next to the scripts, by its name there."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRank:
    """A number that a node's place within its replica decides: `rank x each`."""

    rank: int
    each: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """What a benchmark script is told when it is started, by its name there."""

    name: str
    before: str = ""
    """Text of the same argument in front of it."""


Arg = str | NodeHost | HostSlots | FilePath | NodeRank | Variable
"""One element of a command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchLoad:
    """The study's workload at the plan's operating point, for the benchmark that checks the choice."""

    isl: tuple[int, int]
    """Shortest and longest prompt, tokens, uniform between."""
    osl: tuple[int, int]
    """Shortest and longest output, tokens, uniform between."""
    concurrency: int
    """Requests in flight over all replicas."""
    request_rate_per_s: float | None
    """Arrivals over all replicas where the study gives a rate, which then drives the benchmark."""
    prefix_hit_frac: float
    """Share of prompt tokens in the prefix cache."""
    requests_per_s: float
    """Predicted for the benchmark, over all replicas."""
    ttft_s: float
    """Predicted mean, arrival to first token. Requests of one length come in bursts, and wait longer for each other."""
    ttft_varied_s: float
    """The same for requests of any lengths, as which the plan was scored."""
    tpot_s: float
    """Predicted mean of (e2e - TTFT) / (output tokens - 1)."""
    output_tokens_per_s: float
    """Predicted, over all replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What is to be launched: a plan with everything its engine has to be told."""

    name: str
    """What the service is called, from the study; any text."""
    engine: str
    version: str
    """Of the engine; its options are those of the list of this version or the nearest older one."""
    arch: Arch
    model: str
    """What the engine loads: a name of the Hugging Face hub or a path on the nodes; any text."""
    model_given: bool
    """Whether the user named it, so that it is stored in the dtypes that the plan has."""
    cluster: Cluster
    layout: Layout
    knobs: Knobs
    plan: str
    """Full plan string, engine included."""
    limits: StartLimits
    load: BenchLoad
    exchange: str
    """How tokens reach their experts where the plan was scored: `none`, `reduce`, `gather` or `routed`."""
    cuda_graphs: bool = True
    hybrid_lb: bool = False
    """vLLM: every node of a replica answers HTTP for its own attention-DP ranks, instead of the head for all."""
    image: str | None = None
    """Container image; None: the one that the engine's makers publish for the version."""
    assumptions: tuple[str, ...] = ()
    """What was filled in to get here."""


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
    env: Mapping[str, str | NodeHost] = field(default_factory=dict)
    http_port: int | None = None
    """Where it answers requests; None for a worker."""
    other_ports: tuple[int, ...] = ()
    """Ports that other nodes of the replica reach it at."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How to see that a server is ready: an HTTP GET that answers 200, and when to expect it."""

    path: str
    startup_s: float
    """Allowed until the first 200: loading weights and capturing graphs."""


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
    files: Mapping[str, str]
    """Configuration files that commands name by `FilePath`: name -> content."""
    health: Health
    assumptions: tuple[str, ...]
    """What was chosen that the plan does not say, in plain sentences."""

    @property
    def processes(self) -> tuple[NodeProcess, ...]:
        """All of them, in the order in which to start them."""
        own = tuple(p for r in self.replicas for p in r.processes)
        return own if self.router is None else (*own, self.router)


def render(arg: Arg, *, host: Callable[[int], str], file: Callable[[str], str]) -> str:
    """An argument as one string: `host` says what a node is called, `file` where a file lies."""
    if isinstance(arg, FilePath):
        return file(arg.name)
    if isinstance(arg, HostSlots):
        return ",".join(f"{host(node)}:{arg.slots}" for node in arg.nodes)
    if isinstance(arg, NodeHost):
        return arg.scheme + host(arg.node) + ("" if arg.port is None else f":{arg.port}")
    if isinstance(arg, NodeRank):
        return str(arg.rank * arg.each)
    if isinstance(arg, Variable):
        raise ValueError(f"only a script knows {arg.name}")
    return arg
