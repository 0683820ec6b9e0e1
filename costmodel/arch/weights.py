"""Parameters and bytes of a model: what one rank would hold of all of it; and what a token leaves in the cache."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from costmodel.arch.arch import Arch, Group
from costmodel.arch.attention import Attention
from costmodel.arch.block import ATTENTION, HEAD, ONE_RANK, Block
from costmodel.arch.ffn import Experts
from costmodel.dtypes import bytes_per_weight, is_quantised, kv_bytes

COUNTS_EMBEDDING = ("qwen", "mixtral", "llama4", "bailing", "dots1", "grok", "olmoe", "phimoe")
"""Families whose published active parameters include the input embedding (model cards of Qwen3 and Mixtral; for the
others it is what their figures come to). OpenAI's, DeepSeek's and Moonshot's count the LM head only (gpt-oss model
card, table 1)."""
COUNTS_NO_HEAD = ("glm", "minimax")
"""Families whose published active parameters leave out the LM head too (what the figures of GLM-4.5 and M1 come to)."""
FAR = 2**30
"""Tokens beyond every window, a multiple of every ratio by which a cache is compressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightGroup:
    """Weights of one kind in layers of one shape that are stored in one dtype."""

    kind: str
    """What a report calls it: a weight kind, of attention with the group of layers."""
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
        return self.params * bytes_per_weight(self.dtype)


def weight_groups(arch: Arch) -> tuple[WeightGroup, ...]:
    """All weights by kind, layers of one shape and dtype: attention, networks, norms, embeddings, LM head."""
    out = [g for group in arch.groups for g in _of_group(arch, group)]
    plain = arch.activation_dtype
    norms = sum(layer.norms for layer in arch.layers) * arch.hidden_size
    norms += sum(int(g.block.norm_gains) * g.count for g in arch.groups)
    side = arch.side_embedding_width * arch.vocab_size
    table = (
        ("norms", plain, norms, arch.num_hidden_layers),
        ("embedding", arch.embedding_dtype, arch.vocab_size * arch.hidden_size, 1),
        ("side_embedding", arch.embedding_dtype, side, 1),
        (HEAD, arch.lm_head_dtype, arch.vocab_size * arch.hidden_size, int(not arch.tie_word_embeddings)),
    )
    for kind, dtype, params, layers in table:
        if params and layers:
            # norms differ from layer to layer in some models: their mean, whose sum is whole
            out.append(
                WeightGroup(kind=kind, dtype=dtype, params_per_layer=params // layers, layers=layers)
                if params % layers == 0
                else WeightGroup(kind=kind, dtype=dtype, params_per_layer=params, layers=1)
            )
    return tuple(out)


def block_params(arch: Arch, block: Block) -> int:
    """Parameters of one block, all its own norms and biases included."""
    matrices = sum(round(float(m.n * m.k * m.count)) for m in block.matrices(arch.hidden_size, ONE_RANK))
    return matrices + int(block.norm_gains) + sum(int(v) for v in block.vectors(arch.hidden_size).values())


def _of_group(arch: Arch, group: Group) -> list[WeightGroup]:
    sizes: dict[tuple[str, str], int] = {}
    for m in group.block.matrices(arch.hidden_size, ONE_RANK):
        key = (m.weights, group.block.dtype_of(m.name))
        sizes[key] = sizes.get(key, 0) + round(float(m.n * m.k * m.count))
    for kind, params in group.block.vectors(arch.hidden_size).items():
        if params:
            sizes[next(key for key in sizes if key[0] == kind)] += int(params)
    _, _, number = group.name.partition("#")
    return [
        WeightGroup(
            kind=f"attention_{group.name}" if weights == ATTENTION else f"{weights}{'#' if number else ''}{number}",
            dtype=dtype,
            params_per_layer=params,
            layers=group.count,
        )
        for (weights, dtype), params in sizes.items()
        if params
    ]


def checkpoint_dtype(arch: Arch) -> str:
    """What a checkpoint is said to be stored in: the dtype of most of its quantised weights, else of most weights."""
    sizes: Counter[str] = Counter()
    for g in weight_groups(arch):
        sizes[g.dtype] += g.params
    return max([d for d in sizes if is_quantised(d)] or sizes, key=sizes.__getitem__)


def total_params(arch: Arch) -> int:
    """Parameters that are loaded."""
    return sum(g.params for g in weight_groups(arch))


def active_params(arch: Arch) -> int:
    """Parameters that one token is multiplied with.

    The LM head counts, tied or not, and the input embedding (a look-up) does not, but where a family publishes its
    figures otherwise.
    """
    if not arch.is_moe:
        return total_params(arch)
    head = arch.vocab_size * arch.hidden_size
    idle = sum(_idle_params(arch, g.block) * g.count for g in arch.groups if isinstance(g.block, Experts))
    outside = sum(g.params for g in weight_groups(arch) if g.kind in ("embedding", "side_embedding", HEAD))
    active = total_params(arch) - outside - idle
    embedded = arch.model_type.startswith(COUNTS_EMBEDDING) and not arch.tie_word_embeddings
    return round(active) + head * (0 if arch.model_type.startswith(COUNTS_NO_HEAD) else 2 if embedded else 1)


def _idle_params(arch: Arch, block: Experts) -> float:
    """Parameters of a layer's routed experts that a token does not reach, mean."""
    sizes = {m.name: float(m.n * m.k * m.count) for m in block.matrices(arch.hidden_size, ONE_RANK)}
    reached = float(block.routed / block.experts)
    return (sizes["experts"] + float(block.biases)) * (1.0 - reached) + sizes.get("other_experts", 0.0)


def weight_bytes(arch: Arch) -> float:
    """Size of all weights as stored."""
    return sum(g.bytes for g in weight_groups(arch))


def cache_bytes(arch: Arch, tokens: int, kv_dtype: str | None = None) -> float:
    """Cache and states of one sequence of `tokens` over all layers of one unsharded copy."""
    size, activation = kv_bytes(kv_dtype or arch.kv_dtype), bytes_per_weight(arch.activation_dtype)
    return sum(
        float(g.block.cache_bytes(tokens, ONE_RANK, size, activation)) * g.count
        for g in arch.groups
        if isinstance(g.block, Attention)
    )


def kv_bytes_per_token(arch: Arch, kv_dtype: str | None = None) -> float:
    """Cache bytes that a further token adds over all layers of one unsharded copy, beyond every window.

    Window layers stop growing at their window, recurrent ones keep a fixed state: `cache_bytes` has both.
    """
    return (cache_bytes(arch, 2 * FAR, kv_dtype) - cache_bytes(arch, FAR, kv_dtype)) / FAR
