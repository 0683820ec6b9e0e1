"""Mistral's own params.json, said in the names of config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tied_embeddings": "tie_word_embeddings",
    "quantization": "quantization_config",
}
_EXPERTS = {
    "num_experts": "num_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "expert_hidden_dim": "moe_intermediate_size",
    "num_shared_experts": "n_shared_experts",
    "first_k_dense_replace": "first_k_dense_replace",
    "num_expert_groups": "n_group",
    "num_expert_groups_per_tok": "topk_group",
    "routed_scale": "routed_scaling_factor",
}


def is_params(config: Mapping[str, Any]) -> bool:
    """Whether a file is a params.json and not a config.json."""
    return {"dim", "n_layers", "n_heads"} <= config.keys() and "model_type" not in config


def as_config(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same model as a config.json says it."""
    out: dict[str, Any] = {"model_type": "mistral", "tie_word_embeddings": False, "dtype": "bfloat16"}
    out |= {_NAMES.get(n) or n: value for n, value in params.items() if n not in ("moe", "vision_encoder")}
    experts = params.get("moe")
    if isinstance(experts, Mapping):
        out["model_type"] = "mistral_moe"
        out |= {_EXPERTS.get(n) or n: value for n, value in experts.items()}
    window = params.get("sliding_window")
    if isinstance(window, list) and window:  # a pattern of windows that repeats, null: everything
        layers = params.get("n_layers")
        count = layers if type(layers) is int and 0 < layers <= 10_000 else len(window)
        out["layer_types"] = [
            "full_attention" if window[i % len(window)] is None else "sliding_attention" for i in range(count)
        ]
        out["sliding_window"] = next((w for w in window if w is not None), None)
    table = params.get("quantization")
    if isinstance(table, Mapping):
        out["quantization_config"] = _quantization(table)
    return out


def _quantization(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Mistral's words for a checkpoint in FP8; compressed-tensors' settings are as they are elsewhere."""
    if str(table.get("qformat_weight", "")).startswith("fp8"):
        return {"quant_method": "fp8", "modules_to_not_convert": ["lm_head"]}
    return table
