"""Memory of one GPU of the worst stage: weights, KV cache, activations, buffers, reserve. The only source.

KV bytes follow the engines: the MLA latent lies whole on every TP rank; KV heads are replicated once
attention TP exceeds them; window layers stop growing at their window and linear layers keep a fixed state, unless the
server keeps more (`costmodel.engine.CacheRule`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.arch.attention import Attention, CacheParts
from costmodel.arch.block import HEAD, SHARED, Size
from costmodel.arch.ffn import Experts
from costmodel.plan.cache_columns import ALL_SEEN, CacheColumns
from costmodel.plan.columns import ArchColumns, Bools, ClusterColumns, Floats, LayoutColumns
from costmodel.plan.exchange_backend import ExchangeBackend
from costmodel.plan.matrices import RankMatrix
from costmodel.plan.precision import PrecisionColumns
from costmodel.plan.stages import EMBED, HEAD_STAGE, StageTable, over_layers

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
    """That one sequence of mean length takes of `kv_room_bytes` on its attention rank, all layers of the stage. Of
    pools of fixed sizes its share: room for this many bytes has room for one more sequence."""
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
    arch: ArchColumns,
    layout: LayoutColumns,
    precision: PrecisionColumns,
    tokens: Floats,
    cache: CacheColumns = ALL_SEEN,
) -> dict[str, Floats]:
    """Cache bytes of one sequence of `tokens` in one layer of each group, on one rank, whatever pools they lie in."""
    out = {}
    for name, parts in _cache_parts(arch, layout, precision, tokens).items():
        out[name] = np.asarray(parts.context + _windows(parts, cache, tokens) + parts.state)
    return out


def _cache_parts(
    arch: ArchColumns, layout: LayoutColumns, precision: PrecisionColumns, tokens: Floats
) -> dict[str, CacheParts]:
    return {
        g.name: g.block.cache_parts(tokens, layout, precision.kv, arch.activation_bytes)
        for g in arch.attention
        if isinstance(g.block, Attention)
    }


def _windows(parts: CacheParts, cache: CacheColumns, tokens: Floats) -> Size:
    """Bytes of a window as it is kept: the whole context where the server keeps that."""
    if not (np.any(parts.seen) and cache.whole_windows.any()):
        return parts.window
    return parts.window * np.where(cache.whole_windows > 0.0, tokens / np.maximum(parts.seen, 1.0), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one sequence takes of the memory for KV, bytes of one layer of each group, on one rank."""

    first: dict[str, Floats]
    """Of the pool that states share with what is cached of tokens; of the latter alone where states have their own."""
    states: dict[str, Floats]
    """Of the pool of states alone; empty where no plan has one."""

    def each(self, group: str) -> Floats:
        """Of all pools."""
        return self.first[group] + self.states[group] if self.states else self.first[group]

    def on_stage(self, layers: dict[str, Floats]) -> Floats:
        """The same of a stage with so many layers: of the pool that is full first."""
        first = over_layers(layers, self.first)
        return np.maximum(first, over_layers(layers, self.states)) if self.states else first


def taken_bytes(
    arch: ArchColumns,
    layout: LayoutColumns,
    precision: PrecisionColumns,
    tokens: Floats,
    cache: CacheColumns = ALL_SEEN,
) -> Taken:
    """What one sequence of `tokens` takes of the memory for KV.

    Pools of fixed sizes hold as many sequences as the pool that is full first. Where that of windows has `r` tokens for
    each of the other's, a sequence fills it as `seen / r` tokens fill both, which counts where it is more than its own
    `tokens`. Where states have `m` times the memory of the rest, a sequence fills its pools as `(1 + m) / m` times its
    states or `1 + m` times its cache fill them together. SGLang: `HybridSWAPoolConfigurator` of
    model_executor/pool_configurator.py, and `_handle_max_mamba_cache` and `_calculate_mamba_ratio` of
    mem_cache/kv_cache_configurator.py.
    """
    if not (cache.window_ratio.any() or cache.state_ratio.any()):
        return Taken(first=kv_sequence_bytes(arch, layout, precision, tokens, cache), states={})
    held = _cache_parts(arch, layout, precision, tokens)
    there = {g.name: g.layers > 0.0 for g in arch.attention}
    split = cache.window_ratio > 0.0
    ratio = np.where(split, cache.window_ratio, 1.0)
    longest: Floats = np.zeros(1)
    recurrent: Bools = np.zeros(1, dtype=bool)
    for name, parts in held.items():
        longest = np.maximum(longest, parts.seen * there[name])
        recurrent = recurrent | (np.asarray(parts.state > 0.0) & there[name])
    apart = recurrent & (cache.state_ratio > 0.0)
    filled = np.where(split, np.maximum(tokens, longest / ratio), tokens)
    all_pools = np.where(apart, 1.0 + cache.state_ratio, 1.0)
    first, states = {}, {}
    for name, parts in held.items():
        own = parts.window * ratio * filled / np.maximum(parts.seen, 1.0)
        cached = parts.context * (filled / tokens) + np.where(split, own, _windows(parts, cache, tokens))
        first[name] = cached * all_pools + np.where(apart, 0.0, parts.state)
        share = all_pools / np.where(apart, cache.state_ratio, 1.0)
        states[name] = np.where(apart, parts.state * cache.states * share, 0.0)
    return Taken(first=first, states=states)


MOST_STAGES_TRIED = 8
"""Most stages that are looked at for the one that fills first: each that is found has room for fewer sequences than the
one before, and two or three settle it."""


