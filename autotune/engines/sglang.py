"""SGLang: one `sglang.launch_server` per node of a replica, and a router over the replicas.

Parallel arithmetic (sglang/srt/server_args.py and arg_groups/parallel_hook.py of 0.5.9, 0.5.22 and 0.5.23): `--tp-size`
is the width W of a pipeline stage; attention TP = W / attention-DP / attention-CP; experts' TP = W / EP. With
attention-DP the engine divides `--chunked-prefill-size` and `--max-running-requests` by it, so that both are written
for all ranks together. An all-to-all backend sets EP to W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from autotune.engines import dynamo as on_dynamo
from autotune.engines import layout_rules as shared
from autotune.engines import low_latency as deepep
from autotune.engines.benchmark import READY_S, BenchCommand, Drive, after, drawn_lengths, facts, middle, shared_prefix
from autotune.engines.cache_rules import cache_words, sglang_cache
from autotune.engines.class_rules import model_class
from autotune.engines.command_line import Arg, CommandLine, NodeHost, NodeRank
from autotune.engines.draft_rules import SGLANG_DRAFT_RULES
from autotune.engines.dtype_facts import Place
from autotune.engines.engine import ANY_HOST, Engine
from autotune.engines.layout_rules import Bools, Candidates, Rule
from autotune.engines.low_latency import ExchangeKernels
from autotune.engines.model_classes import has
from autotune.engines.option_reader import OptionReader
from autotune.engines.options import OptionList
from autotune.engines.pair_rules import SGLANG_CONNECTORS, SGLANG_WHOLE_PROMPTS
from autotune.engines.service import Service
from autotune.engines.start_options import DISPATCH_VARIABLE, SGLANG_START
from autotune.engines.surroundings import ReplicaNodes, Router, ServerMetrics
from costmodel.arch import Arch
from costmodel.engine import CacheDtype, EngineTraits
from costmodel.errors import InputError
from costmodel.plan.layout import Layout

DIST_PORT = 20000
DISPATCH_TOKENS = 128
"""Tokens that a rank may send in a decode step by DeepEP, and their number unless it is set (sglang/srt/environ.py)."""
SHARED_EXPERTS_WHOLE = "SGLANG_SHARED_EXPERT_TP1"
"""Keeps shared experts whole on every rank (sglang/srt/environ.py), as all-to-all backends do by themselves."""
SPANNING_EXCHANGES = (
    "ascend_fuseep", "deepep", "deepep_v2", "flashinfer", "flashinfer_megamoe", "megamoe", "mooncake", "mori", "nixl",
    "pplx",
)  # fmt: skip
"""All-to-all backends that set EP to the width of a stage (`_A2A_EP_SPANNING_BACKENDS`)."""


def _decode_context(arch: Arch, c: Candidates) -> Bools:
    """sglang/srt/arg_groups/fields/parallel.py: `--dcp-size`, which needs the same KV heads on its ranks; not with
    prompts cut over ranks."""
    if not c.has("decode_context_parallel", arch):
        return c.dcp > 1
    most = c.attn_tp // max(shared.kv_head_counts(arch), default=1)
    return (c.dcp > 1) & ((c.attn_tp % c.dcp != 0) | (c.dcp > most) | (c.attn_cp > 1))


def _shared_expert_shards(arch: Arch, c: Candidates) -> Bools:
    """Cut over the stage, unless the engine can keep them whole (`SHARED_EXPERTS_WHOLE`), as DeepEP always does."""
    if c.has("shared_experts_may_be_whole", arch):
        return shared.nowhere(c)
    may_send = (c.attn_dp > 1) & (c.moe_ep == c.width) & (_no_deepep(arch, c.version, None) is None)
    return shared.shared_experts_cut(arch, c.width) & ~may_send


class SglangRouter(Router):
    """SGLang's router: requests with a common prefix meet its cache (`cache_aware`)."""

    program = "sglang_router"
    port = 8000
    live_path = "/liveness"
    ready_path = "/readiness"

    def command(self, hosts: Sequence[Arg], start_s: int) -> tuple[Arg, ...]:
        """What starts it over servers at these addresses."""
        line = CommandLine(self.options()).values("worker_urls", list(hosts)).value("policy", "cache_aware")
        line.value("worker_startup_timeout_secs", start_s).value("host", ANY_HOST)
        return line.value("port", self.port).done()

    def discovering_command(self, selector: Sequence[str], server_port: int, namespace: str) -> tuple[Arg, ...]:
        """What starts it on Kubernetes, where it finds servers by labels."""
        line = CommandLine(self.options()).flag("service_discovery").values("selector", list(selector))
        line.value("service_discovery_port", server_port).value("service_discovery_namespace", namespace)
        return line.value("policy", "cache_aware").value("host", ANY_HOST).value("port", self.port).done()


