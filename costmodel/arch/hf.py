"""Reading a Hugging Face config.json (or a study's model table, which is the same content)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from costmodel.arch import families
from costmodel.arch.arch import Arch, AttentionKind, FfnKind
from costmodel.arch.fields import Fields
from costmodel.arch.quantization import read_quantization
from costmodel.arch.unread import unread_assumption
from costmodel.dtypes import KV_BYTES
from costmodel.errors import InputError, Problem
from costmodel.files import read_file

MAX_CONFIG_BYTES = 10_000_000
_NESTED = ("text_config", "llm_config", "language_config", "text_model_config", "thinker_config")
_PLAIN_DTYPES = {
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float16": "fp16",
    "fp16": "fp16",
    "half": "fp16",
    "auto": "bf16",
    "float32": "bf16",
}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
_MTP = ("num_nextn_predict_layers", "num_mtp_modules", "mtp_num_hidden_layers")


def read_config_file(path: Path) -> Arch:
    """Read a config.json. Raises `InputError` naming the file where it is not one."""
    try:
        config = json.loads(read_file(path, MAX_CONFIG_BYTES).decode("utf-8-sig"))
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise _not_json(path, error) from error
    if not isinstance(config, dict):
        raise InputError.single(str(path), f"must hold a JSON object, got {type(config).__name__}")
    given = config.get("_name_or_path")
    name = given if isinstance(given, str) and given else path.name.removesuffix(".json").removesuffix("_config")
    if name == "config":
        name = path.resolve().parent.name
    try:
        return read_config(config, name=name)
    except InputError as error:
        raise InputError(Problem(path=f"{path}:{p.path}", message=p.message) for p in error.problems) from error


def _not_json(path: Path, error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError.single(str(path), f"is not JSON: {error}")


def read_config(config: Mapping[str, Any], *, name: str) -> Arch:
    """Understand a config's content.

    Raises:
        InputError: everything that is missing, malformed, or asked for and not modelled, by field.
    """
    problems: list[Problem] = []
    outer = Fields(config, "$", problems)
    nested, text = _text_model(config)
    assumptions: list[str] = []
    model_type = Fields(text, f"$.{nested}" if nested else "$", problems).text("model_type")
    model_type = model_type or outer.text("model_type") or "generic"
    text = _with_defaults(text, model_type, assumptions)
    fields = Fields(text, f"$.{nested}" if nested else "$", problems)
    _refuse(outer, fields, model_type)
    if nested:
        assumptions.append(f"model: only the text model (`{nested}`) is served and counted; other towers are not")
    if (mtp := fields.given(*_MTP)) and fields.value(mtp):
        assumptions.append(f"model: multi-token-prediction modules (`{mtp}`) are neither loaded nor counted")
    plain = _activation_dtype(fields, assumptions)
    dtypes, block = read_quantization(fields, plain)
    layers = fields.integer("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    hidden = fields.integer("hidden_size", "n_embd", "d_model")
    heads = fields.integer("num_attention_heads", "n_head")
    shape = _shape(fields, model_type, layers, hidden, heads)
    kinds = shape["attention_kinds"]
    tied = fields.flag("tie_word_embeddings", default=model_type.startswith(families.TIED_BY_DEFAULT))
    kv_dtype = _kv_dtype(fields, plain)
    values: dict[str, Any] = {
        **shape,
        **_mla(fields, kinds),
        **_linear(fields, kinds),
        **_ffn(fields, model_type, layers, hidden),
        "vocab_size": fields.integer("vocab_size"),
        "max_position_embeddings": fields.integer("max_position_embeddings", "seq_length", default=1),
    }
    fields.finish()
    _check(values, fields, hidden, heads)
    fields.finish()
    if not values["max_position_embeddings"] > 1:
        values["max_position_embeddings"] = 0
        assumptions.append("model: max_position_embeddings not given: no limit on the context assumed")
    assumptions += unread_assumption(fields)
    return Arch(
        name=name,
        model_type=model_type,
        hidden_size=hidden,
        num_attention_heads=heads,
        tie_word_embeddings=tied,
        ffn_matrices=2 if model_type in families.PLAIN_FFN else 3,
        dtypes=dtypes,
        activation_dtype=plain,
        kv_dtype=kv_dtype,
        quant_block=block,
        assumptions=tuple(assumptions),
        **values,
    )


def _text_model(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The text model nested in a config, at any depth, and its path; the config itself and "" where there is none.

    It takes from the outer config what only that says.
    """
    nested = next((n for n in _NESTED if isinstance(config.get(n), Mapping)), None)
    if nested is None:
        return "", config
    shared = ("quantization_config", "tie_word_embeddings", "torch_dtype", "dtype")
    below, text = _text_model({**{k: config[k] for k in shared if config.get(k) is not None}, **config[nested]})
    return f"{nested}.{below}" if below else nested, text


