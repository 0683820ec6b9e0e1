"""Kinds of attention: what each holds on a rank, and what a sequence leaves in its cache.

A kind is one class here and one function in `costmodel.step.attention_cores`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import numpy as np

from costmodel.arch.block import ATTENTION, Block, Cut, Matrix, Size


class AttentionKind(StrEnum):
    """How a layer looks back, in the order in which reports list them."""

    FULL = "full"
    WINDOW = "window"
    """Sees the last tokens only."""
    CHUNKED = "chunked"
    """Sees back to the last multiple of its chunk (Llama 4)."""
    SPARSE = "sparse"
    """An index picks blocks of the cache to attend to (MiniMax-M3)."""
    MLA = "mla"
    """Caches one latent for all heads (DeepSeek-V2)."""
    WINDOW_MLA = "window_mla"
    SPARSE_MLA = "sparse_mla"
    """An index picks tokens of the latent cache (DeepSeek-V3.2)."""
    COMPRESSED = "compressed"
    """Caches one entry for several tokens, beside a window of single ones (DeepSeek-V4)."""
    LINEAR = "linear"
    """Linear attention and delta rules, whose state does not grow."""
    SSM = "ssm"
    """State-space layers (Mamba), whose state does not grow."""


INDEX_BYTES = 1.0
"""The keys of an index are kept in fp8 (DeepSeek-V3.2 report, section 2.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheParts:
    """What one sequence holds of a rank's memory in one layer, bytes by how far it grows."""

    context: Size = 0.0
    """Of all its tokens."""
    window: Size = 0.0
    """Of the last tokens alone."""
    seen: Size = 0.0
    """How many those are; 0 where there is no window."""
    state: Size = 0.0
    """Of the same size whatever its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Block):
    """Base of everything that mixes tokens."""

    EXTRA_KERNELS: ClassVar[str] = ""
    """Calibrated launches that it adds to a layer's small kernels (`costmodel.calibration.load.SMALL_KERNELS`)."""

    kind: AttentionKind
    heads: Size
    """Of queries; of a recurrent layer, of its state."""

    @property
    def group_name(self) -> str:
        """Its kind."""
        return self.kind.value

    def cache_bytes(self, tokens: Size, cut: Cut, kv_bytes: Size, activation_bytes: Size) -> Size:
        """What one sequence of `tokens` holds of a rank's memory in one layer, at `kv_bytes` per cached value."""
        parts = self.cache_parts(tokens, cut, kv_bytes, activation_bytes)
        return parts.context + parts.window + parts.state

    def cache_parts(self, tokens: Size, cut: Cut, kv_bytes: Size, activation_bytes: Size) -> CacheParts:
        """The same by how far it grows."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedQuery(Attention):
    """Heads of queries that share heads of keys and values: full, over a window, in chunks, or over picked blocks."""

    EXTRA_KERNELS: ClassVar[str] = "qk_norm_s"

    kv_heads: Size
    head_dim: Size
    """Of queries and keys."""
    value_dim: Size
    window: Size = 0
    """Tokens seen, the token itself included; of chunks, their length; 0 sees everything."""
    gate: Size = 0
    """Width of a projection whose output multiplies the attention's: all heads' values, or one number a head."""
    own_keys: Size = 1
    """0 where the layer attends to the cache of another layer, and has no keys of its own."""
    own_values: Size = 1
    """0 where values are made of the keys' projection (Gemma 4); they are cached all the same."""
    q_rank: Size = 0
    """Rank of the query projection where it is factored (Step-3), the same for all heads; 0 where it is not."""
    qk_norm: Size = 0
    """1 where queries and keys are normed."""
    index_heads: Size = 0
    """Sparse: heads of the index that picks what is attended to."""
    index_dim: Size = 0
    index_topk: Size = 0
    """Tokens that are picked."""

    def kv_heads_per_rank(self, cut: Cut) -> Size:
        """Split over TP, and replicated once TP exceeds them (all three engines)."""
        return np.maximum(self.kv_heads / cut.attn_tp, 1.0)

    def matrices(self, hidden: Size, cut: Cut) -> tuple[Matrix, ...]:
        """Queries, keys, values and gate in one; output."""
        kv = self.kv_heads_per_rank(cut) * self.own_keys
        queries = self.heads / cut.attn_tp * self.head_dim
        first = np.where(np.asarray(self.q_rank) > 0, self.q_rank, queries) if np.any(self.q_rank) else queries
        qkv = first + kv * (self.head_dim + self.own_values * self.value_dim)
        out = [
            Matrix(name="qkv_proj", weights=ATTENTION, n=qkv + self.gate / cut.attn_tp, k=hidden),
            Matrix(name="o_proj", weights=ATTENTION, n=hidden, k=self.heads / cut.attn_tp * self.value_dim),
        ]
        if np.any(self.q_rank):
            out.append(Matrix(name="q_b_proj", weights=ATTENTION, n=queries, k=self.q_rank))
        if np.any(self.index_heads):
            index = self.index_heads * self.index_dim + np.where(np.asarray(self.index_heads) > 0, self.index_dim, 0.0)
            out.append(Matrix(name="index_proj", weights=ATTENTION, n=index, k=hidden))
        return tuple(out)

    def widest_activation(self, hidden: Size, cut: Cut) -> Size:  # noqa: ARG002  # of the base
        """Queries, what they attend to, and the output."""
        return self.heads * np.maximum(self.head_dim, self.value_dim) * 3.0 / cut.attn_tp

    def cached_token_bytes(self, cut: Cut, kv_bytes: Size) -> Size:
        """Keys and values of a token that the kernel reads on a rank, its own or another layer's."""
        return self.kv_heads_per_rank(cut) * (self.head_dim + self.value_dim) * kv_bytes

    def seen(self, tokens: Size) -> Size:
        """Of `tokens`, those that are cached: at most the window."""
        return tokens if self.kind in (AttentionKind.FULL, AttentionKind.SPARSE) else np.minimum(tokens, self.window)

    def cache_parts(self, tokens: Size, cut: Cut, kv_bytes: Size, activation_bytes: Size) -> CacheParts:  # noqa: ARG002
        """Keys and values of what it sees, and the keys of its index."""
        each = self.own_keys * self.cached_token_bytes(cut, kv_bytes)
        if np.any(self.index_heads):
            each = each + np.where(np.asarray(self.index_heads) > 0, self.index_dim, 0.0) * kv_bytes
        seen = self.seen(tokens)
        held = seen / (cut.attn_cp * cut.dcp) * each
        if self.kind in (AttentionKind.FULL, AttentionKind.SPARSE):
            return CacheParts(context=held)
        return CacheParts(window=held, seen=seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent(Attention):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): latents on every rank, heads cut."""

    EXTRA_KERNELS: ClassVar[str] = "mla_s"

    q_rank: Size
    """Rank of the query projection; 0 where it is not factored."""
    kv_rank: Size
    nope_dim: Size
    rope_dim: Size
    value_dim: Size
    gate: Size = 0
    """Width of a projection whose output multiplies the attention's."""
    window: Size = 0
    """Tokens seen; 0 sees everything."""
    index_heads: Size = 0
    """Sparse: heads of the index that picks `index_topk` cached tokens; 0 where another layer's picks are taken."""
    index_dim: Size = 0
    index_topk: Size = 0

    @property
    def latent_dim(self) -> Size:
        """Values that a token leaves in the cache."""
        return self.kv_rank + self.rope_dim

    def matrices(self, hidden: Size, cut: Cut) -> tuple[Matrix, ...]:
        """Latents down, queries and keys and values up, output; the index whole on every rank."""
        heads = self.heads / cut.attn_tp
        query = heads * (self.nope_dim + self.rope_dim)
        down = self.latent_dim + np.where(np.asarray(self.q_rank) > 0, self.q_rank, query)
        expanded = heads * (self.nope_dim + self.value_dim)
        out = [
            Matrix(name="qkv_a_proj", weights=ATTENTION, n=down + self.gate / cut.attn_tp, k=hidden),
            Matrix(name="q_b_proj", weights=ATTENTION, n=query, k=self.q_rank),
            Matrix(name="kv_b_proj", weights=ATTENTION, n=expanded, k=self.kv_rank),
            Matrix(name="o_proj", weights=ATTENTION, n=hidden, k=heads * self.value_dim),
        ]
        if np.any(self.index_heads):
            # DeepSeek-V3.2's index is replicated: queries from the query latent, one key head, weights of the heads
            index = self.index_heads * self.index_dim
            keys = np.where(np.asarray(self.index_heads) > 0, self.index_dim + self.index_heads, 0.0)
            out += [
                Matrix(name="index_q_proj", weights=ATTENTION, n=index, k=self.q_rank),
                Matrix(name="index_k_proj", weights=ATTENTION, n=keys, k=hidden),
            ]
        return tuple(out)

    def widest_activation(self, hidden: Size, cut: Cut) -> Size:  # noqa: ARG002  # of the base
        """Queries, what they attend to, and the output."""
        return self.heads * self.value_dim * 3.0 / cut.attn_tp

    def cache_parts(self, tokens: Size, cut: Cut, kv_bytes: Size, activation_bytes: Size) -> CacheParts:  # noqa: ARG002
        """The latent, whole on every TP rank, and the index's key."""
        index = np.where(np.asarray(self.index_heads) > 0, self.index_dim, 0.0) * INDEX_BYTES
        each = self.latent_dim * kv_bytes + index
        if self.kind is not AttentionKind.WINDOW_MLA:
            return CacheParts(context=tokens / (cut.attn_cp * cut.dcp) * each)
        seen = np.minimum(tokens, self.window)
        return CacheParts(window=seen / (cut.attn_cp * cut.dcp) * each, seen=seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed(Attention):
    """DeepSeek-V4's attention: a window of single tokens, and one entry for each `ratio` tokens before it.

    Keys are values, one head of them. With a small ratio an index picks `index_topk` of the entries.
    """

    NOT_ZERO: ClassVar[frozenset[str]] = frozenset(("ratio", "output_groups"))
    EXTRA_KERNELS: ClassVar[str] = "mla_s"

    kind: AttentionKind = AttentionKind.COMPRESSED
    head_dim: Size
    q_rank: Size
    output_groups: Size
    output_rank: Size
    """The output is projected in groups of heads, each to this rank, and from all of them to the hidden size."""
    window: Size
    ratio: Size = 1
    """Tokens to an entry; 1 where nothing is compressed and the window is all that is seen."""
    overlap: Size = 0
    """Of the compression's windows: 1 makes an entry of twice `ratio` tokens, and of twice as wide a projection."""
    index_heads: Size = 0
    index_dim: Size = 0
    index_topk: Size = 0

    def matrices(self, hidden: Size, cut: Cut) -> tuple[Matrix, ...]:
        """Latents and keys down, queries up, the output in two steps; what makes the entries and picks them."""
        heads, ranks = self.heads / cut.attn_tp, self.output_groups * self.output_rank / cut.attn_tp
        compresses = np.where(np.asarray(self.ratio) > 1, 2.0 * (1.0 + self.overlap), 0.0)
        indexes = np.where(np.asarray(self.index_heads) > 0, 1.0, 0.0)
        made = compresses * (self.head_dim + indexes * self.index_dim) + self.index_heads
        whole = self.heads * self.head_dim / self.output_groups
        out = [
            Matrix(name="qkv_a_proj", weights=ATTENTION, n=self.q_rank + self.head_dim, k=hidden),
            Matrix(name="q_b_proj", weights=ATTENTION, n=heads * self.head_dim, k=self.q_rank),
            Matrix(name="o_a_proj", weights=ATTENTION, n=ranks, k=whole),
            Matrix(name="o_proj", weights=ATTENTION, n=hidden, k=ranks),
        ]
        if np.any(made):
            out.append(Matrix(name="compress_proj", weights=ATTENTION, n=made, k=hidden))
        if np.any(self.index_heads):
            index = self.index_heads * self.index_dim
            out.append(Matrix(name="index_q_proj", weights=ATTENTION, n=index, k=self.q_rank))
        return tuple(out)

    def widest_activation(self, hidden: Size, cut: Cut) -> Size:  # noqa: ARG002  # of the base
        """Queries, what they attend to, and the output."""
        return self.heads * self.head_dim * 3.0 / cut.attn_tp

    def entries(self, tokens: Size) -> Size:
        """Compressed entries of so many tokens."""
        return np.where(np.asarray(self.ratio) > 1, tokens / self.ratio, 0.0)

    def cache_parts(self, tokens: Size, cut: Cut, kv_bytes: Size, activation_bytes: Size) -> CacheParts:  # noqa: ARG002
        """A window of tokens, the entries, and the index's keys of them."""
        index = np.where(np.asarray(self.index_heads) > 0, self.index_dim, 0.0) * INDEX_BYTES
        ranks, seen = cut.attn_cp * cut.dcp, np.minimum(tokens, self.window)
        entries = self.entries(tokens) * (self.head_dim * kv_bytes + index)
        return CacheParts(context=entries / ranks, window=seen * (self.head_dim * kv_bytes) / ranks, seen=seen)
