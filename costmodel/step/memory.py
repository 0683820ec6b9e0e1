"""Memory of one GPU of the worst stage: weights, KV cache, activations, buffers, reserve. The only source.

KV bytes follow the engines: the MLA latent lies whole on every TP rank; KV heads are replicated once
attention TP exceeds them; window layers stop growing at their window; linear layers keep a fixed state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.plan.columns import ArchColumns, ClusterColumns, Floats, LayoutColumns
from costmodel.plan.matrices import Matrix, kv_heads_per_rank, rank_matrices
from costmodel.plan.precision import PrecisionColumns
from costmodel.plan.stages import StageTable, over_layers

LINEAR_STATE_BYTES = 4.0
"""The recurrent state is kept in fp32 (Qwen3-Next: `mamba_ssm_dtype`)."""
CONTEXT_BYTES = 0.6e9
"""CUDA context, kernels and library workspaces of a process; measured on H100 with CUDA 12: 0.5-0.7 GB."""
GRAPH_BYTES = 1.0e9
"""CUDA graphs for the decode batch sizes; vLLM logs 0.5-2 GiB at start-up."""
GROUP_BUFFER_BYTES = 0.4e9
"""NCCL and custom all-reduce buffers, once a rank talks to others."""
LOGITS_BYTES = 6.0
"""bf16 logits and their fp32 copy for sampling, per vocabulary entry and sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one GPU of the stage that fills first. Every array has shape `(num_plans,)`."""

    weights_bytes: dict[str, Floats]
    """By weight kind."""
    activation_bytes: Floats
    buffer_bytes: Floats
    reserve_bytes: Floats
    kv_bytes_per_sequence: Floats
    """Of one sequence of mean length, on its attention rank, all layers of the stage."""
    kv_bytes_longest: Floats
    """Of one sequence of the longest prompt and its output."""
    kv_room_bytes: Floats
    """What the engine's memory fraction leaves for KV; negative where the rest does not fit."""
    hbm_bytes: Floats

    @property
    def weight_bytes(self) -> Floats:
        """All weights."""
        return np.asarray(sum(self.weights_bytes.values()))

    @property
    def fixed_bytes(self) -> Floats:
        """All but KV."""
        return self.weight_bytes + self.activation_bytes + self.buffer_bytes + self.reserve_bytes

    @property
    def sequences_per_rank(self) -> Floats:
        """Sequences of mean length for which a rank has KV room, whole ones."""
        return np.floor(np.maximum(self.kv_room_bytes, 0.0) / self.kv_bytes_per_sequence)

    @property
    def kv_fits_longest(self) -> Floats:
        """KV room over the bytes of one longest sequence."""
        return self.kv_room_bytes / self.kv_bytes_longest

    def by_kind(self, kv_bytes: Floats) -> dict[str, Floats]:
        """Everything on the GPU with so much cache in use: weight kinds, cache, activations, buffers, reserve."""
        return {
            **self.weights_bytes,
            "kv_cache": kv_bytes,
            "activations": self.activation_bytes,
            "buffers": self.buffer_bytes,
            "reserve": self.reserve_bytes,
        }

    def kv_bytes(self, sequences_per_rank: Floats) -> Floats:
        """KV in use with so many sequences wanted on a rank: no more than there is room for."""
        wanted = sequences_per_rank * self.kv_bytes_per_sequence
        return np.minimum(wanted, np.maximum(self.kv_room_bytes, 0.0))


def kv_sequence_bytes(
    arch: ArchColumns, layout: LayoutColumns, precision: PrecisionColumns, tokens: Floats
) -> dict[str, Floats]:
    """Cache bytes of one sequence of `tokens` in one layer of each kind, on one rank."""
    shards = layout.attn_cp * layout.dcp
    per_token = 2.0 * kv_heads_per_rank(arch, layout.attn_tp) * arch.head_dim * precision.kv
    latent = (arch.kv_lora_rank + arch.qk_rope_head_dim) * precision.kv + arch.index_head_dim
    state = (
        arch.linear_value_heads / layout.attn_tp * (arch.linear_key_dim * arch.linear_value_dim * LINEAR_STATE_BYTES)
    )
    conv = (
        (2.0 * arch.linear_key_heads * arch.linear_key_dim + arch.linear_value_heads * arch.linear_value_dim)
        / layout.attn_tp
        * np.maximum(arch.linear_conv - 1.0, 0.0)
        * arch.activation_bytes
    )
    return {
        "full": tokens / shards * per_token,
        "window": np.minimum(tokens, arch.window) / shards * per_token,
        "mla": tokens / shards * latent,
        "linear": state + conv,
    }


