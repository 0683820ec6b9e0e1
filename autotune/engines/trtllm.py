"""TensorRT-LLM: one `trtllm-serve` per replica with a file of the LLM API; over several nodes, MPI starts it.

Parallel arithmetic (tensorrt_llm/mapping.py, llmapi/llm_args.py): `tensor_parallel_size` is the width W of a stage,
`moe_tensor_parallel_size x moe_expert_parallel_size = W`, attention-DP takes the whole stage. The KV fraction is of the
memory that is *free* after weights and activations. Batch size and token budget are those of one rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from autotune.engines import dynamo as on_dynamo
from autotune.engines import layout_rules as shared
from autotune.engines.bench_serve import bench_serve
from autotune.engines.benchmark import BenchCommand, Drive
from autotune.engines.cache_rules import TRTLLM_CACHE, cache_words
from autotune.engines.class_rules import model_class
from autotune.engines.command_line import Arg, CommandLine, FilePath, HostSlots
from autotune.engines.dtype_facts import Place
from autotune.engines.engine import ANY_HOST, Engine
from autotune.engines.layout_rules import Rule
from autotune.engines.option_reader import OptionReader
from autotune.engines.options import OptionList
from autotune.engines.service import Service
from autotune.engines.start_options import TRTLLM_START
from autotune.engines.surroundings import ReplicaNodes, ServerMetrics
from autotune.engines.vllm import VLLM
from costmodel.arch import Arch, stored_dtypes
from costmodel.dtypes import hardware_dtype, storage
from costmodel.engine import CacheDtype, CacheRule, EngineTraits
from costmodel.hardware import Gpu
from costmodel.plan.layout import Layout

CONFIG = "llm_api.yaml"
NATIVE_ONLY = frozenset(("fp8", "fp8_block", "mxfp8", "nvfp4"))
"""Weights that it multiplies in their own dtype or not at all (its support matrix: FP8 from Ada on, NVFP4 from
Blackwell on). MXFP4 it widens on Hopper, for gpt-oss."""


class Trtllm(Engine):
    """TensorRT-LLM."""

    traits = EngineTraits(
        name="trtllm",
        calibration="trtllm",
        stages_strided=False,
        kv_fraction_is_of_free=True,
        reserves_whole_output=True,  # GUARANTEED_NO_EVICT, its default
        prompts_ride_on_decode_steps=True,
        captured_prompt_tokens=0,
        quantised_cache=CacheDtype.FP8,
    )
    title = "TensorRT-LLM"
    other_names = ("tensorrt", "trt")
    rules = (
        model_class("trtllm"),
        shared.STAGES_HAVE_LAYERS,  # tensorrt_llm/_torch/models/modeling_utils.py cuts any `DecoderModel` into stages
        shared.DENSE_HAS_NO_EXPERTS,
        shared.ATTENTION_HEADS,
        shared.KV_HEADS,
        shared.LINEAR_ATTENTION_HEADS,
        Rule(
            name="attention_dp_all_or_nothing",
            text="TensorRT-LLM's attention-DP takes all ranks of a stage: attn_dp must be 1 or attn_tp * attn_dp",
            fields=("attn_tp", "attn_dp"),
            broken=lambda _, c: (c.attn_dp > 1) & (c.attn_dp != c.width),
        ),
        shared.ENOUGH_EXPERTS,
        shared.EXPERTS_DIVISIBLE,
        shared.REDUNDANT_EXPERTS_NEED_EP,
        shared.NO_TWO_BATCH_OVERLAP,
        shared.EXPERT_SHARDS,
        shared.EXPERT_BLOCKS,
        shared.DENSE_MODEL_SHARDS,  # of mixtures of experts attention-DP keeps dense layers whole
        shared.EXPERT_MODEL_INTEGER_GROUPS,
        Rule(
            name="context_parallel_support",
            text="TensorRT-LLM's context parallelism is not modelled: attn_cp must be 1",
            fields=("attn_cp",),
            broken=lambda _, c: c.attn_cp > 1,
        ),
        shared.NO_DECODE_CONTEXT_PARALLEL,
    )
    tp_may_be_stage_width = True
    decode_pool_prefills = "cached"  # openai_disagg_service.py, and Dynamo's router
    attention_dp_measured: ClassVar[bool] = True  # nine runs
    quick_experts: ClassVar[Mapping[str, str]] = {
        "mxfp4": "moe_config.backend TRTLLM",
        "nvfp4": "moe_config.backend TRTLLM",
    }
    """What InferenceMAX's launch scripts set on B200."""
    startup_s = 180.0
    """Assumed: no public figure found."""

    package = "tensorrt_llm"
    http_port = 8000
    process_per_node = False
    kv_names: ClassVar[Mapping[str, tuple[str, ...]]] = {"fp8": ("fp8",), "nvfp4": ("nvfp4",)}
    """`sync_quant_config_with_kv_cache_config_dtype` of llm_args.py."""
    weight_names: ClassVar[Mapping[str, str]] = {}
    speculative_option = "speculative_config"
    start_options = TRTLLM_START

    programs = (("trtllm-serve",), ("trtllm-serve", "serve"), ("dynamo.trtllm",))
    other_spellings: ClassVar[Mapping[str, str]] = {
        "--extra-engine-args": "--extra_llm_api_options",
        "--expert-parallel-size": "--ep_size",
        "--free-gpu-memory-fraction": "--kv_cache_free_gpu_memory_fraction",
    }
    python_package = "tensorrt_llm"
    config_option = "extra_llm_api_options"
    config_tables = (
        "kv_cache_config", "moe_config", "cuda_graph_config", "scheduler_config", "attention_dp_config",
        "cache_transceiver_config", "speculative_config",
    )  # fmt: skip
    length_option = "max_seq_len"
    sequences_option = "max_batch_size"
    tokens_option = "max_num_tokens"
    cache_option = "kv_cache_config.dtype"
    memory_options = ("kv_cache_config.free_gpu_memory_fraction", "free_gpu_memory_fraction")
    memory_is_of_everything = False
    shown_options = (
        "tensor_parallel_size", "pipeline_parallel_size", "moe_expert_parallel_size", "max_batch_size",
        "max_num_tokens", "max_seq_len", "free_gpu_memory_fraction", "enable_chunked_prefill", "backend",
    )  # fmt: skip

    image = "nvcr.io/nvidia/tensorrt-llm/release:{version}"
    rank_launcher = "trtllm-llmapi-launch"
    image_tags = "https://catalog.ngc.nvidia.com/orgs/nvidia/teams/tensorrt-llm/containers/release/tags"
    image_name = "tensorrt-llm/release"
    bench_client = VLLM.bench_client  # its server speaks OpenAI's API, as vLLM's client does
    bench_result = VLLM.bench_result
    dynamo = on_dynamo.TRTLLM
    metrics = ServerMetrics(
        title=title,
        ttft_s=("trtllm_time_to_first_token_seconds",),
        cache_hits=("trtllm_prompt_cached_tokens_total",),
        cache_queries=("trtllm_prompt_tokens_total",),
        prompt_total=("trtllm_prompt_tokens_total",),
        output_total=("trtllm_generation_tokens_total",),
        requests_total=("trtllm_request_success_total",),
    )

    def longer_stages(self, pp: int, remainder: int) -> range:
        """The first."""
        return range(remainder)

    def reads_no(self, dtype: str, place: Place, version: str | None) -> str | None:
        """Also weights of a dtype that the GPU does not multiply in, where there is no kernel that widens them."""
        base = storage(dtype).base
        if base in NATIVE_ONLY and hardware_dtype(base) not in place.gpu.peak_flops_per_s:
            return f"{self.title} has no native kernels for {dtype} weights on {place.gpu.generation} GPUs"
        return super().reads_no(dtype, place, version)

    def unchecked(self, arch: Arch, weight: str | None) -> tuple[str, ...]:
        """Integers are read as ModelOpt packs them: llmapi/llm_utils.py of 1.1 raises "Unsupported quantization_config"
        for all but FP8 blocks and MXFP4, and 1.2.1 does so for compressed-tensors.
        """
        said = []
        if not arch.model_type:
            said.append("model: it says no model_type, so that whether TensorRT-LLM has a class for it is not checked")
        if any(dtype.startswith("int") for dtype in stored_dtypes(arch, weight)):
            said.append(
                "TensorRT-LLM reads integer weights as ModelOpt packs them (hf_quant_config.json): whether this one "
                "is packed so is not checked; the quantization_config of GPTQ, AWQ or others may be refused"
            )
        return tuple(said)

    def cannot_run(
        self,
        arch: Arch,
        gpu: Gpu,
        weights: Sequence[str | None],
        caches: Sequence[str | None] = (None,),
        version: str | None = None,
    ) -> str | None:
        """Also on other GPUs than NVIDIA's."""
        if gpu.generation.startswith("cdna"):
            return "TensorRT-LLM runs on NVIDIA GPUs only"
        return super().cannot_run(arch, gpu, weights, caches, version)

    def cache_rule(self, arch: Arch, version: str | None) -> CacheRule:
        """Every layer keeps the whole context."""
        return TRTLLM_CACHE

    def expert_shard(self, layout: Layout, place: int) -> tuple[int, int]:
        """The experts of one shard are neighbours (`mapping.py`)."""
        moe_tp, moe_ep = divmod(place, layout.moe_ep)
        return moe_ep, moe_tp

    def command(
        self, service: Service, options: OptionList, place: ReplicaNodes, node_rank: int, port: int
    ) -> tuple[Arg, ...]:
        """`trtllm-serve` on the head; over several nodes under MPI, which starts a rank per GPU."""
        limits = service.limits
        line = CommandLine(options).positional(service.model).value("host", ANY_HOST).value("port", port)
        line.value("backend", "pytorch")
        # also on the command line: the server sizes its buffers by these before it reads the file
        line.value("max_batch_size", limits.max_num_seqs, meaning="per_attention_dp_rank")
        line.value("max_num_tokens", limits.max_num_batched_tokens, meaning="per_attention_dp_rank")
        line.value("max_seq_len", limits.max_model_len).value(self.config_option, FilePath(name=CONFIG))
        self.write_code(line, service)
        if len(place.nodes) == 1:
            return line.done()
        ranks, hosts = len(place.gpus) * len(place.nodes), HostSlots(nodes=place.nodes, slots=len(place.gpus))
        return ("mpirun", "-n", str(ranks), "--host", hosts, self.rank_launcher, *line.done())

    def files(self, service: Service, options: OptionList) -> Mapping[str, Mapping[str, Any]]:
        """The LLM-API file."""
        layout, limits = service.layout, service.limits

        def field(name: str, meaning: str | None = None) -> str:
            return options.require(name, meaning=meaning, in_file=True).name.rpartition(".")[2]

        out: dict[str, Any] = {
            field("tensor_parallel_size", "stage_width"): layout.width,
            field("pipeline_parallel_size"): layout.pp,
        }
        if service.arch.is_moe:
            out[field("moe_tensor_parallel_size", "moe_tp")] = layout.moe_tp
            out[field("moe_expert_parallel_size", "expert_parallel")] = layout.moe_ep
        out[field("enable_attention_dp", "whole_stage")] = layout.attn_dp > 1
        stages = layout.stage_layers
        own = stages == self.split_layers(sum(stages), layout.pp)
        if len(set(stages)) > 1 and ("pp_partition" in options.fields or not own):
            out[field("pp_partition")] = list(stages)
        if layout.pp * layout.width > service.cluster.gpus_per_node:
            out[field("gpus_per_node")] = service.cluster.gpus_per_node
        out[field("max_batch_size", "per_attention_dp_rank")] = limits.max_num_seqs
        out[field("max_num_tokens", "per_attention_dp_rank")] = limits.max_num_batched_tokens
        out[field("max_seq_len")] = limits.max_model_len
        out[field("enable_chunked_prefill")] = True
        kv: dict[str, Any] = {field("kv_cache_config.free_gpu_memory_fraction", "of_free"): limits.kv_free_fraction}
        if (cache := self.cache_value(service)) is not None:
            kv[field("kv_cache_config.dtype")] = cache
        out[field("kv_cache_config")] = kv
        self.weight_name(service)  # refused where the checkpoint does not have them: none are made when it is loaded
        graphs = {
            field("cuda_graph_config.enable_padding"): True,
            field("cuda_graph_config.max_batch_size"): limits.max_num_seqs,
        }
        out[field("cuda_graph_config")] = graphs if service.cuda_graphs else None
        if layout.redundant_experts:
            slots = service.arch.num_experts + layout.redundant_experts
            balancer = {"num_slots": slots, "layer_updates_per_iter": 1}
            out[field("moe_config")] = {field("moe_config.load_balancer"): balancer}
        return {CONFIG: out}

    def assumptions(self, service: Service, nodes: int) -> tuple[str, ...]:
        """What the memory fraction is of, and how MPI reaches other nodes."""
        limits = service.limits
        fraction = (
            f"free_gpu_memory_fraction {limits.kv_free_fraction:g} is of what weights and activations leave free, by "
            f"the memory model: {limits.kv_room_bytes / 2**30:.1f} GiB of KV cache on the fullest GPU"
        )
        ssh = (
            "MPI starts the ranks of other nodes: scripts need ssh without a password from each replica's first node, "
            "which Dynamo's operator sets up by itself"
        )
        packed = (*cache_words(service.arch, TRTLLM_CACHE), *self.unchecked(service.arch, service.knobs.weight_dtype))
        return (fraction, ssh, *packed) if nodes > 1 else (fraction, *packed)

    def config_values(self, table: Mapping[Any, Any]) -> dict[str, Any]:
        """Of an empty `cuda_graph_config` it is said that it is: no graphs are captured then."""
        graphs = {"cuda_graph_config": "null"} if table.get("cuda_graph_config", 0) is None else {}
        return super().config_values(table) | graphs

    def layout(self, options: OptionReader, arch: Arch | None, servers: int) -> Layout:
        """TP is the width of a stage, attention-DP takes all of it."""
        width, pp = options.one("tensor_parallel_size"), options.one("pipeline_parallel_size")
        attention_dp = options.on("enable_attention_dp")
        ep, tp = options.number("moe_expert_parallel_size"), options.number("moe_tensor_parallel_size")
        guess = (ep or 1) > 1 or (tp or 1) > 1 or attention_dp
        is_moe = options.guess_experts(guess) if arch is None else arch.is_moe
        if ep is None:
            what = "moe_tensor_parallel_size must divide the tensor parallel size"
            ep = options.divided(width, tp, what) if tp else 1
        return Layout(
            replicas=servers,
            pp=pp,
            attn_tp=1 if attention_dp else width,
            attn_dp=width if attention_dp else 1,
            attn_cp=options.one("context_parallel_size"),
            moe_tp=options.divided(width, ep, "the expert parallel size must divide the tensor one") if is_moe else 1,
            moe_ep=ep if is_moe else 1,
            redundant_experts=_redundant_experts(options, arch),
            stage_layers=options.stages(options.text("pp_partition"), pp),
        )

    def benchmark(self, service: Service, options: OptionList, drive: Drive) -> BenchCommand:
        """vLLM's client."""
        made = bench_serve(self, service, options, drive, backend="openai")
        client = f"measured with vLLM's client ({options.command}, {options.version}) over OpenAI's API"
        return replace(made, assumptions=(*made.assumptions, client))

    def bench_options(self, version: str) -> OptionList:
        """Options of vLLM's newest client."""
        return VLLM.bench_options(VLLM.versions()[0])

    def bench_image(self) -> str | None:
        """vLLM's newest."""
        return VLLM.image.format(version=VLLM.versions()[0])


def _redundant_experts(options: OptionReader, arch: Arch | None) -> int:
    slots = options.number("moe_config.load_balancer.num_slots")
    if slots is None:
        return 0
    if arch is None:
        options.assumptions.append("model not known: how many of the expert slots are redundant is left open, 0 taken")
        return 0
    return max(slots - arch.num_experts, 0)


TRTLLM = Trtllm()
