"""Pipeline stages as counts of layers by kind, and the worst stage of every plan at once.

All layers of a group cost the same on a rank, so a stage is a vector of counts and its seconds (or bytes)
are a dot product. Only stages that no other stage of the plan contains can be the worst one; the others
are dropped, which leaves a handful of candidates however deep the pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from costmodel.arch.arch import Arch, group_order
from costmodel.arch.weights import block_params
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.layout import Layout

EMBED, HEAD_STAGE = "embed", "head"


def layer_kinds(arch: Arch) -> tuple[str, ...]:
    """What the layers of a stage are counted by: the model's groups of layers, its embedding and its LM head."""
    return (*(g.name for g in arch.groups), EMBED, HEAD_STAGE)


@lru_cache(maxsize=4096)
def stage_counts(arch: Arch, stage_layers: tuple[int, ...]) -> NDArray[np.float64]:
    """Layers of each kind on each stage, shape `(stages, len(layer_kinds(arch)))`, first stage first.

    The embedding lies on the first stage and the LM head on the last, as in every engine.
    """
    layers = np.array([g.per_layer for g in arch.groups], dtype=float).T
    ends = np.cumsum(stage_layers)
    sums = np.vstack([np.zeros(layers.shape[1]), np.cumsum(layers, axis=0)])
    counts = np.zeros((len(stage_layers), layers.shape[1] + 2))
    counts[:, :-2] = sums[ends] - sums[ends - np.array(stage_layers)]
    counts[0, -2] = 1.0
    counts[-1, -1] = 1.0
    counts.setflags(write=False)
    return counts


def stage_params(arch: Arch, stage_layers: tuple[int, ...]) -> tuple[int, ...]:
    """Parameters of each stage before any sharding, first stage first.

    Their sum is the model's, and the embedding once more where a tied head lies on another stage.
    """
    head = arch.vocab_size * arch.hidden_size
    ends = {
        EMBED: head + arch.vocab_size * arch.side_embedding_width,
        HEAD_STAGE: head if len(stage_layers) > 1 or not arch.tie_word_embeddings else 0,
    }
    per_layer = {g.name: block_params(arch, g.block) for g in arch.groups} | ends
    counts = stage_counts(arch, stage_layers)
    norms = np.array([layer.norms * arch.hidden_size for layer in arch.layers])
    starts = np.cumsum([0, *stage_layers])
    return tuple(
        sum(int(n) * per_layer[k] for k, n in zip(layer_kinds(arch), row, strict=True)) + int(norms[start:end].sum())
        for row, start, end in zip(counts, starts[:-1], starts[1:], strict=True)
    )


@lru_cache(maxsize=4096)
def maximal_stages(arch: Arch, stage_layers: tuple[int, ...]) -> NDArray[np.float64]:
    """Rows of `stage_counts` that no other row dominates, duplicates removed."""
    # numpy.unique imports numpy.ma, which takes ten milliseconds
    rows = np.array(sorted(set(map(tuple, stage_counts(arch, stage_layers).tolist()))))
    contained = np.asarray((rows[:, None, :] <= rows[None, :, :]).all(axis=2))
    np.fill_diagonal(contained, False)
    return rows[~contained.any(axis=1)]


class StageTable:
    """The worst-stage candidates of a batch: for each plan, rows into one table of count vectors."""

    def __init__(self, kinds: tuple[str, ...], counts: NDArray[np.float64], index: Ints) -> None:
        self.kinds = kinds
        """What layers are counted by."""
        self.counts = counts
        """Shape `(patterns, candidates, len(kinds))`; short lists repeat their first row."""
        self.index = index
        """Pattern of each plan, shape `(num_plans,)` or `(1,)`."""

    @classmethod
    def of(cls, archs: Sequence[Arch], layouts: Sequence[Layout]) -> StageTable:
        """Candidates for `layouts[i]` of `archs[i]`."""
        keys: dict[tuple[int, tuple[int, ...]], int] = {}
        found: list[tuple[Arch, NDArray[np.float64]]] = []
        index = np.empty(len(layouts), dtype=np.int64)
        for i, (arch, layout) in enumerate(zip(archs, layouts, strict=True)):
            key = (id(arch), layout.stage_layers)
            if key not in keys:
                keys[key] = len(found)
                found.append((arch, maximal_stages(arch, layout.stage_layers)))
            index[i] = keys[key]
        names = {g.name for arch in {id(a): a for a, _ in found}.values() for g in arch.groups}
        kinds = (*sorted(names, key=group_order), EMBED, HEAD_STAGE)
        most = max(len(rows) for _, rows in found)
        counts = np.zeros((len(found), most, len(kinds)))
        for pattern, (arch, rows) in enumerate(found):
            places = [kinds.index(k) for k in layer_kinds(arch)]
            counts[pattern, : len(rows), places] = rows.T
            counts[pattern, len(rows) :] = counts[pattern, :1]
        return cls(kinds, counts, index)

    @classmethod
    def each(cls, arch: Arch, layout: Layout) -> StageTable:
        """Every stage of one plan as a plan of its own, first to last, so that `worst` of it is that stage."""
        counts = stage_counts(arch, layout.stage_layers)
        return cls(layer_kinds(arch), counts[:, None, :], np.arange(len(counts)))

    def take(self, index: Ints) -> StageTable:
        """Gather plans."""
        return StageTable(self.kinds, self.counts, self.index[index])

    def slice(self, part: slice | Ints) -> StageTable:
        """Plans of `part`."""
        return StageTable(self.kinds, self.counts, self.index[part])

    @cached_property
    def candidates(self) -> tuple[dict[str, Floats], ...]:
        """Layers of each kind on each candidate stage of every plan, but for kinds that no stage has."""
        held = {kind: k for k, kind in enumerate(self.kinds) if self.counts[:, :, k].any()}
        return tuple(
            {kind: self.counts[self.index, candidate, k] for kind, k in held.items()}
            for candidate in range(self.counts.shape[1])
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of layers, without the embedding and the head."""
        return self.kinds[:-2]

    def worst(self, per_layer: dict[str, Floats]) -> Floats:
        """Largest sum over a plan's stages of `per_layer[kind]` (seconds or bytes), shape `(num_plans,)`."""
        if len(self.candidates) == 1:
            return over_layers(self.candidates[0], per_layer)
        return np.maximum.reduce([over_layers(layers, per_layer) for layers in self.candidates])

    def worst_stage(self, per_layer: dict[str, Floats]) -> dict[str, Floats]:
        """Layers of each kind on the stage with the largest sum, for `over_layers`."""
        if len(self.candidates) == 1:
            return self.candidates[0]
        totals = [over_layers(layers, per_layer) for layers in self.candidates]
        worst = np.argmax(np.stack(np.broadcast_arrays(*totals)), axis=0)
        return {kind: np.choose(worst, [layers[kind] for layers in self.candidates]) for kind in self.candidates[0]}


def over_layers(layers: dict[str, Floats], per_layer: dict[str, Floats]) -> Floats:
    """Sum of `per_layer[kind]` (seconds or bytes of one layer) over a stage with so many `layers` of each kind."""
    result: Floats | float = 0.0
    for kind, count in layers.items():
        if kind in per_layer:
            result = result + count * per_layer[kind]
    return np.asarray(result)