def weight_bytes_by_layer(
    arch: ArchColumns, matrices: tuple[Matrix, ...], precision: PrecisionColumns, layout: LayoutColumns
) -> dict[str, dict[str, Floats]]:
    """Weight bytes of one layer on one rank: weight kind -> layer kind -> bytes."""
    out: dict[str, dict[str, Floats]] = {}
    for m in matrices:
        size = m.n * m.k * m.count * precision.bytes_of(m.weights)
        layers = out.setdefault(m.weights, {})
        layers[m.layer] = layers.get(m.layer, 0.0) + size
    out["embedding"] = {"embed": arch.vocab_size / layout.attn_tp * arch.hidden_size * precision.embedding}
    norms = 2.0 * arch.hidden_size * arch.activation_bytes
    out["norms"] = {"dense": norms, "moe": norms}
    # a tied head is the embedding once more only where it lies on another stage
    out["lm_head"]["head"] = out["lm_head"]["head"] * (1.0 - arch.tied * (layout.pp == 1))
    return out


def activation_bytes(
    arch: ArchColumns, layout: LayoutColumns, batched_tokens: Floats, sequences_per_rank: Floats
) -> Floats:
    """Largest live activations of one step of `batched_tokens` per attention rank.

    The residual stream and its normed copy, plus the widest of: attention's projections, a dense FFN's two
    halves, the rows that a rank's experts receive with balanced routing; and the logits of a full batch.
    """
    attention = (arch.heads * np.maximum(arch.head_dim, arch.v_head_dim) * 3.0) / layout.attn_tp
    dense = 1.5 * (arch.ffn_matrices - 1.0) * arch.intermediate_size / layout.attn_tp
    rows = layout.attn_dp * layout.attn_cp * arch.top_k / layout.moe_ep
    experts = rows * (
        2.0 * arch.hidden_size + 1.5 * (arch.ffn_matrices - 1.0) * arch.moe_intermediate_size / layout.moe_tp
    )
    widest = np.maximum(np.maximum(attention, dense * (arch.num_dense_layers > 0)), experts)
    stream = batched_tokens / layout.attn_cp * (2.0 * arch.hidden_size + widest) * arch.activation_bytes
    return stream + sequences_per_rank * arch.vocab_size * LOGITS_BYTES


def plan_memory(
    *,
    arch: ArchColumns,
    layout: LayoutColumns,
    precision: PrecisionColumns,
    cluster: ClusterColumns,
    stages: StageTable,
    batched_tokens: Floats,
    sequences_per_rank: Floats,
    mean_tokens: Floats,
    longest_tokens: Floats,
    memory_fraction: Floats,
    fraction_is_of_free: Floats,
) -> Memory:
    """Memory of every plan's fullest GPU.

    `memory_fraction` is the engine's: of all memory, or of what weights and activations leave free where
    `fraction_is_of_free` is 1.
    """
    matrices = rank_matrices(arch, layout)
    by_layer = weight_bytes_by_layer(arch, matrices, precision, layout)
    kv_mean = kv_sequence_bytes(arch, layout, precision, mean_tokens)
    kv_longest = kv_sequence_bytes(arch, layout, precision, longest_tokens)
    whole: dict[str, Floats] = {}
    for layers in by_layer.values():
        for kind, size in layers.items():
            whole[kind] = whole.get(kind, 0.0) + size
    # the stage with the most weights and cache together is the one that fills first
    with_kv = dict(whole)
    for kind, size in kv_mean.items():
        with_kv[kind] = with_kv.get(kind, 0.0) + size * sequences_per_rank
    fullest = stages.worst_stage(with_kv)
    weights = {name: over_layers(fullest, layers) for name, layers in by_layer.items()}
    activations = activation_bytes(arch, layout, batched_tokens, sequences_per_rank)
    buffers = GROUP_BUFFER_BYTES * (layout.width * layout.pp > 1)
    reserve = np.full_like(activations, CONTEXT_BYTES + GRAPH_BYTES)
    fixed = np.asarray(sum(weights.values())) + activations + buffers + reserve
    of_total = memory_fraction * cluster.hbm_bytes - fixed
    of_free = memory_fraction * (cluster.hbm_bytes - fixed)
    return Memory(
        weights_bytes=weights,
        activation_bytes=activations,
        buffer_bytes=buffers + 0.0 * activations,
        reserve_bytes=reserve,
        kv_bytes_per_sequence=over_layers(fullest, kv_mean),
        kv_bytes_longest=over_layers(fullest, kv_longest),
        kv_room_bytes=np.where(fraction_is_of_free > 0, of_free, of_total),
        hbm_bytes=cluster.hbm_bytes + 0.0 * activations,
    )
