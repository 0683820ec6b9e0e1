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
PLAIN_FFN = frozenset(
    (
        "apertus",
        "arcee",
        "bloom",
        "codegen",
        "falcon",
        "gpt2",
        "gpt_bigcode",
        "gpt_neox",
        "gptj",
        "mpt",
        "nemotron",
        "opt",
        "phi",
        "starcoder2",
        "stablelm_epoch",
    )
)
"""Two matrices in a feed-forward network instead of three."""
FOUR_TIMES_WIDE = frozenset(("bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gptj", "mpt"))
"""Feed-forward networks of 4 x hidden_size where the file gives no width, as the families' reference code has it."""
DEFAULTS: dict[str, dict[str, int]] = {
    # Gemma3TextConfig of Transformers: the published files of Gemma 3 leave these out
    "gemma3_text": {
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
    },
}
"""What published files of a family leave to the reference code's defaults."""
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
    "hybrid_layer_pattern": "window layers with heads of their own",
    "layer_group_size": "groups of linear and full attention layers",
    "use_cla": "KV caches shared between layers",
    "parallel_attn_mlp_res": "a dense network beside the experts",
}
"""Fields that change the cost in ways the model has no formula for."""

_PATTERNS = ("sliding_window_pattern", "_sliding_window_pattern")
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
        return _llama4(fields, layers)
    if not fields.given("sliding_window") or fields.value("use_sliding_window") is False:
        return (AttentionKind.FULL,) * layers
    pattern = fields.given(*_PATTERNS)
    if pattern is not None or model_type.startswith(("gemma3", "cohere2")):
        letters = fields.value(pattern) if pattern is not None else None
        if isinstance(letters, str) and letters and set(letters) <= {"L", "G"}:  # EXAONE 4: local and global layers
            return tuple(
                AttentionKind.WINDOW if letters[i % len(letters)] == "L" else AttentionKind.FULL for i in range(layers)
            )
        default = 6 if model_type.startswith("gemma3") else 4
        return _every(layers, fields.integer(*_PATTERNS, default=default), AttentionKind.WINDOW)
    if model_type.startswith("gemma2") or model_type == "gpt_oss":
        return _every(layers, 2, AttentionKind.WINDOW)
    if model_type.startswith(("qwen2", "qwen3")):
        first = fields.integer("max_window_layers", default=0, least=0)
        return tuple(AttentionKind.FULL if i < first else AttentionKind.WINDOW for i in range(layers))
    return (AttentionKind.WINDOW,) * layers


def _llama4(fields: Fields, layers: int) -> tuple[AttentionKind, ...]:
    """Llama 4: layers without rotary embedding (0 in `no_rope_layers`, else each fourth) attend to everything."""
    if not fields.given("attention_chunk_size"):
        return (AttentionKind.FULL,) * layers
    rotary = fields.items("no_rope_layers") or []
    if not rotary:
        return _every(layers, fields.integer("no_rope_layer_interval", default=4), AttentionKind.WINDOW)
    if len(rotary) != layers:
        fields.problem("no_rope_layers", f"must have one entry per layer, got {len(rotary)} for {layers} layers")
        return (AttentionKind.FULL,) * layers
    return tuple(AttentionKind.WINDOW if x else AttentionKind.FULL for x in rotary)


def _listed(fields: Fields, types: list[object], layers: int) -> tuple[AttentionKind, ...]:
    unknown = sorted({repr(t) for t in types if not isinstance(t, str) or t not in _LAYER_TYPES})
    if unknown:
        fields.problem("layer_types", f"must hold only {', '.join(_LAYER_TYPES)}, got {', '.join(unknown)}")
    if len(types) != layers:
        fields.problem("layer_types", f"must have one entry per layer, got {len(types)} for {layers} layers")
    if unknown or len(types) != layers:
        return (AttentionKind.FULL,) * layers
    kinds = tuple(_LAYER_TYPES[str(t)] for t in types)
    if fields.value("use_sliding_window") is False:
        return tuple(AttentionKind.FULL if k is AttentionKind.WINDOW else k for k in kinds)
    return kinds


def _every(layers: int, every: int, other: AttentionKind) -> tuple[AttentionKind, ...]:
    return tuple(AttentionKind.FULL if (i + 1) % every == 0 else other for i in range(layers))


def ffn_kinds(fields: Fields, layers: int) -> tuple[FfnKind, ...]:
    """Which layers have experts."""
    first_dense = fields.integer("first_k_dense_replace", default=0, least=0)
    frequency = fields.value("moe_layer_freq")
    step = fields.integer("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval", default=1)
    first = fields.integer("moe_layer_start_index", default=0, least=0)
    last = fields.value("moe_layer_end_index")
    last = last if isinstance(last, int) and last >= 0 else layers - 1
    types = fields.items("mlp_layer_types")
    if types is not None:
        return _listed_ffn(fields, types, layers)
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
        return max(first_dense, first) <= i <= last and i % every == 0 and (i + 1) % step == 0 and i not in dense_only

    return tuple(FfnKind.MOE if has_experts(i) else FfnKind.DENSE for i in range(layers))


def _listed_ffn(fields: Fields, types: list[object], layers: int) -> tuple[FfnKind, ...]:
    if len(types) != layers or not set(map(str, types)) <= {"dense", "sparse"}:
        fields.problem("mlp_layer_types", f"must hold `dense` or `sparse` for each of {layers} layers, got {types!r}")
        return (FfnKind.MOE,) * layers
    return tuple(FfnKind.MOE if t == "sparse" else FfnKind.DENSE for t in types)