def _with_defaults(text: Mapping[str, Any], model_type: str, assumptions: list[str]) -> Mapping[str, Any]:
    """The fields with what published files of this family leave to their reference code."""
    filled = {k: v for k, v in families.DEFAULTS.get(model_type, {}).items() if text.get(k) is None}
    if filled:
        values = ", ".join(f"{k} {v:,}" for k, v in filled.items())
        assumptions.append(f"model: left to the reference code's defaults for {model_type}: {values}")
    return {**text, **filled}


def _refuse(outer: Fields, fields: Fields, model_type: str) -> None:
    """Note what this is not: a causal language model with attention."""
    if outer.value("_class_name") or outer.value("_diffusers_version"):
        outer.problem("_class_name", "is a diffusion pipeline's, not a language model's")
    if fields.value("is_encoder_decoder") is True or model_type in families.NOT_CAUSAL_LM:
        fields.problem("model_type", f"must be a decoder-only language model, got {model_type!r}")
    if model_type in families.NO_ATTENTION:
        fields.problem("model_type", f"must be a model with attention layers, got {model_type!r}")
    for name, meaning in families.NOT_MODELLED.items():
        if fields.value(name):
            fields.problem(name, f"asks for {meaning}, which the cost model has no formula for")
    kinds = fields.value("attn_type_list")
    if isinstance(kinds, list) and any(k != 1 for k in kinds):
        fields.problem("attn_type_list", "asks for lightning attention, which the cost model has no formula for")


def _activation_dtype(fields: Fields, assumptions: list[str]) -> str:
    name = fields.given("torch_dtype", "dtype")
    if name is None:
        assumptions.append("model: torch_dtype not given: bf16")
        return "bf16"
    text = fields.text(name, "bfloat16").removeprefix("torch.")
    if text not in _PLAIN_DTYPES:
        fields.problem(name, f"must be one of {', '.join(_PLAIN_DTYPES)}, got {text!r}")
        return "bf16"
    if text == "float32":
        assumptions.append("model: float32 weights are served in bf16, as engines do by default")
    return _PLAIN_DTYPES[text]


def _kv_dtype(fields: Fields, plain: str) -> str:
    quant = fields.value("quantization_config")
    if isinstance(quant, Mapping):
        asked = str(quant.get("kv_cache_quant_algo") or "").lower()
        if asked in KV_BYTES:
            return asked
        scheme = quant.get("kv_cache_scheme")
        if isinstance(scheme, Mapping) and scheme.get("num_bits") == 8:
            return "fp8"
    return plain


