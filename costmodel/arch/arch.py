"""What a model is: a list of layers, engine-neutral, one value per model.

Nothing here knows a file format; `costmodel.arch.hf` reads config.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from costmodel.arch.attention import Attention, AttentionKind
from costmodel.arch.block import ATTENTION, DENSE, EXPERTS, HEAD, ONE_RANK, SHARED, Block
from costmodel.arch.ffn import Dense, Experts, Ffn, FfnKind

_ORDER = {kind.value: rank for rank, kind in enumerate((*AttentionKind, *FfnKind))}


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDtypes:
    """Storage dtype of most weights of each kind (`costmodel.dtypes`)."""

    attention: str = "bf16"
    dense_ffn: str = "bf16"
    experts: str = "bf16"
    shared_experts: str = "bf16"
    embedding: str = "bf16"
    lm_head: str = "bf16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of the list: what mixes its tokens, and what follows.

    Most have one attention and one network. A layer of Nemotron-H has one of the two, one of Falcon-H1 attention and
    a state-space block side by side, one of Gemma 4 a dense network beside its experts, one of LongCat-Flash two
    attentions and three networks.
    """

    attention: tuple[Attention, ...]
    ffn: tuple[Ffn, ...]
    norms: int = 2
    """Norms over the hidden size."""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All of them."""
        return (*self.attention, *self.ffn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Layers that have the same block, which the cost model counts together."""

    name: str
    """Kind of the block; a second shape of the kind is called `kind#2`."""
    block: Block
    per_layer: tuple[int, ...]
    """How many of it each layer of the model has, first to last."""

    @property
    def count(self) -> int:
        """Over all layers."""
        return sum(self.per_layer)


def group_kind(name: str) -> str:
    """Kind of a group's block."""
    return name.partition("#")[0]


def group_order(name: str) -> tuple[int, int]:
    """Sorting key of group names: by kind, attention first, and by number."""
    kind, _, number = name.partition("#")
    return _ORDER[kind], int(number or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arch:
    """Architecture of a decoder-only language model."""

    name: str
    model_type: str
    hidden_size: int
    vocab_size: int
    tie_word_embeddings: bool
    layers: tuple[Layer, ...]
    """First to last; pipeline stages are cut between them."""
    embedding_dtype: str = "bf16"
    lm_head_dtype: str = "bf16"
    activation_dtype: str = "bf16"
    kv_dtype: str = "bf16"
    """What the checkpoint asks for; engines may be told otherwise."""
    side_embedding_width: int = 0
    """Columns of a second embedding, of all layers together, that is looked up and added inside layers (Gemma 3n)."""
    residual_streams: int = 1
    """Copies of the hidden state that run through the layers (DeepSeek-V4's hyper-connections)."""
    max_position_embeddings: int = 0
    assumptions: tuple[str, ...] = ()
    """What the source left open and was filled in, in plain sentences."""

    dtypes: WeightDtypes = field(init=False, compare=False, repr=False)
    """Storage of most weights of each kind; single matrices may differ (`Block.dtype_of`)."""
    groups: tuple[Group, ...] = field(init=False, compare=False, repr=False)
    """Layers by what they have: attention first, in the order of the kinds."""
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Count what many formulas ask for once."""
        object.__setattr__(self, "groups", _groups(self.layers))
        object.__setattr__(self, "dtypes", _most_common_dtypes(self))
        object.__setattr__(self, "_hash", hash(tuple(getattr(self, f.name) for f in fields(self) if f.compare)))

    def __hash__(self) -> int:
        """Of a key of many tables, with hundreds of values in it."""
        return self._hash

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Arch], tuple[dict[str, Any]]]:
        """Another process counts, and hashes, for itself."""
        return _unpickled, ({f.name: getattr(self, f.name) for f in fields(self) if f.init},)

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the model."""
        return len(self.layers)

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """Distinct shapes of attention and recurrent blocks."""
        return tuple(g.block for g in self.groups if isinstance(g.block, Attention))

    @property
    def expert_shapes(self) -> tuple[Experts, ...]:
        """Distinct shapes of mixtures of experts."""
        return tuple(g.block for g in self.groups if isinstance(g.block, Experts))

    @property
    def dense_shapes(self) -> tuple[Dense, ...]:
        """Distinct shapes of dense networks."""
        return tuple(g.block for g in self.groups if isinstance(g.block, Dense))

    @property
    def attention_kinds(self) -> tuple[AttentionKind, ...]:
        """Kind of every attention and recurrent block, first to last."""
        return tuple(a.kind for layer in self.layers for a in layer.attention)

    @property
    def ffn_kinds(self) -> tuple[FfnKind, ...]:
        """Kind of every feed-forward block, first to last."""
        return tuple(FfnKind(f.group_name) for layer in self.layers for f in layer.ffn)

    @property
    def is_moe(self) -> bool:
        """Whether any layer has routed experts."""
        return any(isinstance(g.block, Experts) for g in self.groups)

    @property
    def num_experts(self) -> int:
        """Routed experts of a layer that has any, at most; 0 in a dense model."""
        return int(max((e.experts for e in self.expert_shapes), default=0))

    def layer_groups(self, layer: int) -> Iterator[str]:
        """Names of the groups that a layer is of, attention first; one name for each block."""
        for group in self.groups:
            for _ in range(group.per_layer[layer]):
                yield group.name


def _unpickled(values: dict[str, Any]) -> Arch:
    return Arch(**values)


def _groups(layers: tuple[Layer, ...]) -> tuple[Group, ...]:
    found: dict[Block, list[int]] = {}
    for i, layer in enumerate(layers):
        for block in layer.blocks:
            found.setdefault(block, [0] * len(layers))[i] += 1
    seen: Counter[str] = Counter()
    out = []
    for block, counts in found.items():
        kind = block.group_name
        seen[kind] += 1
        name = kind if seen[kind] == 1 else f"{kind}#{seen[kind]}"
        out.append(Group(name=name, block=block, per_layer=tuple(counts)))
    return tuple(sorted(out, key=lambda g: group_order(g.name)))


def _most_common_dtypes(arch: Arch) -> WeightDtypes:
    sizes: dict[str, Counter[str]] = {kind: Counter() for kind in (ATTENTION, DENSE, EXPERTS, SHARED)}
    for group in arch.groups:
        for m in group.block.matrices(arch.hidden_size, ONE_RANK):
            if m.weights in sizes and m.multiplied | (m.weights == EXPERTS):
                sizes[m.weights][group.block.dtype_of(m.name)] += int(m.n * m.k * m.count) * group.count
    most = {kind: found.most_common(1)[0][0] for kind, found in sizes.items() if found}
    plain = arch.activation_dtype
    return WeightDtypes(
        **{kind: most.get(kind, plain) for kind in sizes}, embedding=arch.embedding_dtype, **{HEAD: arch.lm_head_dtype}
    )
