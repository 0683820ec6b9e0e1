"""Architectures, layouts and clusters as columns: one float array per field, one entry per plan.

Every formula of the cost model reads these and nothing else, so that one plan, a million plans of one
model, and a file of measured runs of many models all go through the same code. A column has shape
`(num_plans,)`, or `(1,)` when all plans share the value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from costmodel.arch.arch import Arch, AttentionKind, FfnKind
from costmodel.engine import EngineTraits
from costmodel.hardware.gpu import Cluster
from costmodel.plan.layout import Layout

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Columns:
    """Base of the column sets: every field is an array over plans."""

    @property
    def shape_is_shared(self) -> bool:
        """Whether all plans share one row."""
        first = getattr(self, fields(self)[0].name)
        return first.shape_is_shared if isinstance(first, Columns) else bool(first.shape[0] == 1)

    def take(self, index: Ints) -> Self:
        """Gather rows: entry `i` of the result is entry `index[i]` of this (shape `(len(index),)`)."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{k: v.take(index) if isinstance(v, Columns) else v[index] for k, v in values.items()})

    def slice(self, part: slice) -> Self:
        """Rows of `part`; columns that all plans share stay as they are."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{k: _slice(v, part) for k, v in values.items()})


def _slice(value: Columns | Floats, part: slice) -> Columns | Floats:
    if isinstance(value, Columns):
        return value.slice(part)
    return value if value.shape[0] == 1 else value[part]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchColumns(Columns):
    """`Arch` as numbers; `num_*_layers` are the layers of each kind. See `Arch` for the meanings."""

    hidden_size: Floats
    vocab_size: Floats
    tied: Floats
    num_full_layers: Floats
    num_window_layers: Floats
    num_mla_layers: Floats
    num_linear_layers: Floats
    num_dense_layers: Floats
    num_moe_layers: Floats
    heads: Floats
    kv_heads: Floats
    head_dim: Floats
    query_width_factor: Floats
    """2 where the query projection carries an output gate, else 1."""
    qk_norm: Floats
    window: Floats
    window_is_chunked: Floats
    q_lora_rank: Floats
    kv_lora_rank: Floats
    qk_nope_head_dim: Floats
    qk_rope_head_dim: Floats
    v_head_dim: Floats
    index_heads: Floats
    index_head_dim: Floats
    index_topk: Floats
    linear_key_heads: Floats
    linear_value_heads: Floats
    linear_key_dim: Floats
    linear_value_dim: Floats
    linear_conv: Floats
    intermediate_size: Floats
    num_experts: Floats
    top_k: Floats
    moe_intermediate_size: Floats
    shared_intermediate_size: Floats
    shared_expert_gate: Floats
    ffn_matrices: Floats
    activation_bytes: Floats

    @classmethod
    def of(cls, archs: Sequence[Arch]) -> ArchColumns:
        """One row per architecture, shape `(len(archs),)`."""
        rows = [_arch_row(arch) for arch in archs]
        return cls(**{name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]})


def _arch_row(arch: Arch) -> dict[str, float]:
    attention = {kind: float(arch.attention_kinds.count(kind)) for kind in AttentionKind}
    return {
        "hidden_size": arch.hidden_size,
        "vocab_size": arch.vocab_size,
        "tied": float(arch.tie_word_embeddings),
        "num_full_layers": attention[AttentionKind.FULL],
        "num_window_layers": attention[AttentionKind.WINDOW],
        "num_mla_layers": attention[AttentionKind.MLA],
        "num_linear_layers": attention[AttentionKind.LINEAR],
        "num_dense_layers": float(arch.ffn_kinds.count(FfnKind.DENSE)),
        "num_moe_layers": float(arch.ffn_kinds.count(FfnKind.MOE)),
        "heads": arch.num_attention_heads,
        "kv_heads": max(arch.num_key_value_heads, 1),
        "head_dim": arch.head_dim,
        "query_width_factor": 2.0 if arch.attn_output_gate else 1.0,
        "qk_norm": float(arch.qk_norm),
        "window": arch.sliding_window,
        "window_is_chunked": float(arch.window_is_chunked),
        "q_lora_rank": arch.q_lora_rank,
        "kv_lora_rank": arch.kv_lora_rank,
        "qk_nope_head_dim": arch.qk_nope_head_dim,
        "qk_rope_head_dim": arch.qk_rope_head_dim,
        "v_head_dim": arch.v_head_dim,
        "index_heads": arch.index_n_heads,
        "index_head_dim": arch.index_head_dim,
        "index_topk": arch.index_topk,
        "linear_key_heads": arch.linear_num_key_heads,
        "linear_value_heads": arch.linear_num_value_heads,
        "linear_key_dim": arch.linear_key_head_dim,
        "linear_value_dim": arch.linear_value_head_dim,
        "linear_conv": arch.linear_conv_kernel_dim,
        "intermediate_size": arch.intermediate_size,
        "num_experts": max(arch.num_experts, 1),
        "top_k": arch.num_experts_per_tok,
        "moe_intermediate_size": arch.moe_intermediate_size,
        "shared_intermediate_size": arch.shared_intermediate_size,
        "shared_expert_gate": float(arch.shared_expert_gate),
        "ffn_matrices": arch.ffn_matrices,
        "activation_bytes": 4.0 if arch.activation_dtype == "fp32" else 2.0,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutColumns(Columns):
    """`Layout` as numbers, and how its groups lie over the links of its engine's rank order."""

    replicas: Floats
    pp: Floats
    attn_tp: Floats
    attn_dp: Floats
    attn_cp: Floats
    moe_tp: Floats
    moe_ep: Floats
    dcp: Floats
    redundant_experts: Floats
    width: Floats
    stages_strided: Floats
    """1 where a stage's ranks are not neighbours (`EngineTraits.stages_strided`)."""

    @classmethod
    def of(cls, layouts: Sequence[Layout], engines: Sequence[EngineTraits]) -> LayoutColumns:
        """One row per layout; `engines[i]` launches `layouts[i]`."""
        table = np.array(
            [
                (
                    p.replicas,
                    p.pp,
                    p.attn_tp,
                    p.attn_dp,
                    p.attn_cp,
                    p.moe_tp,
                    p.moe_ep,
                    p.dcp,
                    p.redundant_experts,
                    p.width,
                    engine.stages_strided,
                )
                for p, engine in zip(layouts, engines, strict=True)
            ],
            dtype=np.float64,
        ).reshape(len(layouts), len(fields(cls)))
        return cls(**{f.name: np.ascontiguousarray(table[:, i]) for i, f in enumerate(fields(cls))})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterColumns(Columns):
    """Hardware figures that no dtype enters (those are in `costmodel.efficiency`)."""

    hbm_bytes: Floats
    hbm_bytes_per_s: Floats
    domain_gpus: Floats
    """GPUs that reach each other over the scale-up links."""
    scaleup_bytes_per_s: Floats
    scaleup_latency_s: Floats
    scaleout_bytes_per_s: Floats
    scaleout_latency_s: Floats

    @classmethod
    def of(cls, clusters: Sequence[Cluster]) -> ClusterColumns:
        """One row per cluster."""
        rows = [
            (
                c.gpu.hbm_bytes,
                c.gpu.hbm_bytes_per_s,
                domain_gpus(c),
                c.gpu.scaleup_bytes_per_s,
                c.gpu.scaleup_latency_s,
                c.gpu.scaleout_bytes_per_s,
                c.gpu.scaleout_latency_s,
            )
            for c in clusters
        ]
        table = np.array(rows, dtype=np.float64)
        return cls(**{f.name: np.ascontiguousarray(table[:, i]) for i, f in enumerate(fields(cls))})


def domain_gpus(cluster: Cluster) -> int:
    """GPUs of one scale-up domain: the rack's where the links leave the host (NVL72), else the host's."""
    if cluster.gpu.scaleup_gpus > cluster.gpu.gpus_per_node:
        return cluster.gpu.scaleup_gpus
    return cluster.gpus_per_node