def _shape(fields: Fields, model_type: str, layers: int, hidden: int, heads: int) -> dict[str, Any]:
    kinds = families.attention_kinds(fields, model_type, layers)
    window = 0
    if AttentionKind.WINDOW in kinds:
        chunk = fields.given("attention_chunk_size")
        window = fields.integer("attention_chunk_size" if chunk else "sliding_window")
    gate = fields.flag("attn_output_gate", default=model_type.startswith(families.GATED_ATTENTION))
    return {
        "attention_kinds": kinds,
        "num_key_value_heads": fields.integer(
            "num_key_value_heads", "num_kv_heads", default=1 if fields.flag("multi_query", default=False) else heads
        ),
        "head_dim": fields.integer("head_dim", default=max(hidden // max(heads, 1), 1)),
        "sliding_window": window,
        "window_is_chunked": AttentionKind.WINDOW in kinds and fields.given("attention_chunk_size") is not None,
        "attn_output_gate": gate,
        "attention_bias": fields.flag("attention_bias", default=model_type in families.QKV_BIAS),
        "qk_norm": model_type.startswith(families.QK_NORM) or fields.flag("use_qk_norm", default=False),
    }


def _mla(fields: Fields, kinds: tuple[AttentionKind, ...]) -> dict[str, int]:
    if AttentionKind.MLA not in kinds:
        return {}
    sparse = fields.given("index_topk") is not None
    return {
        "q_lora_rank": fields.integer("q_lora_rank", default=0, least=0),
        "kv_lora_rank": fields.integer("kv_lora_rank"),
        "qk_nope_head_dim": fields.integer("qk_nope_head_dim"),
        "qk_rope_head_dim": fields.integer("qk_rope_head_dim"),
        "v_head_dim": fields.integer("v_head_dim"),
        "index_n_heads": fields.integer("index_n_heads") if sparse else 0,
        "index_head_dim": fields.integer("index_head_dim") if sparse else 0,
        "index_topk": fields.integer("index_topk") if sparse else 0,
    }


def _linear(fields: Fields, kinds: tuple[AttentionKind, ...]) -> dict[str, int]:
    if AttentionKind.LINEAR not in kinds:
        return {}
    names = ("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim")
    return {n: fields.integer(n) for n in (*names, "linear_conv_kernel_dim")}


def _ffn(fields: Fields, model_type: str, layers: int, hidden: int) -> dict[str, Any]:
    experts = fields.integer(*_EXPERTS, default=0, least=0)
    if experts <= 1:
        usual = 4 * hidden if model_type in families.FOUR_TIMES_WIDE else None
        width = fields.integer("intermediate_size", "n_inner", "ffn_hidden_size", default=usual)
        return {"ffn_kinds": (FfnKind.DENSE,) * layers, "intermediate_size": width}
    kinds = families.ffn_kinds(fields, layers)
    width = fields.integer("moe_intermediate_size", "expert_intermediate_size", "intermediate_size")
    dense = 0
    if FfnKind.DENSE in kinds:
        dense = fields.integer("intermediate_size_mlp", "intermediate_size")
    shared = fields.integer("shared_expert_intermediate_size", "shared_intermediate_size", default=0, least=0)
    if not shared:
        each = fields.integer("moe_shared_expert_intermediate_size", default=width)
        shared = fields.integer(*_SHARED, default=0, least=0) * each
    if model_type.startswith("llama4"):
        shared = width
    return {
        "ffn_kinds": kinds,
        "intermediate_size": dense,
        "num_experts": experts,
        "num_experts_per_tok": fields.integer("num_experts_per_tok", "experts_per_token", "moe_topk", "moe_k"),
        "moe_intermediate_size": width,
        "shared_intermediate_size": shared,
        "shared_expert_gate": shared > 0 and model_type.startswith(families.GATED_SHARED_EXPERT),
        "expert_bias": model_type == "gpt_oss",
    }


def _check(values: Mapping[str, Any], fields: Fields, hidden: int, heads: int) -> None:
    """Rules between fields."""
    kv_heads = values["num_key_value_heads"]
    if AttentionKind.MLA not in values["attention_kinds"]:
        if heads % kv_heads:
            fields.problem("num_key_value_heads", f"must divide num_attention_heads, got {kv_heads} and {heads}")
        if fields.given("head_dim") is None and hidden % heads:
            fields.problem(
                "num_attention_heads",
                f"must divide hidden_size where head_dim is not given, got {heads} and {hidden}",
            )
    top_k, experts = values.get("num_experts_per_tok", 0), values.get("num_experts", 0)
    if top_k > experts > 0:
        fields.problem("num_experts_per_tok", f"must be at most the number of experts, got {top_k} of {experts}")
