"""The matrices one rank holds: the one source of both a layer's GEMM shapes and its weights in memory.

A rank of a stage multiplies `m` tokens by each of these `k x n` matrices. Time (`costmodel.step.operators`) and
memory (`costmodel.step.memory`) both read this table, so the two cannot drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.plan.columns import ArchColumns, Floats, LayoutColumns

ATTENTION, DENSE, EXPERTS, SHARED, ROUTER, HEAD = (
    "attention",
    "dense_ffn",
    "experts",
    "shared_experts",
    "router",
    "lm_head",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One weight matrix of one layer as a rank holds it. `n`, `k`: shape `(num_plans,)` or `(1,)`."""

    name: str
    layer: str
    """Layer kind that has it: full, window, mla, linear, dense, moe, head."""
    weights: str
    """Weight kind, which decides its dtype."""
    n: Floats
    k: Floats
    count: Floats | float = 1.0
    """How many of them the rank holds (its experts)."""
    multiplied: bool = True
    """False where it is not a plain GEMM over the step's tokens (experts have a law of their own)."""


def kv_heads_per_rank(arch: ArchColumns, attn_tp: Floats) -> Floats:
    """KV heads on a rank: split over TP, and replicated once TP exceeds them (all three engines)."""
    return np.maximum(arch.kv_heads / attn_tp, 1.0)


def rank_matrices(arch: ArchColumns, layout: LayoutColumns) -> tuple[Matrix, ...]:
    """Every matrix of one layer of each kind that occurs in the batch, sharded as the layout says."""
    out: list[Matrix] = []
    if arch.num_full_layers.any():
        out += _gqa(arch, layout, "full")
    if arch.num_window_layers.any():
        out += _gqa(arch, layout, "window")
    if arch.num_mla_layers.any():
        out += _mla(arch, layout)
    if arch.num_linear_layers.any():
        out += _linear(arch, layout)
    if arch.num_dense_layers.any():
        out += _ffn(arch, layout, "dense", DENSE, arch.intermediate_size)
    if arch.num_moe_layers.any():
        out += _moe(arch, layout)
    out.append(
        Matrix(
            name="lm_head",
            layer="head",
            weights=HEAD,
            n=arch.vocab_size / layout.attn_tp,
            k=arch.hidden_size,
        )
    )
    return tuple(out)


def _gqa(arch: ArchColumns, layout: LayoutColumns, layer: str) -> list[Matrix]:
    queries = arch.heads / layout.attn_tp * arch.query_width_factor
    keys_and_values = 2.0 * kv_heads_per_rank(arch, layout.attn_tp)
    qkv = (queries + keys_and_values) * arch.head_dim
    attended = arch.heads / layout.attn_tp * arch.head_dim
    return [
        Matrix(name="qkv_proj", layer=layer, weights=ATTENTION, n=qkv, k=arch.hidden_size),
        Matrix(name="o_proj", layer=layer, weights=ATTENTION, n=arch.hidden_size, k=attended),
    ]


def _mla(arch: ArchColumns, layout: LayoutColumns) -> list[Matrix]:
    """DeepSeek-V2 (arXiv 2405.04434, section 2.1): latents on every rank, heads split over TP."""
    heads = arch.heads / layout.attn_tp
    query = heads * (arch.qk_nope_head_dim + arch.qk_rope_head_dim)
    latent = arch.kv_lora_rank + arch.qk_rope_head_dim
    factored = arch.q_lora_rank > 0
    down = latent + np.where(factored, arch.q_lora_rank, query)
    out = [
        Matrix(name="qkv_a_proj", layer="mla", weights=ATTENTION, n=down, k=arch.hidden_size),
        Matrix(name="q_b_proj", layer="mla", weights=ATTENTION, n=query, k=arch.q_lora_rank),
        Matrix(
            name="kv_b_proj",
            layer="mla",
            weights=ATTENTION,
            n=heads * (arch.qk_nope_head_dim + arch.v_head_dim),
            k=arch.kv_lora_rank,
        ),
        Matrix(name="o_proj", layer="mla", weights=ATTENTION, n=arch.hidden_size, k=heads * arch.v_head_dim),
    ]
    if arch.index_heads.any():
        # DeepSeek-V3.2's indexer is replicated: queries from the query latent, one key head, head weights
        index = arch.index_heads * arch.index_head_dim
        keys = np.where(arch.index_heads > 0, arch.index_head_dim + arch.index_heads, 0.0)
        out += [
            Matrix(name="index_q_proj", layer="mla", weights=ATTENTION, n=index, k=arch.q_lora_rank),
            Matrix(name="index_k_proj", layer="mla", weights=ATTENTION, n=keys, k=arch.hidden_size),
        ]
    return out


def _linear(arch: ArchColumns, layout: LayoutColumns) -> list[Matrix]:
    """Gated delta net (arXiv 2412.06464; Qwen3-Next): q, k, v, output gate and two gates per value head."""
    keys = arch.linear_key_heads * arch.linear_key_dim
    values = arch.linear_value_heads * arch.linear_value_dim
    projected = (2.0 * keys + 2.0 * values + 2.0 * arch.linear_value_heads) / layout.attn_tp
    conv = (2.0 * keys + values) / layout.attn_tp
    return [
        Matrix(name="in_proj", layer="linear", weights=ATTENTION, n=projected, k=arch.hidden_size),
        Matrix(name="conv", layer="linear", weights=ATTENTION, n=conv, k=arch.linear_conv, multiplied=False),
        Matrix(name="o_proj", layer="linear", weights=ATTENTION, n=arch.hidden_size, k=values / layout.attn_tp),
    ]


def _ffn(arch: ArchColumns, layout: LayoutColumns, layer: str, weights: str, size: Floats) -> list[Matrix]:
    inner = size / layout.attn_tp
    wide = (arch.ffn_matrices - 1.0) * inner
    return [
        Matrix(name="up_proj", layer=layer, weights=weights, n=wide, k=arch.hidden_size),
        Matrix(name="down_proj", layer=layer, weights=weights, n=arch.hidden_size, k=inner),
    ]


def experts_per_rank(arch: ArchColumns, layout: LayoutColumns) -> Floats:
    """Routed experts that a rank holds of one layer, redundant copies included (the fullest rank)."""
    return np.ceil((arch.num_experts + layout.redundant_experts) / layout.moe_ep)


def _moe(arch: ArchColumns, layout: LayoutColumns) -> list[Matrix]:
    out = [
        Matrix(name="router", layer="moe", weights=ROUTER, n=arch.num_experts, k=arch.hidden_size),
        Matrix(
            name="experts",
            layer="moe",
            weights=EXPERTS,
            n=arch.ffn_matrices * arch.moe_intermediate_size / layout.moe_tp,
            k=arch.hidden_size,
            count=experts_per_rank(arch, layout),
            multiplied=False,
        ),
    ]
    if arch.shared_intermediate_size.any():
        out += _ffn(arch, layout, "moe", SHARED, arch.shared_intermediate_size)
    return out
