"""What a server is started with beside its layout, dtypes and limits: whether with graphs, whether it drafts tokens,
and what no formula knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from autotune.engines.option_reader import Command
from autotune.engines.options import Option, flat_fields

Values = tuple[str, ...]
"""Values of an option that count, in small letters; none listed: any but its default and what turns it off."""
_OFF = ("", "0", "false", "none", "null")
_ANY: Values = ()
_MOST_SHOWN = 80
"""Characters of a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """Options of one engine that change speed or memory; a dot stands for a field of a field, a star for anything."""

    without_graphs: Mapping[str, Values] = field(default_factory=dict)
    """Option -> values with which decode steps are not replayed as graphs."""
    drafting: tuple[str, ...] = ()
    """Options with which tokens are drafted (speculative decoding)."""
    not_priced: Mapping[str, Values] = field(default_factory=dict)
    """Option that no formula knows -> values."""
    of_prefill: tuple[str, ...] = ()
    """Those of `not_priced` that servers of a prefill pool are always started with."""
    variables: tuple[str, ...] = ()
    """Beginnings of environment variables, of which those that choose kernels are known by no formula."""
    own_variables: tuple[str, ...] = ()
    """Those of them that exports set, or settings of them (`NAME=VALUE`) that are priced."""
    without_tokens: Mapping[str, Values] = field(default_factory=dict)
    """Option -> values with which a server answers with embeddings, classes or scores and generates nothing."""

    def captures_graphs(self, command: Command) -> bool:
        """Whether decode steps are replayed as graphs."""
        return not _counting(command, self.without_graphs)

    def drafts(self, command: Command) -> str:
        """How it is told to draft tokens, as it was written; empty: it drafts none."""
        return next(iter(_counting(command, dict.fromkeys(self.drafting, _ANY)).values()), "")

    def generates_nothing(self, command: Command) -> tuple[str, ...]:
        """What makes it a server that generates no tokens, as it was written; empty: it generates them."""
        return tuple(_counting(command, self.without_tokens).values())

    def left_out(self, command: Command) -> tuple[str, ...]:
        """What it is started with that no formula knows, as it was written."""
        told = _counting(command, self.not_priced, without=self.without_graphs).values()
        return tuple(dict.fromkeys((*told, *self._of_kernels(command.env))))

    def _of_kernels(self, env: Mapping[str, str]) -> Iterator[str]:
        """Settings in the environment that choose kernels."""
        for name, value in env.items():
            begins = next((begin for begin in self.variables if name.startswith(begin)), None)
            rest, setting = "" if begins is None else name.removeprefix(begins), f"{name}={value}"
            own = name in self.own_variables or setting in self.own_variables
            if value and not own and _KERNELS.search(rest) and not _WATCHED.search(rest):
                yield setting if len(setting) <= _MOST_SHOWN else setting[: _MOST_SHOWN - 1] + "…"


_KERNELS = re.compile(
    "KERNEL|GEMM|CUTLASS|CUDNN|MARLIN|TRITON|FLASHINFER|FLASH_ATTN|ATTENTION|MLA_|TRTLLM|DEEPEP|ALL2ALL|ALLTOALL|"
    "ALLREDUCE|SYMM_MEM|MOE_|FP4|FP8|KV_CACHE_LAYOUT|USE_V1|ENABLE_PDL"
)
"""Within the names of variables by which engines choose kernels (vLLM, envs.py; SGLang, environ.py)."""
_WATCHED = re.compile("TRACE|DEBUG|_LOG_|TIMEOUT")
"""Within the names of others, which are about the same kernels."""


def _counting(
    command: Command, asked: Mapping[str, Values], without: Mapping[str, Values] = MappingProxyType({})
) -> dict[str, str]:
    """Options of a command, and fields of those, whose value counts, but for those `without`: name -> as written."""
    out: dict[str, str] = {}
    for name, told in _said(command).items():
        key, value = _asked(name, asked), told.lower()
        if key is None or value in without.get(name, _ANY):
            continue
        option = command.options.options.get(name) or command.options.fields.get(name)
        counts = value in asked[key] if asked[key] else value not in _OFF and not _is_default(option, value)
        if counts:
            out[name] = _written(command, name, told if "." in key else None)
    return out


def _asked(name: str, asked: Mapping[str, Values]) -> str | None:
    """What is asked of an option or a field: itself, what has a star for it, or the option that it is a field of."""
    stars = (key for key in asked if "*" in key and fnmatchcase(name, key))
    found = name if name in asked else next(stars, name.partition(".")[0])
    return found if found in asked else None


def _said(command: Command) -> dict[str, str]:
    """Every option of a command, fields of JSON objects one by one."""
    out: dict[str, str] = {}
    for name, value in command.values.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        out |= {key: str(held) for key, held in (_fields(name, text) or {name: text}).items()}
    return out