class Sglang(Engine):
    """SGLang."""

    traits = EngineTraits(
        name="sglang",
        calibration="sglang",
        stages_strided=False,
        kv_fraction_is_of_free=False,
        reserves_whole_output=False,
        prompts_ride_on_decode_steps=False,
        captured_prompt_tokens=0,
        quantised_cache=CacheDtype.ACTIVATIONS,
    )
    title = "SGLang"
    rules = (
        model_class("sglang"),
        shared.STAGES_HAVE_LAYERS,
        shared.PIPELINE_MODEL_CLASS,
        shared.DENSE_HAS_NO_EXPERTS,
        shared.ATTENTION_HEADS,
        shared.KV_HEADS,
        shared.LINEAR_ATTENTION_HEADS,
        shared.ATTENTION_DP_CLASS,
        shared.ENOUGH_EXPERTS,
        shared.EXPERTS_DIVISIBLE,
        shared.REDUNDANT_EXPERTS_NEED_EP,
        shared.OVERLAP_NEEDS_EXCHANGE,
        shared.TWO_BATCH_OVERLAP_CLASS,
        shared.TWO_BATCH_OVERLAP_STAGES,
        shared.RANKS_WITHIN_EXPERTS,
        shared.EXPERT_SHARDS,
        shared.EXPERT_BLOCKS,
        shared.DENSE_MODEL_SHARDS,  # of mixtures of experts `--moe-dense-tp-size 1` keeps dense layers whole
        shared.shared_expert_shards(_shared_expert_shards),
        shared.ATTENTION_BLOCKS,
        shared.EXPERT_MODEL_INTEGER_GROUPS,
        shared.decode_context_parallel(_decode_context),
    )
    conditions = (
        Rule(
            name="whole_shared_experts",
            text=f"shared experts kept whole (DeepEP over the stage, or {SHARED_EXPERTS_WHOLE}=1 in versions with it)",
            fields=("width", "shared_intermediate_size"),
            broken=lambda arch, c: shared.shared_experts_cut(arch, c.width),
        ),
    )
    pool_rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {"decode": (SGLANG_WHOLE_PROMPTS,)}
    draft_rules = SGLANG_DRAFT_RULES
    cache_rule = staticmethod(sglang_cache)
    connectors = SGLANG_CONNECTORS
    connector = "nixl"
    connector_option = "disaggregation_transfer_backend"
    tp_may_be_stage_width = True
    startup_s = 120.0
    """Graph capture "can take up to several minutes" by its own log."""

    package = "sglang"
    host_variable = "SGLANG_HOST_IP"
    http_port = 30000
    ports_apart = 300
    """Each server uses ports up to about 260 above its own (`ZMQ_TCP_PORT_DELTA` is 233)."""
    peer_ports = (DIST_PORT,)
    partition_variable = "SGLANG_PP_LAYER_PARTITION"
    kv_names: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "bf16": ("bf16",),
        "fp8": ("fp8_e4m3",),
        "nvfp4": ("nvfp4", "fp4_e2m1"),
    }
    """Choices of `--kv-cache-dtype`."""
    weight_names: ClassVar[Mapping[str, str]] = {"fp8": "fp8", "mxfp8": "mxfp8", "mxfp4": "mxfp4"}
    speculative_option = "--speculative-algorithm"
    start_options = SGLANG_START

    programs = (("sglang.launch_server",), ("sglang", "serve"), ("sglang_router.launch_server",), ("dynamo.sglang",))
    model_is_positional = False
    abbreviations = True
    config_option = "config"
    config_overrides = False
    config_is_options = True
    length_option = "context_length"
    sequences_option = "max_running_requests"
    tokens_option = "chunked_prefill_size"
    limits_over_ranks = True
    cache_option = "kv_cache_dtype"
    memory_options = ("mem_fraction_static",)
    memory_is_of_everything = False
    shown_options = (
        "tp_size", "pp_size", "attn_dp_size", "dp_size", "attn_cp_size", "ep_size", "moe_a2a_backend",
        "ep_num_redundant_experts", "enable_eplb", "enable_two_batch_overlap", "chunked_prefill_size",
        "max_running_requests", "mem_fraction_static", "context_length", "kv_cache_dtype", "nnodes",
    )  # fmt: skip

    image = "lmsysorg/sglang:v{version}"
    image_tags = "https://hub.docker.com/r/lmsysorg/sglang/tags"
    image_name = "sglang"
    bench_client = "sglang_bench"
    bench_result = "result.jsonl"
    router = SglangRouter()
    dynamo = on_dynamo.SGLANG
    metrics = ServerMetrics(
        title=title,
        prompt=("sglang:prompt_tokens_histogram",),
        output=("sglang:generation_tokens_histogram",),
        ttft_s=("sglang:time_to_first_token_seconds",),
        cache_hits=("sglang:cached_tokens_total",),
        cache_queries=("sglang:prompt_tokens_total",),
        prompt_total=("sglang:prompt_tokens_total",),
        output_total=("sglang:generation_tokens_total",),
        requests_total=("sglang:num_requests_total",),
    )

    def longer_stages(self, pp: int, remainder: int) -> range:
        """The last."""
        return range(pp - remainder, pp)

    def check_nodes(self, service: Service, nodes: int) -> None:
        """Raises `InputError`: `stages_per_node`."""
        pp = service.layout.pp
        if nodes % pp and pp % nodes:
            raise InputError.single(
                "plan",
                "stages_per_node: SGLang gives every node whole pipeline stages or every stage whole nodes: pp must "
                f"divide the nodes of a replica or be a multiple of them, got pp={pp}, nodes={nodes}",
            )

    def command(
        self, service: Service, options: OptionList, place: ReplicaNodes, node_rank: int, port: int
    ) -> tuple[Arg, ...]:
        """`sglang.launch_server` on one node."""
        layout, limits, over_ranks = service.layout, service.limits, "over_attention_dp_ranks"
        line = CommandLine(options).value("model_path", service.model).value("host", ANY_HOST).value("port", port)
        line.value("tp_size", layout.width, meaning="stage_width").value("pp_size", layout.pp)
        if layout.attn_dp > 1:
            _attention_dp(line, layout.attn_dp)
        line.degree("attn_cp_size", layout.attn_cp)
        if layout.attn_cp > 1 and "enable_prefill_cp" in options.options:
            line.flag("enable_prefill_cp").value("cp_strategy", "interleave")
        line.degree("dcp_size", layout.dcp)
        if service.arch.is_moe:
            _experts(line, service, refused=_no_low_latency(service))
        tokens, sequences = limits.max_num_batched_tokens * layout.attn_dp, limits.max_num_seqs * layout.attn_dp
        line.value("chunked_prefill_size", tokens, meaning=over_ranks)
        line.value("max_running_requests", sequences, meaning=over_ranks)
        line.value("mem_fraction_static", limits.static_fraction, meaning="of_total")
        line.value("context_length", limits.max_model_len)
        self.write_dtypes(line, service)
        self.write_code(line, service)
        if not service.cuda_graphs and "cuda_graph_backend_decode" in options.options:
            line.value("cuda_graph_backend_decode", "disabled")
        elif not service.cuda_graphs:
            line.flag("disable_cuda_graph")
        if len(place.nodes) > 1:
            line.value("nnodes", len(place.nodes)).value("node_rank", NodeRank(rank=node_rank))
            line.value("dist_init_addr", NodeHost(node=place.nodes[0], port=DIST_PORT))
        return line.done()

    def environment(self, service: Service) -> Mapping[str, str]:
        """DeepEP's room for tokens, and whole shared experts where they cannot be cut over the stage."""
        tokens, memory = self.low_latency_tokens(service), self.exchange_buffer_bytes(service)
        out = {} if tokens is None else deepep.heap_variables(service.cluster.gpu, memory)
        if tokens is not None and tokens > DISPATCH_TOKENS:
            out[DISPATCH_VARIABLE] = str(tokens)
        if tokens is None and shared.shared_experts_cut(service.arch, np.array([service.layout.width]))[0]:
            out[SHARED_EXPERTS_WHOLE] = "1"
        return out

    def exchange_kernels(self, place: Place, layout: Layout, *, version: str | None, budget: int) -> ExchangeKernels:
        """Both kernels, of which the low-latency ones have room for the sequences of a rank."""
        if _no_deepep(place.arch, version, None) is not None:
            return deepep.NO_KERNELS
        return deepep.kernels_of(place, layout, tokens=DISPATCH_TOKENS, pads=False, throughput=True)

    def shared_expert_shards(self, arch: Arch, layout: Layout, *, routed: bool) -> int:
        """Over the stage; whole with an all-to-all, and where they would not be cut into whole scale blocks."""
        whole = routed or bool(shared.shared_experts_cut(arch, np.array([layout.width]))[0])
        return 1 if whole else layout.width

    def low_latency_tokens(self, service: Service) -> int | None:
        """The sequences of a rank, or DeepEP's usual room where that is more."""
        return None if _no_low_latency(service) is not None else max(service.limits.max_num_seqs, DISPATCH_TOKENS)

    def assumptions(self, service: Service, nodes: int) -> tuple[str, ...]:
        """What the memory fraction is of, that DeepEP is there, and the router's version."""
        limits, gpu, why = service.limits, service.cluster.gpu, _no_low_latency(service)
        memory = (
            f"--mem-fraction-static {limits.static_fraction:g} is weights and KV cache alone; with activations, CUDA "
            f"graphs and buffers beside it the GPU is filled to {limits.gpu_memory_utilization:g}, as scored"
        )
        out = [memory]
        if service.exchange == "routed" and why is not None:
            out.append(
                f"{deepep.SCORED}not by DeepEP ({why}), so that no --moe-a2a-backend is written, which is slower"
            )
        elif service.exchange == "routed":
            out.append(deepep.needed("--moe-a2a-backend deepep", gpu, self.exchange_buffer_bytes(service)))
        if SHARED_EXPERTS_WHOLE in self.environment(service):
            out.append(
                f"{SHARED_EXPERTS_WHOLE}=1 keeps the shared experts whole on every rank: their shards over a stage of "
                f"{service.layout.width} GPUs would not hold whole scale blocks"
            )
        if service.layout.replicas > 1:
            out.append(f"the router's options are those of {self.router.program} {self.router.options().version}")
        return (*out, *cache_words(service.arch, sglang_cache(service.arch, service.version)))

    def layout(self, options: OptionReader, arch: Arch | None, servers: int) -> Layout:
        """TP is the width of a stage; `--dp-size` is attention-DP with the old flag, else replicas."""
        width, pp, cp = options.one("tp_size"), options.one("pp_size"), options.one("attn_cp_size")
        old, copies = options.on("enable_dp_attention"), options.one("dp_size")
        dp = options.one("attn_dp_size") if "attn_dp_size" in options.command.options.options else 1
        if old and dp == 1:
            dp, copies = copies, 1
        ep = options.one("ep_size")
        if options.text("moe_a2a_backend") in SPANNING_EXCHANGES:
            if ep not in (1, width):
                options.assumptions.append(f"--moe-a2a-backend sets EP to the stage's width: {width} instead of {ep}")
            ep = width
        if options.one("moe_dp_size") > 1:
            options.assumptions.append("--moe-dp-size is not modelled and left out")
        is_moe = options.guess_experts(ep > 1 or dp > 1) if arch is None else arch.is_moe
        return Layout(
            replicas=servers * copies,
            pp=pp,
            attn_tp=options.divided(width, dp * cp, "attention-DP x attention-CP must divide --tp-size"),
            attn_dp=dp,
            attn_cp=cp,
            dcp=options.one("dcp_size") if "dcp_size" in options.command.options.options else 1,
            moe_tp=options.divided(width, ep, "--ep-size must divide --tp-size") if is_moe else 1,
            moe_ep=ep if is_moe else 1,
            redundant_experts=options.number("ep_num_redundant_experts", 0, least=0) or 0,
            two_batch_overlap=int(options.on("enable_two_batch_overlap")),
            stage_layers=self.stated_stages(options, pp),
        )

    def same_lengths(self, isl: tuple[int, int], osl: tuple[int, int], prefix_hit_frac: float) -> bool:
        """The client draws no lengths for prompts with a shared prefix."""
        return super().same_lengths(isl, osl, prefix_hit_frac) or prefix_hit_frac > 0.0

    def benchmark(self, service: Service, options: OptionList, drive: Drive) -> BenchCommand:
        """`sglang.bench_serving`."""
        load, assumed = service.load, []
        backend = "sglang-oai" if drive.openai_alone else "sglang"  # SGLang's own API takes prompts as tokens
        line = CommandLine(options).value("backend", backend).value("base_url", drive.base_url)
        line.value("model", service.model)
        prefix, cut = shared_prefix(load)
        if prefix:
            line.value("dataset_name", "generated-shared-prefix").value("gsp_num_groups", 1)
            line.value("gsp_prompts_per_group", drive.prompts).value("gsp_system_prompt_len", prefix)
            line.value("gsp_question_len", middle(load.isl) - prefix).value("gsp_output_len", middle(load.osl))
            if load.isl[0] < load.isl[1] or load.osl[0] < load.osl[1]:
                assumed.append("benchmark: SGLang's client draws no lengths for prompts with a shared prefix")
        else:
            assumed += drawn_lengths(line, load, as_text=drive.openai_alone)
        line.value("num_prompts", drive.prompts).value("warmup_requests", drive.warmups)
        line.value("request_rate" if load.request_rate_per_s is not None else "max_concurrency", drive.load)
        if "ready_check_timeout_sec" in options.options:
            line.value("ready_check_timeout_sec", READY_S)
        same = self.same_lengths(load.isl, load.osl, load.prefix_hit_frac)
        plan, lengths, _ = facts(service, drive, same_lengths=same)
        tag = after(f"{plan};{lengths};autotune_replicas=", drive.replicas)
        line.value("seed", 1).value("tag", tag).value("output_file", drive.result)
        return BenchCommand(argv=line.done(), assumptions=(*cut, *assumed))


