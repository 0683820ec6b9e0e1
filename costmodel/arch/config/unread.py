"""Fields of a config.json that cost nothing, as a list; whatever is not on it and not read is said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from costmodel.arch.config.fields import Fields

_LIST = files("costmodel.arch.config") / "harmless_fields.txt"
_SIZES = (
    r"(?:.*_)?(?:num|n|heads?|layers?|experts?|hidden|intermediate|width|dims?|rank|size|blocks?|window|groups?|kv|state"
    r"|lora|depth|period|interval|freq|frequency|every|pattern|streams?|banks?|memory|ratios?|stride|kernel)(?:_.*)?$"
)
"""Words of names that mostly are sizes."""
_LEFT_WITHOUT_MEANING = frozenset(
    (
        "attention_chunk_size", "attn_type_list", "hybrid_layer_pattern", "linear_attn_config",
        "linear_conv_kernel_dim", "linear_head_dim", "linear_num_heads", "n_routed_experts",
        "num_sliding_attention_heads", "attn_config", "attn_layer_offset", "attn_layer_period", "cla_share_factor",
        "compress_rates", "decoder_sparse_step", "dense_intermediate_size", "expert_layer_offset",
        "expert_layer_period", "ffn_config", "first_k_dense_replace", "full_attention_interval", "global_attn_every_n",
        "global_attn_every_n_layers", "global_head_dim", "head_dim", "hybrid_override_pattern", "index_block_size",
        "index_head_dim", "index_n_heads", "index_topk_blocks", "index_skip_topk_offset", "index_topk_freq",
        "index_topk_pattern", "interleave_moe_layer_step", "intermediate_size", "intermediate_size_mlp",
        "layer_group_size", "layers_block_type", "mamba_expand", "expand", "max_window_layers", "mlp_only_layers",
        "moe_intermediate_size", "moe_layer_end_index", "moe_layer_freq", "moe_layer_frequency", "moe_layer_interval",
        "moe_layer_start_index", "moe_layers", "moe_layers_enum", "moe_shared_expert_intermediate_size", "moe_topk",
        "num_attention_heads", "num_attention_heads_per_layer", "num_expert_layers", "num_experts_per_tok",
        "num_global_key_value_heads", "num_heads", "num_key_value_heads", "num_kv_heads", "num_shared_expert",
        "num_shared_experts", "n_shared_experts", "padded_vocab_size", "q_lora_rank", "qk_head_dim",
        "shared_intermediate_size", "short_conv_kernel_size", "sliding_window", "sliding_window_pattern",
        "sliding_window_size", "sparse_disable_index_value", "swa_head_dim", "swa_num_attention_heads",
        "swa_num_key_value_heads", "swa_v_head_dim", "use_sliding_window", "v_head_dim",
    )
)  # fmt: skip
"""Sizes that other fields of the same file may leave without a meaning: of a kind of layer that it has none of, or said
twice. The readers of each kind ask for them where it is there."""


@lru_cache(maxsize=1)
def _harmless() -> re.Pattern[str]:
    """Names of training, generation, tokens, positions, activations, scales, routing and other towers."""
    lines = [line.strip() for line in _LIST.read_text(encoding="utf-8").splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    # what speaks of a size is harmless only where it is named in full, or belongs to a part that is not served (!)
    named = [e.removeprefix("!") for e in entries if e.startswith("!") or re.fullmatch(r"[A-Za-z0-9_]+", e)]
    others = [e for e in entries if not e.startswith("!")]
    return re.compile(f"{'|'.join(named)}|(?!{_SIZES})(?:{'|'.join(others)})")


def unread(fields: Fields) -> dict[str, object]:
    """Fields that ask for something (not null, false, 0 or empty) and that nothing has read."""
    return {
        name: value
        for name, value in fields.values.items()
        if name not in fields.read | _LEFT_WITHOUT_MEANING
        and not _asks_nothing(value)
        and not _harmless().fullmatch(name)
    }


def unread_settings(quant: Fields) -> dict[str, object]:
    """The same of a table of quantisation: path below the model's fields -> value."""
    groups = quant.values.get("config_groups")
    named = {f"config_groups.{name}.": group for name, group in groups.items()} if isinstance(groups, Mapping) else {}
    return {
        f"quantization_config.{name}": value
        for name, value in quant.values.items()
        if name not in quant.read and not _asks_nothing(value) and not _harmless_settings().fullmatch(name)
    } | {
        f"quantization_config.{path}format": table["format"]
        for path, table in {"": quant.values, **named}.items()
        if isinstance(table, Mapping) and table.get("format") in _SPARSE
    }


_SPARSE = ("marlin-24",)
"""Formats of compressed-tensors that keep half of the weights, and where they lie; others say so in a table."""


@lru_cache(maxsize=1)
def _harmless_settings() -> re.Pattern[str]:
    lines = (files("costmodel.arch.config") / "harmless_settings.txt").read_text(encoding="utf-8").splitlines()
    return re.compile("|".join(line.strip() for line in lines if line.strip() and not line.startswith("#")))


def _asks_nothing(value: object) -> bool:
    return value in (None, False, 0, "", "none", "default") or value in ([], {})
