"""What is to be launched: a plan of a study with everything that its engine has to be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autotune.engines.dtype_facts import Place
from costmodel.arch import Arch
from costmodel.hardware import Cluster
from costmodel.plan.layout import Layout

DOWNLOAD_BYTES_PER_S = 100e6
"""At which a node is taken to fetch a model that it does not have: 690 GB in two hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What is set at launch besides the layout."""

    concurrency: int
    """Requests in flight over all replicas."""
    max_num_batched_tokens: int
    """Token budget of a step, per attention-DP rank."""
    max_num_seqs: int
    """Sequences that run at once, per attention-DP rank, at this concurrency."""
    weight_dtype: str | None
    """None: the checkpoint's."""
    kv_dtype: str | None
    """None: the checkpoint's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartLimits:
    """Lengths, counts and memory that a server is started with."""

    max_model_len: int
    """Tokens of the longest request, prompt and output."""
    max_num_seqs: int
    """Sequences that run at once, per attention-DP rank."""
    max_num_batched_tokens: int
    """Token budget of a step, per attention-DP rank."""
    gpu_memory_utilization: float
    """Share of total memory that the engine may fill, activations included."""
    static_fraction: float
    """Share of total memory for weights and KV alone; activations and CUDA graphs have the rest."""
    kv_free_fraction: float
    """Share of the memory that weights and activations leave free, for KV."""
    kv_room_bytes: float
    """KV room on the fullest GPU with these values, by the memory model."""
    kv_needed_bytes: float
    """Of `max_num_seqs` sequences of mean length, or of one of `max_model_len` where that is more."""
    weight_bytes: float
    """On the fullest GPU."""
    exchange_buffer_bytes: float = 0.0
    """Of the kernels that send tokens to their experts, on each GPU; not part of the KV room."""
    assumptions: tuple[str, ...] = ()
    of_sequences: tuple[str, ...] = ()
    """What was assumed of `max_num_seqs` and of the tokens that go with it."""

    @property
    def exchange_room_bytes(self) -> float:
        """Memory of each GPU that the buffer of the exchange with experts may take."""
        return self.kv_room_bytes + self.exchange_buffer_bytes - self.kv_needed_bytes

    @property
    def margin_frac(self) -> float:
        """Room left over what is needed, relative to what is needed."""
        return self.kv_room_bytes / self.kv_needed_bytes - 1.0


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
    """Predicted mean, arrival to first token. A closed-loop benchmark begins with all its requests at once, which wait.
    """
    ttft_steady_s: float
    """The same in steady service, without the benchmark's beginning: what the plan was scored by."""
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
    make_load: Callable[[], BenchLoad]
    """Works out `load`, for those who ask for it: whether a plan can be launched does not depend on it."""
    exchange: str
    """How tokens reach their experts where the plan was scored: `none`, `reduce`, `gather` or `routed`."""
    cuda_graphs: bool = True
    hybrid_lb: bool = False
    """vLLM: every node of a replica answers HTTP for its own attention-DP ranks, instead of the head for all."""
    image: str | None = None
    """Container image; None: the one that the engine's makers publish for the version."""
    instance: str | None = None
    """What its objects in a cluster are called; None: by the study and a hash of what is started."""
    assumptions: tuple[str, ...] = ()
    """What was filled in to get here."""

    @property
    def place(self) -> Place:
        """The model, as its checkpoint stores it, and the GPUs."""
        return Place(arch=self.arch, gpu=self.cluster.gpu)

    @property
    def load(self) -> BenchLoad:
        """What a benchmark of it sends, and what is predicted of that."""
        return self.make_load()

    @property
    def download_s(self) -> float:
        """Time that a node may need to fetch the model before it loads it; 0 where it is a folder there."""
        if self.model.startswith("/"):
            return 0.0
        return self.limits.weight_bytes * self.layout.pp * self.layout.width / DOWNLOAD_BYTES_PER_S