def _fields(name: str, text: str) -> dict[str, object]:
    """Fields of an option that is a JSON object; none where it is no object, or one that nobody writes."""
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else None
        return flat_fields(_by_place(found), f"{name}.") if isinstance(found, dict) else {}
    except (ValueError, RecursionError):
        return {}


def _by_place(value: Any) -> Any:
    """Tables whose lists of tables are tables too: place -> entry."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    return {key: _by_place(held) for key, held in value.items()} if isinstance(value, dict) else value


def _is_default(option: Option | None, value: str) -> bool:
    if option is None or option.default is None:
        return False
    if isinstance(option.default, (int, float)) and not isinstance(option.default, bool):
        try:
            return float(value) == float(option.default)
        except ValueError:
            return False
    return str(option.default).lower() == value


def _written(command: Command, name: str, told: str | None) -> str:
    """An option as commands write it; of a field of a JSON object the whole option, or where that is long and the
    field alone counts, which is `told` so, this.
    """
    stem = name if name in command.values else name.partition(".")[0]
    option, value = command.options.options.get(stem), command.values[stem]
    flag = stem if option is None else option.flags[0]
    if isinstance(value, bool) and option is not None and option.kind == "flag":
        return flag if value else command.turned_off.get(stem, f"{stem} {value}")
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    if len(text) > _MOST_SHOWN and told is not None and stem != name:
        flag, text = f"{flag}{name.removeprefix(stem)}", told
    return f"{flag} {text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + '…'}"


_WIDE = ("float32", "float")
"""Values of `--dtype` with which everything takes 32 bits."""
_FORMATS = ("bitsandbytes", "gguf")
"""Values of `--load-format` that quantise weights, or read others than the checkpoint's own."""

_STORES = (
    "lmcacheconnectorv1", "lmcachempconnector", "offloadingconnector", "simplecpuoffloadconnector",
    "mooncakestoreconnector", "flexkvconnectorv1", "hf3fskvconnector",
)  # fmt: skip
"""Connectors of vLLM that keep caches elsewhere than on GPUs, in small letters (kv_connector/factory.py)."""

