"""What a serving engine is to this program. One subclass per engine holds everything that is that engine's alone.

Attributes are facts, methods return values. `ENGINES` (`registry`) holds one object of each; nothing else names one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from autotune.engines.benchmark import BenchCommand, Drive
from autotune.engines.command_line import Arg, CommandLine
from autotune.engines.draft_rules import DraftRules
from autotune.engines.dtype_facts import Place
from autotune.engines.dynamo import DynamoBackend
from autotune.engines.layout_rules import Rule
from autotune.engines.low_latency import ANY_KERNELS, ExchangeKernels, buffer_bytes, memory_bytes, padded_hidden
from autotune.engines.model_classes import has
from autotune.engines.option_reader import Command, OptionReader
from autotune.engines.options import DATA, OptionList, choose_version, flat_fields, option_list, versions
from autotune.engines.pair_rules import PairRule
from autotune.engines.service import Service, StartLimits
from autotune.engines.start_options import StartOptions
from autotune.engines.supported import Supported
from autotune.engines.surroundings import ReplicaNodes, Router, ServerMetrics
from costmodel.arch import Arch
from costmodel.engine import SEEN_IS_KEPT, CacheRule
from costmodel.plan.layout import Layout

if TYPE_CHECKING:
    from costmodel.simulation.policies import Policy

ANY_HOST = "0.0.0.0"  # noqa: S104  # servers are for other machines


class Engine(Supported):
    """One serving engine: its layouts, its hardware, the commands it is started with and how they are read back."""

    # Which plans it takes.
    rules: ClassVar[tuple[Rule, ...]]
    """What a layout must hold so that the engine can be launched with it, all of it listed: nothing is inherited."""
    conditions: ClassVar[tuple[Rule, ...]] = ()
    """What some of the layouts that hold them start with alone, which `broken` names; exports write it."""
    pool_rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {}
    """What a pool of a disaggregated plan must hold besides, by what it does (`prefill`, `decode`)."""
    draft_rules: ClassVar[DraftRules] = {}
    """What a layout must hold besides that decodes with drafts (speculative decoding)."""
    connectors: ClassVar[Mapping[str, tuple[PairRule, ...]]] = {}
    """What the pools of a disaggregated plan must hold together, by what hands caches over, as options name it."""
    connector: ClassVar[str | None] = None
    """That of exported plans, whose pools alone `pool_rules` are about; None: it has no name."""
    connector_option: ClassVar[str | None] = None
    """Option that names it."""
    decode_pool_prefills: ClassVar[Literal["", "cached", "all"]] = ""
    """Prompts that a front can have its decode pool prefill: none, those of which some tokens are cached there, all."""
    attention_dp_measured: ClassVar[bool] = False
    """Whether runs of the calibration have attention data parallelism."""
    tp_may_be_stage_width: ClassVar[bool]
    """Whether `TP` in a short plan string may mean the width of a stage, as the engine's own option does."""
    quick_experts: ClassVar[Mapping[str, str]] = {}
    """Storage dtype of experts -> setting that gives them the quickest kernels on Blackwell."""

    # What a switch to it takes.
    startup_s: ClassVar[float]
    """From a process's start until it serves, weights not counted; what a study assumes."""

    # The commands that start it.
    http_port: ClassVar[int]
    ports_apart: ClassVar[int] = 1
    """Between servers on one node."""
    peer_ports: ClassVar[tuple[int, ...]] = ()
    """Ports of a replica's head that its other nodes reach."""
    process_per_node: ClassVar[bool] = True
    """Whether every node of a replica gets a command; otherwise the head's starts the others."""
    other_names: ClassVar[tuple[str, ...]] = ()
    """Lower-case parts of words by which benchmark tools call it, beside its name."""
    package: ClassVar[str]
    """Name of its Python package, whose version is checked before it is started."""
    host_variable: ClassVar[str | None] = None
    """Environment variable with the address by which other nodes reach a node; None: it finds it."""
    partition_variable: ClassVar[str | None] = None
    """Environment variable with the layers of each stage; None: they stand elsewhere."""
    ready_s: ClassVar[float] = 3600.0
    """Allowed until a server answers: weights from shared storage, compiling, tuning and capturing graphs."""
    health_path: ClassVar[str] = "/health"
    """Answers 200 when the server is ready."""
    every_node_may_answer: ClassVar[bool] = False
    """Whether `Service.hybrid_lb` means something to it."""
    speculative_option: ClassVar[str]
    """Where it is told how to draft tokens."""
    start_options: ClassVar[StartOptions] = StartOptions()
    """What of a command changes speed and memory beside layout, dtypes and limits."""
    options_data: ClassVar[Path] = DATA
    """Folder with the lists of options of its versions, its benchmark's and its router's."""

    # The commands that started it elsewhere.
    programs: ClassVar[tuple[tuple[str, ...], ...]]
    """Words that a server's command begins with, all ways of it; the first is the usual one."""
    model_is_positional: ClassVar[bool] = True
    abbreviations: ClassVar[bool] = False
    """Whether its parser takes the beginning of an option for the option."""
    dotted_options: ClassVar[bool] = False
    """Whether its parser takes `--option.key value` for a key of an option that is a JSON object."""
    later_node_options: ClassVar[tuple[str, ...]] = ("node_rank",)
    """Options whose value is above 0 on nodes of a replica that are not its head."""
    rank_launcher: ClassVar[str | None] = None
    """Program that makes the tasks of a job the ranks of one server."""
    worker_option: ClassVar[str | None] = None
    """Flag of processes that do not answer requests."""
    python_package: ClassVar[str | None] = None
    """That Python files import; None: it is called as the engine is."""
    python_classes: ClassVar[tuple[str, ...]] = ("LLM", "EngineArgs", "AsyncEngineArgs", "Engine", "ServerArgs")
    """Of that package, those whose arguments are a server's options."""
    config_option: ClassVar[str | None] = None
    """Option that names a YAML file with fields that stand for options."""
    config_overrides: ClassVar[bool] = True
    """Whether the file's fields go before the options of the command line."""
    config_is_options: ClassVar[bool] = False
    """Whether the file's fields are the options of the command line; else they are those of `OptionList.fields`."""
    other_spellings: ClassVar[Mapping[str, str]] = {}
    """Options of other programs that start it (Dynamo's workers) -> ours."""
    config_tables: ClassVar[tuple[str, ...]] = ()
    """Fields of that file that hold fields."""
    length_option: ClassVar[str]
    """Longest request, tokens."""
    sequences_option: ClassVar[str]
    tokens_option: ClassVar[str]
    sequences_within_tokens: ClassVar[bool] = False
    """Whether the usual number of sequences is no larger than the tokens of a step."""
    limits_over_ranks: ClassVar[bool] = False
    """Whether the two count all attention-DP ranks together, not one."""
    memory_options: ClassVar[tuple[str, ...]]
    """Share of memory, by any of the names."""
    memory_is_of_everything: ClassVar[bool]
    """Whether that share is of all that the engine fills: weights, activations and cache."""
    shown_options: ClassVar[tuple[str, ...]]
    """Options that decide about plan, memory and load: copies of one plan are alike in them; defaults are shown."""

    # What stands around a server.
    image: ClassVar[str]
    """What its makers publish for NVIDIA GPUs; `{version}` stands for the version."""
    image_tags: ClassVar[str]
    """Where the tags are listed that the image has."""
    image_name: ClassVar[str]
    """End of that image's name, by which it is known in any registry."""
    image_program: ClassVar[tuple[str, ...]] = ()
    """What the image runs where a container only gives arguments."""
    bench_client: ClassVar[str]
    """Name of the option lists of the client that measures it."""
    bench_result: ClassVar[str]
    """Name of the file that the client writes."""
    router: ClassVar[Router | None] = None
    """None: replicas are independent servers, for any load balancer."""
    metrics: ClassVar[ServerMetrics | None] = None
    dynamo: ClassVar[DynamoBackend | None] = None

    @property
    def policy(self) -> Policy:
        """Its scheduler, as simulations run it."""
        from costmodel.simulation.policies import CHUNKED, NO_EVICT, PREFILL_FIRST  # most questions simulate nothing

        if not self.traits.prompts_ride_on_decode_steps:
            return PREFILL_FIRST
        return NO_EVICT if self.traits.reserves_whole_output else CHUNKED

    def rules_of(self, role: str | None, *, drafts: bool = False) -> tuple[Rule, ...]:
        """The rules of a pool's layout; None: of a replica that does both. `drafts`: with speculative decoding."""
        return (*self.rules, *self.pool_rules.get(role or "", ()), *(self.draft_rules.get(role, ()) if drafts else ()))

    @abstractmethod
    def longer_stages(self, pp: int, remainder: int) -> range:
        """Stages that hold one layer more than the others, where `remainder` layers are left over."""

    def split_layers(self, num_hidden_layers: int, pp: int) -> tuple[int, ...]:
        """Layers per stage, first to last, as the engine splits them when it is not told otherwise.

        Raises:
            ValueError: `pp` does not lie between 1 and `num_hidden_layers`.
        """
        if not 1 <= pp <= num_hidden_layers:
            raise ValueError(f"`pp` must lie between 1 and num_hidden_layers, got {pp=}, {num_hidden_layers=}")
        base, remainder = divmod(num_hidden_layers, pp)
        longer = self.longer_stages(pp, remainder)
        return tuple(base + (stage in longer) for stage in range(pp))

    def cache_rule(self, arch: Arch, version: str | None) -> CacheRule:
        """What servers keep of a model's cache as exports start them; `version` None is the newest."""
        return SEEN_IS_KEPT

    def expert_shard(self, layout: Layout, place: int) -> tuple[int, int]:
        """Expert-parallel group and shard within it of a place in a stage: an expert's shards are neighbours."""
        return divmod(place, layout.moe_tp)

    @abstractmethod
    def command(
        self, service: Service, options: OptionList, place: ReplicaNodes, node_rank: int, port: int
    ) -> tuple[Arg, ...]:
        """What starts a replica's process on its node number `node_rank`.

        Raises:
            InputError: the version has no option for something in the plan, or the plan cannot be placed so.
        """

    def environment(self, service: Service) -> Mapping[str, str]:
        """Variables that a replica's processes need for the plan, the layers of stages aside."""
        return {}

    def exchange_kernels(self, place: Place, layout: Layout, *, version: str | None, budget: int) -> ExchangeKernels:
        """How a plan is started to send tokens to the ranks of their experts, if the buffer finds room.

        `place` is the model, as its weights are stored, and the GPUs; `budget` is that of tokens of a step; `version`
        None is the newest.
        """
        return ANY_KERNELS

    def shared_expert_shards(self, arch: Arch, layout: Layout, *, routed: bool) -> int:
        """Shards of the shared experts' weights; `routed`: tokens are sent only to the ranks of their experts."""
        return layout.attn_tp

    def low_latency_tokens(self, service: Service) -> int | None:
        """Tokens that a rank may send to experts in a step by low-latency kernels; None: it is started without them."""
        return None

    def exchange_buffer_bytes(self, service: Service) -> int:
        """Memory on each GPU that low-latency kernels keep for the exchange with experts, that of `memory_bytes`."""
        tokens = self.low_latency_tokens(service)
        hidden = padded_hidden(service.arch.hidden_size)
        if tokens is None or hidden is None:
            return 0
        experts = service.arch.num_experts + service.layout.redundant_experts
        return memory_bytes(service.cluster.gpu, buffer_bytes(experts=experts, hidden_size=hidden, tokens=tokens))

    def write_code(self, line: CommandLine, service: Service) -> None:
        """The option that runs code which lies with the model, where the engine has no class of its own for it.

        Raises:
            InputError: the version has no such option.
        """
        if has(self.name, "code_with_the_model", service.arch, service.version):
            line.flag("trust_remote_code")

    def check_nodes(self, service: Service, nodes: int) -> None:  # most take any
        """Raises `InputError`, by a rule's name, where replicas cannot lie on so many nodes each."""

    def files(self, service: Service, options: OptionList) -> Mapping[str, Mapping[str, Any]]:
        """Configuration files that commands name: name -> content. Raises `InputError` as `command`."""
        return {}

    def assumptions(self, service: Service, nodes: int) -> tuple[str, ...]:
        """What was chosen that the plan does not say, for replicas of so many nodes."""
        return ()

    @abstractmethod
    def layout(self, options: OptionReader, arch: Arch | None, servers: int) -> Layout:
        """What the commands of so many servers say of the layout; no stages where they leave the layers open.

        `arch` None: the model is not known, and what its kind decides is guessed and said.
        """

    def exchange_backend(self, command: Command) -> str | None:
        """The backend of the exchange with experts by which a command's defaults go; None: they do not."""
        return None

    @property
    def pair_rules(self) -> tuple[PairRule, ...]:
        """What the pools of a plan that is exported must hold together."""
        return self.connectors.get(self.connector or "", ())

    def stated_connector(self, options: OptionReader) -> str | None:
        """By what the server of a command hands caches to another pool."""
        name = self.connector_option
        if name is None or name not in options.command.options.options:
            return self.connector
        return options.text(name) or str(options.default(name) or self.connector)

    def stated_stages(self, options: OptionReader, pp: int) -> tuple[int, ...]:
        """Layers of each stage by the environment of a command; none where it does not say them."""
        variable = self.partition_variable
        return options.stages(None if variable is None else options.command.env.get(variable), pp)

    def same_lengths(self, isl: tuple[int, int], osl: tuple[int, int], prefix_hit_frac: float) -> bool:
        """Whether the client sends requests of one length: as the study has them, or as it draws them."""
        return isl[0] == isl[1] and osl[0] == osl[1]

    @abstractmethod
    def benchmark(self, service: Service, options: OptionList, drive: Drive) -> BenchCommand:
        """One run of the client.

        Raises:
            InputError: the client of this version has no option for something in it.
        """

    def bench_options(self, version: str) -> OptionList:
        """Options of the client: of the server's version, or the nearest older one."""
        return choose_version(self.bench_client, version, self.options_data)[0]

    def bench_image(self) -> str | None:
        """Image that has the client; None: the server's."""
        return None

    def config_values(self, table: Mapping[Any, Any]) -> dict[str, Any]:
        """The fields of a configuration file that are not options: name, of fields of fields with dots -> value."""
        return flat_fields(table)

    def knows_field(self, name: str, options: OptionList) -> bool:
        """Whether such a field means something."""
        return name in options.fields or name.partition(".")[0] in self.config_tables

    def memory_share(self, limits: StartLimits) -> float:
        """What a server is told of its share of memory (`memory_options`)."""
        if self.memory_is_of_everything:
            return limits.gpu_memory_utilization
        return limits.kv_free_fraction if self.traits.kv_fraction_is_of_free else limits.static_fraction

    def is_worker(self, command: Command) -> bool:
        """Whether a command is no server's head; a rank that only the cluster fills in counts as the first."""
        ranks = (command.values.get(name) for name in self.later_node_options)
        later = any(isinstance(r, str) and r.isdecimal() and int(r) > 0 for r in ranks)
        return later or (self.worker_option is not None and command.values.get(self.worker_option) is True)

    def versions(self) -> tuple[str, ...]:
        """Versions whose options are known, newest first."""
        return versions(self.name, self.options_data)

    def options(self, version: str) -> OptionList:
        """Options of one of `versions`."""
        return option_list(self.name, version, self.options_data)

    def choose_version(self, asked: str | None) -> tuple[OptionList, tuple[str, ...]]:
        """As `options.choose_version`."""
        return choose_version(self.name, asked, self.options_data)
