"""What a JSON file is, where it is no config.json of a language model, in words for an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from costmodel.arch.config import families

_KINDS: tuple[tuple[frozenset[str], str], ...] = tuple(
    (frozenset(keys), kind)
    for keys, kind in (
        (("_class_name",), "is a diffusion pipeline's, not a language model's"),
        (("_diffusers_version",), "is a diffusion pipeline's, not a language model's"),
        (("weight_map",), "is an index of a checkpoint's files: give the folder that it lies in"),
        (
            ("quantization", "producer"),
            "is a hf_quant_config.json, which says how weights are stored: give the folder that it lies in",
        ),
        (("added_tokens_decoder",), "is a tokenizer's config, which gives no sizes: give the config.json beside it"),
        (("peft_type",), "is an adapter's config (PEFT): give the config.json of the model that it adapts"),
        (("pretrained_config", "build_config"), "is the config of a compiled serving engine: give the checkpoint's"),
        (("decoder_start_token_id", "max_new_tokens"), "is a generation config, which gives no sizes"),
        (("image_processor_type",), "is an image processor's config, which gives no sizes"),
    )
)
_GENERATION = frozenset(("max_new_tokens", "do_sample", "temperature", "top_p", "eos_token_id", "bos_token_id"))


def refusal(config: Mapping[str, Any]) -> str | None:
    """Why a file cannot be read as a decoder-only language model, None where nothing says so."""
    for keys, kind in _KINDS:
        if keys <= config.keys():
            return kind
    sizes = {"hidden_size", "num_hidden_layers", "n_layer", "d_model", "dim", "text_config", "n_layers", "num_layers"}
    if _GENERATION & config.keys() and not sizes & config.keys() and "model_type" not in config:
        return "is a generation config, which gives no sizes: give the config.json beside it"
    return None


_NO_HEAD = re.compile(
    r"For(\w*Classification|\w*Reward\w*|\w*Embedding\w*|MaskedLM|QuestionAnswering|MultipleChoice|Ranking)"
)
"""Classes whose head names no next token."""
_BARE = re.compile(r"\w+(?<!Chat)(?<!Head)(?<!Heads)Model")
"""Classes without a head, as far as their names say (`InternVLChatModel` and `GPT2LMHeadModel` have one)."""
_GENERATING = frozenset(("AquilaModel", "ChatGLMModel", "NVLM_D_Model"))
"""Those that have one whatever they are called (vLLM, model_executor/models/registry.py)."""


def head_refusal(config: Mapping[str, Any], *, nested: bool) -> str | None:
    """Why a model generates no tokens, by the classes that its config names; None where it names none or one that does.

    `nested`: whether the language model is a part of it, of which the name of the whole says nothing.
    """
    given = config.get("architectures")
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    headless = [
        name
        for name in names
        if _NO_HEAD.search(name) or (not nested and name not in _GENERATING and _BARE.fullmatch(name))
    ]
    if not names or len(headless) < len(names):
        return None
    return (
        f"must be of a model that generates text, got {', '.join(headless)}, which has no LM head: it "
        "embeds, classifies or scores. Of a model that does generate give its own config.json, or leave this out"
    )


_TRAITS = (
    ("block_configs", "a shape per block"),
    ("hybrid_override_pattern", "a Mamba-2 hybrid"),
    ("layers_block_type", "a hybrid of blocks of several kinds"),
    ("mamba_dt_rank", "a Mamba-1 hybrid"),
    ("mamba_d_state", "a Mamba-2 hybrid"),
    ("ssm_state_size", "a Mamba-2 hybrid"),
    ("compress_ratios", "compressed attention"),
    ("compress_rates", "compressed attention"),
    ("kv_lora_rank", "latent attention"),
    ("linear_attn_config", "linear attention between latent attention"),
    ("linear_num_value_heads", "linear attention between full attention"),
    ("hybrid_layer_pattern", "window layers with heads of their own"),
    ("sparse_attention_config", "sparse attention"),
    ("zero_expert_num", "experts that do nothing"),
)
"""Fields that say what a model is made of."""


def description(fields: Mapping[str, Any], model_type: str) -> str:
    """What a model is, for an error about it: its family and what sets it apart."""
    traits = list(dict.fromkeys(words for name, words in _TRAITS if fields.get(name) not in (None, False, [], {})))
    return f"{model_type}{': ' if traits else ''}{', '.join(traits)}"


def family_refusal(fields: Mapping[str, Any], model_type: str) -> str | None:
    """Why a model of this family is none that is served by the engines as a language model."""
    if fields.get("is_encoder_decoder") is True or model_type in families.NOT_CAUSAL_LM:
        return f"must be a decoder-only language model, got {model_type!r}, an encoder or an encoder with a decoder"
    if model_type in families.NO_ATTENTION:
        return f"must be a model with attention layers, got {model_type!r}, a state-space model without any"
    return None
