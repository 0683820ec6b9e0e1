"""Architectures, layouts and clusters as columns: one float array per field, one entry per plan.

Every formula of the cost model reads these and nothing else, so that one plan, a million plans of one
model, and a file of measured runs of many models all go through the same code. A column has shape
`(num_plans,)`, or `(1,)` when all plans share the value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from costmodel.arch.arch import Arch, Group, group_kind, group_order
from costmodel.arch.attention import Attention
from costmodel.arch.block import Block, stack
from costmodel.arch.ffn import Experts
from costmodel.engine import EngineTraits
from costmodel.hardware.gpu import Cluster
from costmodel.plan.layout import Layout

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Columns:
    """Base of the column sets: every field is an array over plans, a column set, several of them, or one for all."""

    @property
    def shape_is_shared(self) -> bool:
        """Whether all plans share one row."""
        first = getattr(self, self._names()[0])
        return first.shape_is_shared if isinstance(first, Columns) else bool(first.shape[0] == 1)

    def take(self, index: Ints) -> Self:
        """Gather rows: entry `i` of the result is entry `index[i]` of this (shape `(len(index),)`)."""
        return self.map_arrays(lambda values: values[index])

    def slice(self, part: slice | Ints) -> Self:
        """Rows of `part`; columns that all plans share stay as they are."""
        return self.map_arrays(lambda values: values if values.shape[0] == 1 else values[part])

    def map_arrays(self, gather: Callable[[Floats], Floats]) -> Self:
        """Every array changed."""
        return type(self)(**{name: _gathered(getattr(self, name), gather) for name in self._names()})

    @classmethod
    @lru_cache(maxsize=64)
    def _names(cls) -> tuple[str, ...]:
        # looked up once: reading the fields of a dataclass takes as long as slicing a column
        return tuple(f.name for f in fields(cls))


def _gathered(value: Any, gather: Callable[[Floats], Floats]) -> Any:
    if isinstance(value, np.ndarray):
        return gather(value)
    if isinstance(value, Columns):
        return value.map_arrays(gather)
    if isinstance(value, Block):
        return value.map_sizes(lambda _, size: gather(np.asarray(size)))
    return tuple(_gathered(v, gather) for v in value) if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupColumns(Columns):
    """A group of layers in every model of a batch: one `Block` of columns, with no layers where a model lacks it."""

    layers: Floats
    """Layers of a model that have the block."""
    norm_share: Floats
    """Share of a layer's pair of norms that is booked on the block: 1 for the attention of an ordinary layer."""
    block: Block
    name: str

    @property
    def kind(self) -> str:
        """Kind of the block."""
        return group_kind(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchColumns(Columns):
    """`Arch` as numbers, and its groups of layers as columns of their own."""

    hidden_size: Floats
    vocab_size: Floats
    tied: Floats
    activation_bytes: Floats
    residual_streams: Floats
    side_embedding_width: Floats
    attention: tuple[GroupColumns, ...]
    ffn: tuple[GroupColumns, ...]

    @classmethod
    def of(cls, archs: Sequence[Arch]) -> ArchColumns:
        """One row per architecture, shape `(len(archs),)`; groups of the same name share a column."""

        def column(of: Callable[[Arch], float]) -> Floats:
            return np.array([of(a) for a in archs], dtype=np.float64)

        names = sorted({g.name for a in archs for g in a.groups}, key=group_order)
        groups = tuple(_group_columns(archs, name) for name in names)
        return cls(
            hidden_size=column(lambda a: a.hidden_size),
            vocab_size=column(lambda a: a.vocab_size),
            tied=column(lambda a: a.tie_word_embeddings),
            activation_bytes=column(lambda a: 4.0 if a.activation_dtype == "fp32" else 2.0),
            residual_streams=column(lambda a: a.residual_streams),
            side_embedding_width=column(lambda a: a.side_embedding_width),
            attention=tuple(g for g in groups if isinstance(g.block, Attention)),
            ffn=tuple(g for g in groups if not isinstance(g.block, Attention)),
        )

    @property
    def groups(self) -> tuple[GroupColumns, ...]:
        """All of them, attention first."""
        return (*self.attention, *self.ffn)

    @property
    def experts(self) -> tuple[tuple[GroupColumns, Experts], ...]:
        """Groups of layers with experts, and their blocks."""
        return tuple((g, g.block) for g in self.ffn if isinstance(g.block, Experts))

    @property
    def half_layers(self) -> Floats:
        """Blocks of a model: an ordinary layer is two of them."""
        return np.asarray(sum(g.layers for g in self.groups))


def _group_columns(archs: Sequence[Arch], name: str) -> GroupColumns:
    found = [next((g for g in a.groups if g.name == name), None) for a in archs]
    return GroupColumns(
        layers=np.array([0.0 if g is None else g.count for g in found], dtype=np.float64),
        norm_share=np.array([0.0 if g is None else _norm_share(a, g) for a, g in zip(archs, found, strict=True)]),
        block=stack([None if g is None else g.block for g in found]),
        name=name,
    )


@lru_cache(maxsize=4096)
def _norm_share(arch: Arch, group: Group) -> float:
    """Mean over the group's layers: half a pair of norms before attention, half before what follows it."""
    total = 0.0
    for layer, count in zip(arch.layers, group.per_layer, strict=True):
        halves = (len(layer.attention) > 0) + (len(layer.ffn) > 0)
        bearers = layer.attention or layer.ffn
        if group.block in bearers:
            total += 0.5 * halves * count / len(bearers)
    return total / group.count


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
    two_batch_overlap: Floats
    overlap_prompt_tokens: Floats
    """Tokens of a rank's step with prompts from which the engine makes two batches of it."""
    overlap_decode_tokens: Floats
    """The same of a step of decoding alone."""
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
                    p.two_batch_overlap,
                    engine.overlap_prompt_tokens,
                    engine.overlap_decode_tokens,
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
                c.domain_gpus,
                c.gpu.scaleup_bytes_per_s,
                c.gpu.scaleup_latency_s,
                c.gpu.scaleout_bytes_per_s,
                c.gpu.scaleout_latency_s,
            )
            for c in clusters
        ]
        table = np.array(rows, dtype=np.float64)
        return cls(**{f.name: np.ascontiguousarray(table[:, i]) for i, f in enumerate(fields(cls))})
