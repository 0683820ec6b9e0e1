"""Blocks of a layer: what an attention or a feed-forward network holds and caches, cut over the ranks of a plan.

A block is the one source of its weights, its GEMMs, its cache and its parameters. Its fields are whole numbers of one
model, or columns of shape `(num_plans,)` with one entry per plan (`stack`): every formula serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Size = float | NDArray[np.float64]
"""A number of one model, or a column over plans."""

ATTENTION, DENSE, EXPERTS = "attention", "dense_ffn", "experts"
SHARED, ROUTER, HEAD = "shared_experts", "router", "lm_head"
"""Weight kinds: what a dtype is asked for, and what a report sums weights by."""


class Cut(Protocol):
    """How a layer is cut over ranks; a `Layout`, columns of layouts, or `Shards`."""

    @property
    def attn_tp(self) -> Size:
        """Shards of attention heads."""

    @property
    def attn_cp(self) -> Size:
        """Shards of a prompt's tokens."""

    @property
    def dcp(self) -> Size:
        """Shards of the cache over TP ranks."""

    @property
    def moe_tp(self) -> Size:
        """Shards of every expert."""

    @property
    def moe_ep(self) -> Size:
        """Groups of experts."""

    @property
    def redundant_experts(self) -> Size:
        """Copies of experts over all groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """A cut by itself, without a layout: not cut at all where nothing is said."""

    attn_tp: Size = 1
    attn_cp: Size = 1
    dcp: Size = 1
    moe_tp: Size = 1
    moe_ep: Size = 1
    redundant_experts: Size = 0


ONE_RANK = Shards()
"""A model that is not cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One weight matrix as a rank holds it: a step multiplies its tokens by this `k x n`."""

    name: str
    weights: str
    """Weight kind."""
    n: Size
    k: Size
    count: Size = 1.0
    """How many of them the rank holds (its experts)."""
    multiplied: bool = True
    """False where it is not a plain GEMM over the step's tokens (experts have a law of their own)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Base of all blocks. Fields of type `Size` become columns, all others are the same in every model of a column."""

    NOT_ZERO: ClassVar[frozenset[str]] = frozenset()
    """Fields that formulas divide by: 1 in plans whose model lacks the block, where all others are 0."""

    dtypes: tuple[tuple[str, str], ...] = ()
    """Matrix name and the dtype that it is stored in (`costmodel.dtypes`); bf16 where it is not named."""
    norm_gains: Size = 0
    """Parameters of norms inside the block (of queries and keys, of latents, of states)."""
    biases: Size = 0
    """Other parameters that are no matrices: biases, attention sinks, decay rates."""

    @property
    def group_name(self) -> str:
        """Kind of block, which names the group of layers that have it."""
        raise NotImplementedError

    def matrices(self, hidden: Size, cut: Cut) -> tuple[Matrix, ...]:
        """Matrices that one rank holds, of a model `hidden` wide."""
        raise NotImplementedError

    def inputs(self, hidden: Size, cut: Cut) -> dict[str, Size]:
        """Length of the input of every matrix on a rank, by its name: what a rank's scales along it must fit."""
        return {m.name: m.k for m in self.matrices(hidden, cut)}

    def widest_activation(self, hidden: Size, cut: Cut) -> Size:
        """Elements per token of the largest activations that live at once inside the block, on one rank."""
        raise NotImplementedError

    def vectors(self, hidden: Size) -> dict[str, Size]:  # noqa: ARG002  # of mixtures of experts
        """Parameters outside matrices and norms, by the weight kind that they are reported with."""
        return {self.matrices(1, ONE_RANK)[0].weights: self.biases}

    def dtype_of(self, matrix: str) -> str:
        """Storage dtype of a matrix."""
        return dict(self.dtypes).get(matrix, "bf16")

    def with_dtypes(self, choose: Callable[[Matrix], str]) -> Self:
        """The same block stored otherwise."""
        return replace(self, dtypes=tuple((m.name, choose(m)) for m in self.matrices(1, ONE_RANK)))

    @classmethod
    @lru_cache(maxsize=64)
    def size_fields(cls) -> tuple[str, ...]:
        """Names of the fields that become columns."""
        return tuple(f.name for f in fields(cls) if f.type == "Size")

    def map_sizes(self, change: Callable[[str, Size], Size]) -> Self:
        """The same block with each of its sizes changed."""
        changed: dict[str, Any] = {name: change(name, getattr(self, name)) for name in self.size_fields()}
        return replace(self, **changed)


B = TypeVar("B", bound=Block)


def stack(blocks: Sequence[B | None]) -> B:
    """Blocks of one class as columns of shape `(len(blocks),)`; None where a model lacks the block.

    Raises:
        ValueError: every entry is None.
    """
    known = next((b for b in blocks if b is not None), None)
    if known is None:
        raise ValueError("a column of blocks must hold at least one, got none")

    def column(name: str, _: Size) -> Size:
        lacking = 1.0 if name in known.NOT_ZERO else 0.0
        return np.array([lacking if b is None else getattr(b, name) for b in blocks], dtype=np.float64)

    return known.map_sizes(column)