def _attention_dp(line: CommandLine, attn_dp: int) -> None:
    """Attention data parallelism, as the version spells it."""
    if "attn_dp_size" in line.options.options:
        line.value("attn_dp_size", attn_dp, meaning="attention_dp")
    else:
        line.value("dp_size", attn_dp, meaning="attention_dp_if_enabled").flag("enable_dp_attention")
    line.flag("enable_dp_lm_head")  # the head is scored as split over attention TP


def _no_low_latency(service: Service) -> str | None:
    if service.exchange != "routed":
        return "low_latency_unscored: the plan was scored without"
    tokens, room_bytes = max(service.limits.max_num_seqs, DISPATCH_TOKENS), service.limits.exchange_room_bytes
    return _no_deepep(service.arch, service.version, service.knobs.weight_dtype) or deepep.refusal(
        service.place, service.layout, tokens=tokens, room_bytes=room_bytes, pads=False
    )


def _no_deepep(arch: Arch, version: str | None, weight_dtype: str | None) -> str | None:
    """Why the engine's class of a model or its experts' dtype take no DeepEP, by the name of a rule."""
    if has("sglang", "no_low_latency_experts", arch, version):
        return f"low_latency_model_class: SGLang's class of {arch.model_type} has none"
    if (weights := weight_dtype or arch.dtypes.experts) in ("bf16", "fp16"):
        return f"low_latency_expert_dtype: SGLang sends no prompts to experts in {weights} by DeepEP"
    return None


def _experts(line: CommandLine, service: Service, *, refused: str | None) -> None:
    """`refused` says why tokens cannot be sent to experts by DeepEP."""
    layout = service.layout
    line.value("ep_size", layout.moe_ep, meaning="expert_parallel")
    cut = shared.shared_experts_cut(service.arch, np.array([layout.width]))[0]
    if refused is None:
        line.value("moe_a2a_backend", "deepep")
    elif cut and not has("sglang", "shared_experts_may_be_whole", service.arch, service.version):
        text = f"shared_expert_shards: without DeepEP ({refused}) this version cuts shared experts into parts of blocks"
        raise InputError.single("plan", text)
    if layout.two_batch_overlap:
        if refused is not None:
            raise InputError.single("plan", f"two_batch_overlap_exchange: SGLang overlaps with DeepEP alone: {refused}")
        line.flag("enable_two_batch_overlap")
    if layout.redundant_experts:
        line.value("ep_num_redundant_experts", layout.redundant_experts).flag("enable_eplb")
    if not shared.dense_shards_whole(service.arch, layout.width):
        line.value("moe_dense_tp_size", 1)


SGLANG = Sglang()
