"""What a server is started with beside its layout, dtypes and limits: whether with graphs, whether it drafts tokens,
and what no formula knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

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
    """Options of one engine that change speed or memory; a dot stands for a field of a field."""

    without_graphs: Mapping[str, Values] = field(default_factory=dict)
    """Option -> values with which decode steps are not replayed as graphs."""
    drafting: tuple[str, ...] = ()
    """Options with which tokens are drafted (speculative decoding)."""
    not_priced: Mapping[str, Values] = field(default_factory=dict)
    """Option that no formula knows -> values."""
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
        return tuple(dict.fromkeys(_counting(command, self.not_priced, without=self.without_graphs).values()))


def _counting(
    command: Command, asked: Mapping[str, Values], without: Mapping[str, Values] = MappingProxyType({})
) -> dict[str, str]:
    """Options of a command, and fields of those, whose value counts, but for those `without`: name -> as written."""
    out: dict[str, str] = {}
    for name, value in _said(command).items():
        key = name if name in asked else name.partition(".")[0]
        if key not in asked or value in without.get(name, _ANY):
            continue
        option = command.options.options.get(name) or command.options.fields.get(name)
        counts = value in asked[key] if asked[key] else value not in _OFF and not _is_default(option, value)
        if counts:
            out[name] = _written(command, name)
    return out


def _said(command: Command) -> dict[str, str]:
    """Every option of a command in small letters, fields of JSON objects one by one."""
    out: dict[str, str] = {}
    for name, value in command.values.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        out |= {key: str(held).lower() for key, held in (_fields(name, text) or {name: text}).items()}
    return out


def _fields(name: str, text: str) -> dict[str, object]:
    """Fields of an option that is a JSON object; none where it is no object, or one that nobody writes."""
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else None
        return flat_fields(found, f"{name}.") if isinstance(found, dict) else {}
    except (ValueError, RecursionError):
        return {}


def _is_default(option: Option | None, value: str) -> bool:
    if option is None or option.default is None:
        return False
    if isinstance(option.default, (int, float)) and not isinstance(option.default, bool):
        try:
            return float(value) == float(option.default)
        except ValueError:
            return False
    return str(option.default).lower() == value


def _written(command: Command, name: str) -> str:
    """An option as commands write it; of a field of a JSON object the whole option."""
    stem = name if name in command.values else name.partition(".")[0]
    option, value = command.options.options.get(stem), command.values[stem]
    flag = stem if option is None else option.flags[0]
    if isinstance(value, bool) and option is not None and option.kind == "flag":
        return flag if value else command.turned_off.get(stem, f"{stem} {value}")
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{flag} {text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + '…'}"


_WIDE = ("float32", "float")
"""Values of `--dtype` with which everything takes 32 bits."""
_FORMATS = ("bitsandbytes", "gguf")
"""Values of `--load-format` that quantise weights, or read others than the checkpoint's own."""

VLLM_START = StartOptions(
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
                "disable_hybrid_kv_cache_manager", "hf_overrides", "quantization_config",
            ),
            _ANY,
        ),
        "kv_transfer_config.kv_connector": ("lmcacheconnectorv1", "lmcachempconnector", "offloadingconnector"),
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
SGLANG_START = StartOptions(
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
                "json_model_override_args",
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
                "force_dynamic_quantization",
            ),
            _ANY,
        ),
        "kv_cache_config.enable_block_reuse": ("false",),
        "backend": ("tensorrt", "trt", "_autodeploy"),
        "dtype": _WIDE,
        "scheduler_config.capacity_scheduler_policy": ("max_utilization", "static_batch"),
        "enable_chunked_prefill": ("false",),
    },
)  # fmt: skip
