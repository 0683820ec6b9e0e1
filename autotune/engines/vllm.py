"""vLLM: one `vllm serve` per node of a replica.

Parallel arithmetic (vllm/config/parallel.py, vllm/engine/arg_utils.py of 0.24 and 0.33): GPUs of a server = DP x PP x
PCP x TP, data parallelism outermost. A data-parallel rank that fits a node is started by its node with
`--data-parallel-size-local` and `--data-parallel-start-rank`; one that spans nodes by `--nnodes` and `--node-rank`.
Nodes other than the head run `--headless`. The token budget and the sequences are those of one data-parallel rank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from autotune.engines import dynamo as on_dynamo
from autotune.engines import layout_rules as shared
from autotune.engines import low_latency as deepep
from autotune.engines.bench_serve import bench_serve
from autotune.engines.benchmark import BenchCommand, Drive
from autotune.engines.class_rules import model_class
from autotune.engines.command_line import Arg, CommandLine, NodeHost, NodeRank
from autotune.engines.dtype_facts import Place, no_low_latency
from autotune.engines.engine import ANY_HOST, Engine
from autotune.engines.layout_rules import Bools, Candidates, Rule
from autotune.engines.low_latency import ExchangeKernels
from autotune.engines.option_reader import Command, OptionReader
from autotune.engines.options import OptionList
from autotune.engines.pair_rules import NIXL_ONE_STAGE, VLLM_CONNECTORS
from autotune.engines.service import Service
from autotune.engines.start_options import VLLM_START
from autotune.engines.surroundings import ReplicaNodes, ServerMetrics
from costmodel.arch import Arch
from costmodel.arch.attention import GroupedQuery, Latent
from costmodel.engine import CacheDtype, EngineTraits
from costmodel.errors import InputError, Problem
from costmodel.plan.layout import Layout

RPC_PORT = 29550
MASTER_PORT = 29501
LOW_LATENCY, THROUGHPUT, GATHER = "deepep_low_latency", "deepep_high_throughput", "allgather_reducescatter"
"""Of `--all2all-backend`. The second turns CUDA graphs off (0.33, vllm/config/compilation.py), so that it is written
only where two-batch overlap needs an all-to-all for more tokens than low-latency kernels take."""


def _decode_context(arch: Arch, c: Candidates) -> Bools:
    """vllm/config/parallel.py and model.py: within attention TP; with grouped queries, ranks that share a KV head."""
    kv = max(shared.kv_head_counts(arch), default=1)
    out = (c.attn_tp % c.dcp != 0) | (c.dcp > c.attn_tp // kv)
    if grouped := [a for a in arch.attentions if isinstance(a, GroupedQuery)]:
        out |= (min(int(a.heads) // int(a.kv_heads) for a in grouped) % c.dcp) != 0
    return (c.dcp > 1) & out


def _prefill_context(arch: Arch, c: Candidates) -> Bools:
    """vllm/v1/attention/backend.py, mla_attention.py: only attention over a latent, and not with DCP."""
    latent = all(isinstance(a, Latent) for a in arch.attentions)
    return (c.attn_cp > 1) & ((c.dcp > 1) | (not latent))


class Vllm(Engine):
    """vLLM."""

    traits = EngineTraits(
        name="vllm",
        calibration="vllm",
        stages_strided=True,
        kv_fraction_is_of_free=False,
        reserves_whole_output=False,
        prompts_ride_on_decode_steps=True,
        captured_prompt_tokens=512,
        overlap_prompt_tokens=512,
        overlap_decode_tokens=32,
        quantised_cache=CacheDtype.CHECKPOINT,
    )
    title = "vLLM"
    rules = (
        model_class("vllm"),
        shared.STAGES_HAVE_LAYERS,
        shared.PIPELINE_MODEL_CLASS,
        shared.DENSE_HAS_NO_EXPERTS,
        shared.ATTENTION_HEADS,
        shared.KV_HEADS,
        shared.KV_HEAD_COPIES,
        shared.LINEAR_ATTENTION_HEADS,
        Rule(
            name="moe_tp_or_ep",
            text="vLLM's expert parallelism is on or off: moe_tp or moe_ep must be 1",
            fields=("moe_tp", "moe_ep"),
            broken=lambda arch, c: (c.moe_tp > 1) & (c.moe_ep > 1) & arch.is_moe,
        ),
        shared.ENOUGH_EXPERTS,
        shared.REDUNDANT_EXPERTS_DIVISIBLE,
        shared.REDUNDANT_EXPERTS_NEED_EP,
        shared.OVERLAP_NEEDS_EXCHANGE,
        shared.REDUNDANT_EXPERTS_CLASS,
        shared.RANKS_WITHIN_EXPERTS,
        shared.EXPERT_SHARDS,
        shared.REFINED_EXPERT_BLOCKS,
        shared.DENSE_SHARDS,
        shared.shared_expert_shards(lambda arch, c: shared.shared_experts_cut(arch, c.attn_tp)),
        shared.ATTENTION_BLOCKS,
        shared.INTEGER_GROUPS,
        Rule(
            name="prefill_context_parallel",
            text="vLLM cuts prompts over ranks only for attention over a latent, without dcp: attn_cp must be 1",
            fields=("attn_cp", "dcp"),
            broken=_prefill_context,
        ),
        shared.decode_context_parallel(_decode_context),
    )
    pool_rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {"prefill": (NIXL_ONE_STAGE,), "decode": (NIXL_ONE_STAGE,)}
    decode_pool_prefills = "all"  # by llm-d's router
    connectors = VLLM_CONNECTORS
    connector = "NixlConnector"
    tp_may_be_stage_width = False
    quick_experts: ClassVar[Mapping[str, str]] = {"mxfp4": "VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8=1"}
    """What InferenceMAX's launch scripts set on B200."""
    startup_s = 120.0
    """ "init engine" 91 s with a cold torch.compile cache (run-ai/runai-model-streamer#67), 34 s with a warm one
    (vllm-project/vllm#20264), some 30 s around it; large mixtures of experts take up to 8 min
    (vllm-project/vllm#43189)."""

    package = "vllm"
    host_variable = "VLLM_HOST_IP"
    http_port = 8000
    peer_ports = (MASTER_PORT, RPC_PORT)
    partition_variable = "VLLM_PP_LAYER_PARTITION"
    every_node_may_answer = True
    kv_names: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "bf16": ("bfloat16",),
        "fp16": ("float16",),
        "fp8": ("fp8",),
        "int8": ("int8_per_token_head",),
        "nvfp4": ("nvfp4",),
    }
    """Choices of `--kv-cache-dtype`."""
    weight_names: ClassVar[Mapping[str, str]] = {"fp8": "fp8"}
    speculative_option = "--speculative-config"
    start_options = replace(VLLM_START, own_variables=tuple(quick_experts.values()))

    programs = (
        ("vllm", "serve"),
        ("vllm.entrypoints.openai.api_server",),
        ("vllm.entrypoints.api_server",),
        ("vllm.entrypoints.cli.main", "serve"),
        ("dynamo.vllm",),
    )
    abbreviations = True
    other_spellings: ClassVar[Mapping[str, str]] = {"-O": "--optimization-level"}
    dotted_options = True
    later_node_options = ("data_parallel_start_rank", "data_parallel_rank", "node_rank")
    worker_option = "headless"
    config_option = "config"
    config_overrides = False
    config_is_options = True
    length_option = "max_model_len"
    sequences_option = "max_num_seqs"
    tokens_option = "max_num_batched_tokens"
    sequences_within_tokens = True
    cache_option = "kv_cache_dtype"
    memory_options = ("gpu_memory_utilization",)
    memory_is_of_everything = True
    shown_options = (
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "prefill_context_parallel_size",
        "decode_context_parallel_size", "enable_expert_parallel", "all2all_backend", "enable_eplb", "enable_dbo",
        "max_num_seqs", "max_num_batched_tokens", "max_model_len", "gpu_memory_utilization", "kv_cache_dtype",
        "enforce_eager", "nnodes", "data_parallel_backend",
    )  # fmt: skip

    image = "vllm/vllm-openai:v{version}"
    image_tags = "https://hub.docker.com/r/vllm/vllm-openai/tags"
    image_name = "vllm-openai"
    image_program = ("vllm", "serve")
    bench_client = "vllm_bench"
    bench_result = "result.json"
    metrics = ServerMetrics(
        title=title,
        prompt=("vllm:request_prompt_tokens",),
        output=("vllm:request_generation_tokens",),
        ttft_s=("vllm:time_to_first_token_seconds",),
        cache_hits=("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
        cache_queries=("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
        prompt_total=("vllm:prompt_tokens_total",),
        output_total=("vllm:generation_tokens_total",),
        requests_total=("vllm:request_success_total",),
    )
    dynamo = on_dynamo.VLLM

    def longer_stages(self, pp: int, remainder: int) -> range:
        """Those before the last (`get_pp_indices`)."""
        return range(pp - remainder - 1, pp - 1)

    def command(
        self, service: Service, options: OptionList, place: ReplicaNodes, node_rank: int, port: int
    ) -> tuple[Arg, ...]:
        """`vllm serve` on one node."""
        layout, limits = service.layout, service.limits
        line = CommandLine(options).positional(service.model)
        if node_rank == 0 or service.hybrid_lb:
            line.value("host", ANY_HOST).value("port", port)
            if layout.attn_dp > 1:
                # one alone is the bottleneck of many ranks; by itself vLLM starts one for each rank of the whole server
                # on the head (0.33, vllm/entrypoints/cli/serve.py), beyond what a node's cores carry
                line.value("api_server_count", max(layout.attn_dp // len(place.nodes), 1))
        line.value("tensor_parallel_size", layout.attn_tp, meaning="attention_tp")
        line.value("pipeline_parallel_size", layout.pp)
        line.degree("data_parallel_size", layout.attn_dp, meaning="attention_dp")
        line.degree("prefill_context_parallel_size", layout.attn_cp)
        line.degree("decode_context_parallel_size", layout.dcp)
        _join_nodes(line, service, place, node_rank)
        if layout.moe_ep > 1:
            line.flag("enable_expert_parallel")
            if service.exchange in ("routed", "gather"):
                line.value("all2all_backend", self._exchange_backend(service))
        if layout.two_batch_overlap:
            line.flag("enable_dbo").value("dbo_prefill_token_threshold", self.traits.overlap_prompt_tokens)
            line.value("dbo_decode_token_threshold", self.traits.overlap_decode_tokens)
        if layout.redundant_experts:
            line.flag("enable_eplb")
            line.value("eplb_config", json.dumps({"num_redundant_experts": layout.redundant_experts}))
        line.value("max_model_len", limits.max_model_len)
        line.value("max_num_seqs", limits.max_num_seqs, meaning="per_attention_dp_rank")
        line.value("max_num_batched_tokens", limits.max_num_batched_tokens, meaning="per_attention_dp_rank")
        line.value("gpu_memory_utilization", limits.gpu_memory_utilization, meaning="of_total")
        self.write_dtypes(line, service)
        self.write_code(line, service)
        if not service.cuda_graphs:
            line.flag("enforce_eager")
        return line.done()

    def environment(self, service: Service) -> Mapping[str, str]:
        """PCP's runner (0.33, vllm/config/vllm.py: "implemented only by the V2 model runner"), and DeepEP's memory."""
        out = {"VLLM_USE_V2_MODEL_RUNNER": "1"} if service.layout.attn_cp > 1 else {}
        if self._exchange_backend(service) != GATHER:
            gpu = service.cluster.gpu
            out |= deepep.heap_variables(gpu, self.exchange_buffer_bytes(service) or deepep.memory_bytes(gpu, 0))
        return out

    def exchange_kernels(self, place: Place, layout: Layout, *, version: str | None, budget: int) -> ExchangeKernels:
        """Low-latency kernels with room for every token of a step; throughput ones where dual batches need them."""
        overlap = bool(layout.two_batch_overlap)
        found = deepep.NO_KERNELS
        if _no_kernel(place, place.arch.dtypes.experts, version) is None:
            found = deepep.kernels_of(place, layout, tokens=budget, pads=True, throughput=overlap)
        return replace(found, throughput=True) if overlap else found

    def _exchange_backend(self, service: Service) -> str:
        if self.low_latency_tokens(service) is not None:
            return LOW_LATENCY
        return THROUGHPUT if service.layout.two_batch_overlap else GATHER

    def low_latency_tokens(self, service: Service) -> int | None:
        """The token budget: every token of a step may be sent."""
        return None if _no_low_latency(service) is not None else service.limits.max_num_batched_tokens

    def assumptions(self, service: Service, nodes: int) -> tuple[str, ...]:
        """How tokens reach experts, where that is not as scored or needs something in the image."""
        if service.layout.moe_ep == 1 or service.exchange != "routed":
            return ()
        why, gpu = _no_low_latency(service), service.cluster.gpu
        if why is not None and service.layout.two_batch_overlap:
            backend = f"--all2all-backend {THROUGHPUT} ({why})"
            graphs = f"which needs {deepep.library(gpu)} in the image and runs without CUDA graphs"
            return (f"{deepep.SCORED}{backend}, {graphs}",)
        if why is not None:
            return (f"{deepep.SCORED}not by DeepEP ({why}), so that --all2all-backend is {GATHER}, which is slower",)
        return (deepep.needed(f"--all2all-backend {LOW_LATENCY}", gpu, self.exchange_buffer_bytes(service)),)

    def exchange_backend(self, command: Command) -> str | None:
        """That of `--all2all-backend`, with experts over data-parallel ranks (`use_batched_dp_moe`)."""
        options = OptionReader(command=command, gpu_gib=0.0)
        if not options.on("enable_expert_parallel") or options.one("data_parallel_size") == 1:
            return None
        return options.text("all2all_backend")

    def stated_connector(self, options: OptionReader) -> str | None:
        """That of `--kv-transfer-config`."""
        try:
            given = json.loads(options.text("kv_transfer_config") or "{}")
        except (ValueError, RecursionError):
            given = {}
        return str(given.get("kv_connector", self.connector)) if isinstance(given, dict) else self.connector

    def layout(self, options: OptionReader, arch: Arch | None, servers: int) -> Layout:
        """Data parallelism of a dense model is replicas, EP is TP x PCP x DP or 1."""
        tp, pp, dp = (options.one(f"{n}_parallel_size") for n in ("tensor", "pipeline", "data"))
        cp, dcp = options.one("prefill_context_parallel_size"), options.one("decode_context_parallel_size")
        expert = options.on("enable_expert_parallel")
        is_moe = expert or options.on("enable_eplb") or dp > 1 if arch is None else arch.is_moe
        if arch is None and not expert and dp > 1:
            options.assumptions.append(
                "model not known: taken for a mixture of experts because of --data-parallel-size"
            )
        if not is_moe and dp > 1:
            options.assumptions.append(f"--data-parallel-size {dp} of a dense model: {dp} independent servers each")
        width = tp * cp * (dp if is_moe else 1)
        return Layout(
            replicas=servers * (1 if is_moe else dp),
            pp=pp,
            attn_tp=tp,
            attn_dp=dp if is_moe else 1,
            attn_cp=cp,
            moe_tp=width if is_moe and not expert else 1,
            moe_ep=width if is_moe and expert else 1,
            dcp=dcp,
            redundant_experts=_redundant_experts(options) if options.on("enable_eplb") else 0,
            two_batch_overlap=_dual_batches(options, self.traits),
            stage_layers=self.stated_stages(options, pp),
        )

    def benchmark(self, service: Service, options: OptionList, drive: Drive) -> BenchCommand:
        """`vllm bench serve`."""
        return bench_serve(self, service, options, drive, backend="vllm")


def _dual_batches(options: OptionReader, traits: EngineTraits) -> int:
    """1 with `--enable-dbo`, and a note where its thresholds are not those of `traits`, which are priced."""
    if not options.on("enable_dbo"):
        return 0
    priced = {"prefill": traits.overlap_prompt_tokens, "decode": traits.overlap_decode_tokens}
    for kind, tokens in priced.items():
        name = f"dbo_{kind}_token_threshold"
        if options.number(name, tokens, least=0) != tokens:
            options.assumptions.append(f"--{name.replace('_', '-')} is priced as {tokens}")
    return 1


def _no_low_latency(service: Service) -> str | None:
    if service.exchange != "routed" or service.layout.moe_ep == 1:
        return "low_latency_unscored: the plan was scored without"
    place, limits = service.place, service.limits
    experts = service.knobs.weight_dtype or place.arch.dtypes.experts
    tokens, room_bytes = limits.max_num_batched_tokens, limits.exchange_room_bytes
    return _no_kernel(place, experts, service.version) or deepep.refusal(
        place, service.layout, tokens=tokens, room_bytes=room_bytes, pads=True
    )


def _no_kernel(place: Place, experts: str, version: str | None) -> str | None:
    """Why experts in a dtype take no tokens from low-latency kernels, by the name of a rule."""
    where = no_low_latency("vllm", place, experts, version)
    return None if where is None else f"low_latency_expert_dtype: vLLM has no kernel for experts in {experts}{where}"


def _join_nodes(line: CommandLine, service: Service, place: ReplicaNodes, node_rank: int) -> None:
    """The options that make one server of several nodes."""
    nodes, local = len(place.nodes), len(place.gpus)
    if nodes == 1:
        return
    layout, head = service.layout, NodeHost(node=place.nodes[0])
    group = layout.pp * layout.attn_tp * layout.attn_cp
    if group <= local and local % group == 0:
        each = local // group
        line.value("data_parallel_size_local", each)
        line.value("data_parallel_address", head).value("data_parallel_rpc_port", RPC_PORT)
        if service.hybrid_lb:
            line.flag("data_parallel_hybrid_lb")
        if node_rank or service.hybrid_lb:
            line.value("data_parallel_start_rank", NodeRank(rank=node_rank, each=each))
    elif group % local == 0 and not service.hybrid_lb:
        line.value("nnodes", nodes).value("node_rank", NodeRank(rank=node_rank))
        line.value("master_addr", head).value("master_port", MASTER_PORT)
        if layout.attn_dp > 1:
            line.value("data_parallel_rpc_port", RPC_PORT)
    else:
        hybrid = ", whole inside one for --hybrid-lb" if service.hybrid_lb else ""
        raise InputError.single(
            "plan",
            "dp_rank_nodes: vLLM's data-parallel rank (pp x attn_tp) must fit a node a whole number of times or take "
            f"whole nodes{hybrid}, got {group} GPUs per rank, {local} GPUs per node",
        )
    if node_rank and not service.hybrid_lb:
        line.flag("headless")


def _redundant_experts(options: OptionReader) -> int:
    text = options.text("eplb_config")
    try:
        table = json.loads(text) if text else {}
        return int(table.get("num_redundant_experts", 0)) if isinstance(table, dict) else 0
    except (ValueError, TypeError, RecursionError):
        problem = Problem(path="--eplb-config", message=f"must be a JSON object, got {str(text)[:100]!r}")
        options.problems.append(problem)
        return 0


VLLM = Vllm()
