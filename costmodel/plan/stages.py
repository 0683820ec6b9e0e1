"""Pipeline stages as counts of layers by kind, and the worst stage of every plan at once.

All layers of a kind cost the same on a rank, so a stage is a vector of counts and its seconds (or bytes)
are a dot product. Only stages that no other stage of the plan contains can be the worst one; the others
are dropped, which leaves a handful of candidates however deep the pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from costmodel.arch.arch import Arch
from costmodel.arch.params import weight_groups
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.layout import Layout

LAYER_KINDS = ("full", "window", "mla", "linear", "dense", "moe", "embed", "head")
_HOLDERS = {
    "dense_ffn": ("dense",),
    "router": ("moe",),
    "experts": ("moe",),
    "shared_experts": ("moe",),
    "norms": ("dense", "moe"),
    "embedding": ("embed",),
    "lm_head": ("head",),
}
"""Weight kind -> kinds of layer that hold it, once each; attention's kinds are called like their layers."""


@lru_cache(maxsize=4096)
def stage_counts(arch: Arch, stage_layers: tuple[int, ...]) -> NDArray[np.float64]:
    """Layers of each kind on each stage, shape `(stages, len(LAYER_KINDS))`, first stage first.

    The embedding lies on the first stage and the LM head on the last, as in every engine.
    """
    attention = np.array([[kind == name for name in LAYER_KINDS[:4]] for kind in arch.attention_kinds], dtype=float)
    ffn = np.array([[kind == name for name in LAYER_KINDS[4:6]] for kind in arch.ffn_kinds], dtype=float)
    layers = np.hstack([attention, ffn])
    ends = np.cumsum(stage_layers)
    sums = np.vstack([np.zeros(layers.shape[1]), np.cumsum(layers, axis=0)])
    counts = np.zeros((len(stage_layers), len(LAYER_KINDS)))
    counts[:, :6] = sums[ends] - sums[ends - np.array(stage_layers)]
    counts[0, 6] = 1.0
    counts[-1, 7] = 1.0
    counts.setflags(write=False)
    return counts


def stage_params(arch: Arch, stage_layers: tuple[int, ...]) -> tuple[int, ...]:
    """Parameters of each stage before any sharding, first stage first.

    Their sum is the model's, and the embedding once more where a tied head lies on another stage.
    """
    per_layer: dict[str, int] = {}
    for group in weight_groups(arch):
        for kind in _HOLDERS.get(group.kind, (group.kind.removeprefix("attention_"),)):
            per_layer[kind] = per_layer.get(kind, 0) + group.params_per_layer
    if arch.tie_word_embeddings and len(stage_layers) > 1:
        per_layer["head"] = arch.vocab_size * arch.hidden_size
    counts = stage_counts(arch, stage_layers)
    return tuple(sum(int(n) * per_layer.get(k, 0) for k, n in zip(LAYER_KINDS, row, strict=True)) for row in counts)


@lru_cache(maxsize=4096)
def maximal_stages(arch: Arch, stage_layers: tuple[int, ...]) -> NDArray[np.float64]:
    """Rows of `stage_counts` that no other row dominates, duplicates removed."""
    rows = np.unique(stage_counts(arch, stage_layers), axis=0)
    contained = np.asarray((rows[:, None, :] <= rows[None, :, :]).all(axis=2))
    np.fill_diagonal(contained, False)
    return rows[~contained.any(axis=1)]


class StageTable:
    """The worst-stage candidates of a batch: for each plan, rows into one table of count vectors."""

    def __init__(self, counts: NDArray[np.float64], index: Ints) -> None:
        self.counts = counts
        """Shape `(patterns, candidates, len(LAYER_KINDS))`; short lists repeat their first row."""
        self.index = index
        """Pattern of each plan, shape `(num_plans,)` or `(1,)`."""

    @classmethod
    def of(cls, archs: Sequence[Arch], layouts: Sequence[Layout]) -> StageTable:
        """Candidates for `layouts[i]` of `archs[i]`."""
        keys: dict[tuple[int, tuple[int, ...]], int] = {}
        patterns: list[NDArray[np.float64]] = []
        index = np.empty(len(layouts), dtype=np.int64)
        for i, (arch, layout) in enumerate(zip(archs, layouts, strict=True)):
            key = (id(arch), layout.stage_layers)
            if key not in keys:
                keys[key] = len(patterns)
                patterns.append(maximal_stages(arch, layout.stage_layers))
            index[i] = keys[key]
        most = max(len(p) for p in patterns)
        counts = np.stack([np.vstack([p, np.repeat(p[:1], most - len(p), axis=0)]) for p in patterns])
        return cls(counts, index)

    @classmethod
    def each(cls, arch: Arch, layout: Layout) -> StageTable:
        """Every stage of one plan as a plan of its own, first to last, so that `worst` of it is that stage."""
        counts = stage_counts(arch, layout.stage_layers)
        return cls(counts[:, None, :], np.arange(len(counts)))

    def take(self, index: Ints) -> StageTable:
        """Gather plans."""
        return StageTable(self.counts, self.index[index])

    def slice(self, part: slice) -> StageTable:
        """Plans of `part`."""
        return StageTable(self.counts, self.index[part])

    @cached_property
    def candidates(self) -> tuple[dict[str, Floats], ...]:
        """Layers of each kind on each candidate stage of every plan, but for kinds that no stage has."""
        held = {kind: k for k, kind in enumerate(LAYER_KINDS) if self.counts[:, :, k].any()}
        return tuple(
            {kind: self.counts[self.index, candidate, k] for kind, k in held.items()}
            for candidate in range(self.counts.shape[1])
        )

    def worst(self, per_layer: dict[str, Floats]) -> Floats:
        """Largest sum over a plan's stages of `per_layer[kind]` (seconds or bytes), shape `(num_plans,)`."""
        return np.maximum.reduce([over_layers(layers, per_layer) for layers in self.candidates])

    def worst_stage(self, per_layer: dict[str, Floats]) -> dict[str, Floats]:
        """Layers of each kind on the stage with the largest sum, for `over_layers`."""
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
