"""Parameter counts: per layer, in all, active per token; and what a token leaves in the cache."""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.arch.arch import Arch, AttentionKind, FfnKind
from costmodel.dtypes import BYTES_PER_WEIGHT, KV_BYTES

COUNTS_EMBEDDING = ("qwen", "mixtral")
"""Families whose published active parameters include the input embedding (model cards of Qwen3 and Mixtral).
OpenAI's, DeepSeek's and Moonshot's count the LM head only (gpt-oss model card, table 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightGroup:
    """Weights of one kind."""

    kind: str
    dtype: str
    params_per_layer: int
    layers: int

    @property
    def params(self) -> int:
        """Over all layers."""
        return self.params_per_layer * self.layers

    @property
    def bytes(self) -> float:
        """Stored size, scales included."""
        return self.params * BYTES_PER_WEIGHT[self.dtype]


def attention_params(arch: Arch, kind: AttentionKind) -> int:
    """Projections of one attention layer, biases included."""
    if kind is AttentionKind.MLA:
        return _mla_params(arch)
    if kind is AttentionKind.LINEAR:
        return _linear_params(arch)
    queries = arch.num_attention_heads * arch.head_dim
    wide = queries * (2 if arch.attn_output_gate else 1) + 2 * arch.num_key_value_heads * arch.head_dim
    bias = wide + arch.hidden_size if arch.attention_bias else 0
    return arch.hidden_size * (wide + queries) + bias


def _mla_params(arch: Arch) -> int:
    query = arch.num_attention_heads * (arch.qk_nope_head_dim + arch.qk_rope_head_dim)
    if arch.q_lora_rank:
        queries = arch.hidden_size * arch.q_lora_rank + arch.q_lora_rank * query
    else:
        queries = arch.hidden_size * query
    latent = arch.hidden_size * (arch.kv_lora_rank + arch.qk_rope_head_dim)
    expanded = arch.kv_lora_rank * arch.num_attention_heads * (arch.qk_nope_head_dim + arch.v_head_dim)
    output = arch.num_attention_heads * arch.v_head_dim * arch.hidden_size
    index = arch.q_lora_rank * arch.index_n_heads * arch.index_head_dim
    index += arch.hidden_size * (arch.index_head_dim + arch.index_n_heads) if arch.index_n_heads else 0
    return queries + latent + expanded + output + index


def _linear_params(arch: Arch) -> int:
    keys = arch.linear_num_key_heads * arch.linear_key_head_dim
    values = arch.linear_num_value_heads * arch.linear_value_head_dim
    wide = 2 * keys + 2 * values + 2 * arch.linear_num_value_heads
    conv = (2 * keys + values) * arch.linear_conv_kernel_dim
    return arch.hidden_size * wide + conv + values * arch.hidden_size


def ffn_params(arch: Arch, width: int) -> int:
    """One feed-forward network of `width`."""
    return arch.ffn_matrices * arch.hidden_size * width


def expert_params(arch: Arch) -> int:
    """One routed expert, biases included."""
    bias = (arch.ffn_matrices - 1) * arch.moe_intermediate_size + arch.hidden_size if arch.expert_bias else 0
    return ffn_params(arch, arch.moe_intermediate_size) + bias


def norm_params(arch: Arch) -> int:
    """Norms of one layer."""
    heads = 2 * arch.head_dim if arch.qk_norm else 0
    return 2 * arch.hidden_size + heads + arch.q_lora_rank + arch.kv_lora_rank


def weight_groups(arch: Arch) -> tuple[WeightGroup, ...]:
    """All weights by kind; attention once per attention kind."""
    out = [
        WeightGroup(
            kind=f"attention_{kind.value}",
            dtype=arch.dtypes.attention,
            params_per_layer=attention_params(arch, kind),
            layers=arch.attention_kinds.count(kind),
        )
        for kind in AttentionKind
        if kind in arch.attention_kinds
    ]
    dense, moe = arch.ffn_kinds.count(FfnKind.DENSE), arch.ffn_kinds.count(FfnKind.MOE)
    plain = arch.activation_dtype
    gate = arch.hidden_size if arch.shared_expert_gate else 0
    table = (
        ("dense_ffn", arch.dtypes.dense_ffn, ffn_params(arch, arch.intermediate_size), dense),
        ("router", plain, arch.hidden_size * arch.num_experts + gate, moe),
        ("experts", arch.dtypes.experts, expert_params(arch) * arch.num_experts, moe),
        ("shared_experts", arch.dtypes.shared_experts, ffn_params(arch, arch.shared_intermediate_size), moe),
        ("norms", plain, norm_params(arch), arch.num_hidden_layers),
        ("embedding", arch.dtypes.embedding, arch.vocab_size * arch.hidden_size, 1),
        (
            "lm_head",
            arch.dtypes.lm_head,
            arch.vocab_size * arch.hidden_size,
            int(not arch.tie_word_embeddings),
        ),
    )
    out += [
        WeightGroup(kind=kind, dtype=dtype, params_per_layer=params, layers=layers)
        for kind, dtype, params, layers in table
        if params and layers
    ]
    return tuple(out)


def total_params(arch: Arch) -> int:
    """Parameters that are loaded."""
    return sum(g.params for g in weight_groups(arch))


def active_params(arch: Arch) -> int:
    """Parameters that one token is multiplied with.

    The LM head counts, tied or not; the input embedding (a look-up) only in the families that publish it so.
    """
    head = arch.vocab_size * arch.hidden_size
    active = sum(g.params for g in weight_groups(arch) if g.kind not in ("experts", "embedding", "lm_head"))
    active += expert_params(arch) * arch.num_experts_per_tok * arch.ffn_kinds.count(FfnKind.MOE)
    if not arch.is_moe:
        return total_params(arch)
    counted = arch.model_type.startswith(COUNTS_EMBEDDING) and not arch.tie_word_embeddings
    return active + head * (2 if counted else 1)


def weight_bytes(arch: Arch) -> float:
    """Size of all weights as stored."""
    return sum(g.bytes for g in weight_groups(arch))


def kv_bytes_per_token(arch: Arch, kv_dtype: str | None = None) -> float:
    """Cache bytes that a further token adds over all layers of one unsharded copy.

    Counted while the context is inside every window; window layers stop growing there, and linear layers keep
    a fixed state (`linear_state_bytes_per_sequence`).
    """
    size = KV_BYTES[kv_dtype or arch.kv_dtype]
    growing = arch.attention_kinds.count(AttentionKind.FULL) + arch.attention_kinds.count(AttentionKind.WINDOW)
    latent = (arch.kv_lora_rank + arch.qk_rope_head_dim) * size + arch.index_head_dim
    return (
        growing * 2 * arch.num_key_value_heads * arch.head_dim * size
        + arch.attention_kinds.count(AttentionKind.MLA) * latent
    )


def linear_state_bytes_per_sequence(arch: Arch) -> float:
    """fp32 recurrent state of the linear layers of one sequence."""
    state = arch.linear_num_value_heads * arch.linear_key_head_dim * arch.linear_value_head_dim * 4.0
    return arch.attention_kinds.count(AttentionKind.LINEAR) * state