def weight_bytes_by_layer(
    arch: ArchColumns, matrices: tuple[RankMatrix, ...], precision: PrecisionColumns, layout: LayoutColumns
) -> dict[str, dict[str, Floats]]:
    """Weight bytes of one layer on one rank: weight kind -> group of layers -> bytes.

    Gains of norms inside a block and biases, under 0.2 % of any model, are left out.
    """
    out: dict[str, dict[str, Floats]] = {}
    for m in matrices:
        size = m.n * m.k * m.count * precision.bytes_of(m)
        layers = out.setdefault(m.weights, {})
        layers[m.layer] = layers.get(m.layer, 0.0) + size
    embedded = arch.vocab_size / layout.attn_tp * (arch.hidden_size + arch.side_embedding_width)
    out["embedding"] = {EMBED: embedded * precision.embedding}
    norms = 2.0 * arch.hidden_size * arch.activation_bytes
    out["norms"] = {g.name: norms * g.norm_share for g in arch.groups if g.norm_share.any()}
    # a tied head is the embedding once more only where it lies on another stage
    out[HEAD][HEAD_STAGE] = out[HEAD][HEAD_STAGE] * (1.0 - arch.tied * (layout.pp == 1))
    return out


def activation_bytes(
    arch: ArchColumns, layout: LayoutColumns, batched_tokens: Floats, sequences_per_rank: Floats
) -> Floats:
    """Largest live activations of one step of `batched_tokens` per attention rank.

    The residual stream and its normed copy, plus the widest of: attention's projections, a dense FFN's two
    halves, the rows that a rank's experts receive with balanced routing; and the logits of a full batch.
    """
    widest: Floats = np.zeros(1)
    for group in arch.groups:
        block = group.block
        each = block.widest_activation(arch.hidden_size, layout) * (group.layers > 0)
        if isinstance(block, Experts):
            each = each * (layout.attn_dp * layout.attn_cp * block.routed / layout.moe_ep)
        widest = np.maximum(widest, each)
    streams = 1.0 + arch.residual_streams
    stream = batched_tokens / layout.attn_cp * (streams * arch.hidden_size + widest) * arch.activation_bytes
    return stream + sequences_per_rank * arch.vocab_size * LOGITS_BYTES


def plan_memory(  # noqa: PLR0913  # one for each column that memory follows from
    *,
    arch: ArchColumns,
    layout: LayoutColumns,
    matrices: tuple[RankMatrix, ...],
    precision: PrecisionColumns,
    cluster: ClusterColumns,
    stages: StageTable,
    backend: ExchangeBackend,
    batched_tokens: Floats,
    sequences_per_rank: Floats,
    mean_tokens: Floats,
    longest_tokens: Floats,
    memory_fraction: Floats,
    fraction_is_of_free: Floats,
    cache: CacheColumns = ALL_SEEN,
) -> Memory:
    """Memory of every plan's fullest GPU.

    `matrices` are those of `arch` and `layout`; `memory_fraction` is the engine's: of all memory, or of what weights
    and activations leave free where `fraction_is_of_free` is 1.
    """
    by_layer = weight_bytes_by_layer(arch, matrices, precision, layout)
    if SHARED in by_layer:
        shards = np.where(backend.shared_shards > 0.0, backend.shared_shards, layout.attn_tp)
        by_layer[SHARED] = {layer: size * (layout.attn_tp / shards) for layer, size in by_layer[SHARED].items()}
    kv_mean = taken_bytes(arch, layout, precision, mean_tokens, cache)
    kv_longest = taken_bytes(arch, layout, precision, longest_tokens, cache)
    whole: dict[str, Floats] = {}
    for layers in by_layer.values():
        for kind, size in layers.items():
            whole[kind] = whole.get(kind, 0.0) + size
    activations = activation_bytes(arch, layout, batched_tokens, sequences_per_rank)
    buffers = GROUP_BUFFER_BYTES * (layout.width * layout.pp > 1) + backend.buffer_bytes(sequences_per_rank)
    reserve = np.full_like(activations, CONTEXT_BYTES + GRAPH_BYTES)
    # the stage with the most weights and cache together is the one that fills first, with as many as it has room for
    held = sequences_per_rank + 0.0 * activations
    for _ in range(MOST_STAGES_TRIED):
        with_kv = dict(whole)
        for kind in kv_mean.first:
            with_kv[kind] = with_kv.get(kind, 0.0) + kv_mean.each(kind) * held
        fullest = stages.worst_stage(with_kv)
        weights = {name: over_layers(fullest, layers) for name, layers in by_layer.items()}
        fixed = np.asarray(sum(weights.values())) + activations + buffers + reserve
        of_total = memory_fraction * cluster.hbm_bytes - fixed
        of_free = memory_fraction * (cluster.hbm_bytes - fixed)
        room = np.where(fraction_is_of_free > 0, of_free, of_total)
        kv_each = kv_mean.on_stage(fullest)
        fitting = np.minimum(held, np.maximum(room, 0.0) / np.maximum(kv_each, 1e-9))
        if (fitting >= held).all():
            break
        held = fitting
    return Memory(
        weights_bytes=weights,
        activation_bytes=activations,
        buffer_bytes=buffers + 0.0 * activations,
        reserve_bytes=reserve,
        kv_bytes_per_sequence=kv_each,
        kv_bytes_longest=kv_longest.on_stage(fullest),
        kv_room_bytes=room,
        hbm_bytes=cluster.hbm_bytes + 0.0 * activations,
    )
