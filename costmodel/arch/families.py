"""What differs between model families and is not written in their config files."""

from __future__ import annotations

from costmodel.arch.arch import AttentionKind, FfnKind
from costmodel.arch.fields import Fields

NOT_CAUSAL_LM = frozenset(
    (
        "albert",
        "bart",
        "bert",
        "blip",
        "clip",
        "deberta",
        "deberta-v2",
        "dinov2",
        "distilbert",
        "electra",
        "longformer",
        "marian",
        "mbart",
        "mobilebert",
        "mpnet",
        "mt5",
        "pegasus",
        "roberta",
        "siglip",
        "t5",
        "umt5",
        "vit",
        "wav2vec2",
        "whisper",
        "xlm-roberta",
    )
)
NO_ATTENTION = frozenset(("mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv5", "rwkv6"))
TIED_BY_DEFAULT = ("gemma", "cohere", "gpt2")
PLAIN_FFN = frozenset(("falcon", "gpt_neox", "gptj", "nemotron", "opt", "phi", "starcoder2", "stablelm_epoch"))
QKV_BIAS = frozenset(("qwen2", "qwen2_moe"))
QK_NORM = ("qwen3", "minimax_m2", "gemma3", "olmo2", "glm4_moe")
GATED_SHARED_EXPERT = ("qwen2_moe", "qwen3_next", "qwen3_5_moe")
GATED_ATTENTION = ("qwen3_next", "qwen3_5")
NOT_MODELLED = {
    "hybrid_override_pattern": "Mamba and attention layers by pattern",
    "layers_block_type": "state-space layers",
    "attn_layer_period": "state-space layers",
    "ssm_cfg": "state-space layers",
    "mamba_d_state": "state-space layers",
    "cross_attention_layers": "cross-attention layers",
    "num_kv_shared_layers": "KV caches shared between layers",
    "altup_num_inputs": "alternating updates",
    "zero_expert_num": "zero-computation experts",
    "moe_latent_size": "experts in a latent space",
    "linear_attn_config": "Kimi linear attention",
    "compress_ratios": "compressed attention",
}
"""Fields that change the cost in ways the model has no formula for."""

_LAYER_TYPES = {
    "full_attention": AttentionKind.FULL,
    "attention": AttentionKind.FULL,
    "sliding_attention": AttentionKind.WINDOW,
    "chunked_attention": AttentionKind.WINDOW,
    "linear_attention": AttentionKind.LINEAR,
}


def attention_kinds(fields: Fields, model_type: str, layers: int) -> tuple[AttentionKind, ...]:
    """How each layer attends."""
    if fields.given("kv_lora_rank"):
        return (AttentionKind.MLA,) * layers
    types = fields.items("layer_types")
    if types is not None:
        return _listed(fields, types, layers)
    if fields.given("linear_num_value_heads"):
        every = fields.integer("full_attention_interval", default=4)
        return _every(layers, every, AttentionKind.LINEAR)
    if model_type.startswith("llama4"):
        # Llama 4: each fourth layer has no rotary embedding and attends to everything (no_rope_layers)
        return _every(layers, fields.integer("no_rope_layer_interval", default=4), AttentionKind.WINDOW)
    if not fields.given("sliding_window") or fields.values.get("use_sliding_window") is False:
        return (AttentionKind.FULL,) * layers
    if model_type.startswith(("gemma3", "cohere2")):
        default = 6 if model_type.startswith("gemma3") else 4
        every = fields.integer("sliding_window_pattern", "_sliding_window_pattern", default=default)
        return _every(layers, every, AttentionKind.WINDOW)
    if model_type.startswith("gemma2") or model_type == "gpt_oss":
        return _every(layers, 2, AttentionKind.WINDOW)
    if model_type.startswith(("qwen2", "qwen3")):
        first = fields.integer("max_window_layers", default=0, least=0)
        return tuple(AttentionKind.FULL if i < first else AttentionKind.WINDOW for i in range(layers))
    return (AttentionKind.WINDOW,) * layers


def _listed(fields: Fields, types: list[object], layers: int) -> tuple[AttentionKind, ...]:
    unknown = sorted({repr(t) for t in types if not isinstance(t, str) or t not in _LAYER_TYPES})
    if unknown:
        fields.problem("layer_types", f"must hold only {', '.join(_LAYER_TYPES)}, got {', '.join(unknown)}")
    if len(types) != layers:
        fields.problem("layer_types", f"must have one entry per layer, got {len(types)} for {layers} layers")
    if unknown or len(types) != layers:
        return (AttentionKind.FULL,) * layers
    kinds = tuple(_LAYER_TYPES[str(t)] for t in types)
    if fields.values.get("use_sliding_window") is False:
        return tuple(AttentionKind.FULL if k is AttentionKind.WINDOW else k for k in kinds)
    return kinds


def _every(layers: int, every: int, other: AttentionKind) -> tuple[AttentionKind, ...]:
    return tuple(AttentionKind.FULL if (i + 1) % every == 0 else other for i in range(layers))


def ffn_kinds(fields: Fields, layers: int) -> tuple[FfnKind, ...]:
    """Which layers have experts."""
    first_dense = fields.integer("first_k_dense_replace", default=0, least=0)
    frequency = fields.values.get("moe_layer_freq")
    step = fields.integer("decoder_sparse_step", "interleave_moe_layer_step", default=1)
    dense_only = fields.items("mlp_only_layers") or []
    listed = fields.items("moe_layers")
    if isinstance(frequency, list):
        if len(frequency) != layers:
            fields.problem("moe_layer_freq", f"must have one entry per layer, got {len(frequency)} for {layers} layers")
            return (FfnKind.MOE,) * layers
        return tuple(FfnKind.MOE if f else FfnKind.DENSE for f in frequency)
    every = fields.integer("moe_layer_freq", default=1)

    def has_experts(i: int) -> bool:
        if listed is not None:
            return i in listed
        return i >= first_dense and i % every == 0 and (i + 1) % step == 0 and i not in dense_only

    return tuple(FfnKind.MOE if has_experts(i) else FfnKind.DENSE for i in range(layers))