VLLM_START = StartOptions(
    variables=("VLLM_",),
    without_graphs={
        "enforce_eager": ("true",),
        "optimization_level": ("0",),
        "compilation_config.cudagraph_mode": ("none", "0"),
    },
    drafting=("speculative_config", "spec_method", "spec_model"),
    not_priced={
        **dict.fromkeys(
            (
                "num_gpu_blocks_override", "kv_cache_memory_bytes", "cpu_offload_gb", "offload_backend",
                "offload_group_size", "kv_offloading_size", "kv_sharing_fast_prefill", "enable_lora",
                "long_prefill_token_threshold", "max_num_active_seqs", "max_num_scheduled_tokens",
                "prefill_schedule_interval", "scheduler_cls", "compilation_config", "cudagraph_capture_sizes",
                "max_cudagraph_capture_size", "attention_backend", "moe_backend", "linear_backend", "kernel_config",
                "performance_mode", "disable_custom_all_reduce", "disable_sliding_window",
                "disable_hybrid_kv_cache_manager", "hf_overrides", "quantization_config", "attention_config",
                "block_size", "kv_cache_dtype_skip_layers", "mamba_cache_dtype", "mamba_ssm_cache_dtype",
                "mamba_cache_mode", "mamba_block_size", "mamba_backend", "use_replayssm", "gdn_prefill_backend",
                "kda_prefill_backend", "kda_decode_backend", "sparse_indexer_topk_backend", "disable_cascade_attn",
                "watermark", "watermark_config", "ubatch_size", "dcp_q_replicate", "enable_hc_sp",
            ),
            _ANY,
        ),
        "kv_transfer_config.*kv_connector": _STORES,
        "enable_flashinfer_autotune": ("false",),
        "scheduler_reserve_full_isl": ("false",),
        "enable_prefix_caching": ("false",),
        "enable_chunked_prefill": ("false",),
        "async_scheduling": ("false",),
        "dtype": _WIDE,
        "load_format": _FORMATS,
        "model_impl": ("transformers",),
    },
    without_tokens={
        "runner": ("pooling", "draft"),
        "convert": ("embed", "classify", "reward"),
        "task": ("embed", "embedding", "classify", "score", "reward"),
    },
)  # fmt: skip
DISPATCH_VARIABLE = "SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK"
"""Tokens that a rank may send to experts in a step, of SGLang."""
SGLANG_START = StartOptions(
    variables=("SGLANG_", "SGL_"),
    own_variables=(DISPATCH_VARIABLE,),
    without_graphs={
        "disable_cuda_graph": ("true",),
        "disable_decode_cuda_graph": ("true",),
        "cuda_graph_backend_decode": ("disabled",),
    },
    drafting=("speculative_algorithm",),
    not_priced={
        **dict.fromkeys(
            (
                "disable_radix_cache", "torchao_config", "modelopt_quant", "quantize_and_serve", "max_total_tokens",
                "cpu_offload_gb", "offload_group_size", "enable_hierarchical_cache", "enable_lmcache", "enable_flexkv",
                "enable_hisparse", "enable_lora", "lora_paths", "max_prefill_tokens",
                "prefill_max_requests", "enable_mixed_chunk", "enable_dynamic_chunking", "enable_pdmux",
                "schedule_conservativeness", "num_continuous_decode_steps", "scheduler_recv_interval",
                "disable_overlap_schedule", "enable_single_batch_overlap", "cuda_graph_bs", "cuda_graph_max_bs",
                "cuda_graph_bs_decode", "cuda_graph_max_bs_decode", "cuda_graph_config", "attention_backend",
                "prefill_attention_backend", "decode_attention_backend", "moe_runner_backend",
                "fp8_gemm_runner_backend", "fp4_gemm_runner_backend", "disable_custom_all_reduce",
                "enable_torch_compile", "enable_deterministic_inference", "pp_max_micro_batch_size", "kt_method",
                "json_model_override_args", "disable_hybrid_swa_memory", "swa_full_tokens_ratio",
                "mamba_full_memory_ratio", "max_mamba_cache_size", "mamba_ssm_dtype", "mamba_backend",
                "mamba_radix_cache_strategy",
                "mamba_scheduler_strategy", "linear_attn_backend", "linear_attn_decode_backend",
                "linear_attn_prefill_backend", "page_size", "radix_cache_backend", "disable_chunked_prefix_cache",
                "prefill_kv_cache_dequant_dtype", "enable_kv_cache_sharding", "enable_symm_mem",
                "enable_torch_symm_mem", "enable_nccl_nvls", "enable_mscclpp", "enable_flashinfer_allreduce_fusion",
                "enforce_disable_flashinfer_allreduce_fusion", "flashinfer_allreduce_fusion_backend",
                "enable_nvidia_megakernel", "enable_w4a4_mxfp4_megamoe", "enable_deepseek_v4_fp4_indexer",
                "disable_shared_experts_fusion", "enforce_shared_experts_fusion", "flashinfer_mxfp4_moe_precision",
                "disable_flashinfer_cutlass_moe_fp4_allgather", "bf16_gemm_backend", "nsa_decode_backend",
                "nsa_prefill_backend", "dsa_decode_backend", "dsa_prefill_backend", "dsv4_attn_backend",
                "dsv4_prefill_backend",
            ),
            _ANY,
        ),
        "dtype": _WIDE,
        "load_format": _FORMATS,
        "model_impl": ("transformers",),
    },
    without_tokens={"is_embedding": ("true",), "encoder_only": ("true",)},
)  # fmt: skip
TRTLLM_START = StartOptions(
    of_prefill=("disable_overlap_scheduler",),  # context servers do not support it (docs, disaggregated serving)
    variables=("TRTLLM_", "TLLM_"),
    without_graphs={"cuda_graph_config": ("null", "none")},
    drafting=("speculative_config",),
    not_priced={
        **dict.fromkeys(
            (
                "kv_cache_config.max_tokens", "kv_cache_config.max_gpu_total_bytes", "kv_cache_config.host_cache_size",
                "kv_cache_config.max_attention_window", "kv_connector_config", "sparse_attention_config",
                "attention_dp_config.enable_balance", "batch_wait_timeout_iters", "batch_wait_timeout_ms",
                "cuda_graph_config.batch_sizes", "attn_backend", "moe_config.backend", "moe_config.max_num_tokens",
                "disable_overlap_scheduler", "torch_compile_config", "enable_lora", "lora_config",
                "force_dynamic_quantization", "max_beam_width", "allreduce_strategy", "enable_min_latency",
                "moe_config.use_low_precision_moe_combine", "moe_config.disable_finalize_fusion",
                "moe_config.load_balancer", "kv_cache_config.tokens_per_block", "kv_cache_config.sink_token_length",
                "kv_cache_config.use_uvm", "kv_cache_config.mamba_ssm_cache_dtype", "enable_lm_head_tp_in_adp",
                "batch_wait_max_tokens_ratio", "nvfp4_gemm_config",
            ),
            _ANY,
        ),
        "enable_autotuner": ("false",),
        "kv_cache_config.enable_partial_reuse": ("false",),
        "kv_cache_config.enable_block_reuse": ("false",),
        "backend": ("tensorrt", "trt", "_autodeploy"),
        "dtype": _WIDE,
        "scheduler_config.capacity_scheduler_policy": ("max_utilization", "static_batch"),
        "enable_chunked_prefill": ("false",),
    },
)  # fmt: skip
