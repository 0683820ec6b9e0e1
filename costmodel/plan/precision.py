"""Dtypes as columns: bytes of a weight by weight kind, of a cached value, of an activation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from costmodel.arch.arch import Arch
from costmodel.arch.block import ATTENTION, DENSE, EXPERTS, HEAD, ONE_RANK, ROUTER, SHARED
from costmodel.dtypes import bytes_per_weight, kv_bytes
from costmodel.plan.columns import Columns, Floats
from costmodel.plan.matrices import RankMatrix


def kind_dtypes(arch: Arch) -> dict[str, str]:
    """Storage dtype of most weights of each weight kind."""
    d = arch.dtypes
    return {
        ATTENTION: d.attention,
        DENSE: d.dense_ffn,
        EXPERTS: d.experts,
        SHARED: d.shared_experts,
        ROUTER: arch.activation_dtype,
        HEAD: d.lm_head,
    }


def unusual_dtypes(archs: Sequence[Arch]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Dtypes in each model of the matrices that are not stored as their weight kind is in all of the models.

    The keys are the name of the group of layers and of the matrix. Most checkpoints have none.
    """
    kinds = [kind_dtypes(a) for a in archs]
    weights: dict[tuple[str, str], str] = {}
    own: list[dict[tuple[str, str], str]] = []
    for arch in archs:
        found = {}
        for group in arch.groups:
            for m in group.block.matrices(arch.hidden_size, ONE_RANK):
                found[group.name, m.name] = group.block.dtype_of(m.name)
                weights[group.name, m.name] = m.weights
        own.append(found)
    rows = {
        key: tuple(found.get(key, kind[of]) for found, kind in zip(own, kinds, strict=True))
        for key, of in weights.items()
    }
    return {key: row for key, row in rows.items() if any(d != k[weights[key]] for d, k in zip(row, kinds, strict=True))}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionColumns(Columns):
    """Bytes per element, scales of quantised formats included. Shape `(num_plans,)` or `(1,)`."""

    attention: Floats
    dense_ffn: Floats
    experts: Floats
    shared_experts: Floats
    router: Floats
    embedding: Floats
    lm_head: Floats
    kv: Floats
    unusual: tuple[Floats, ...] = ()
    """Of the matrices that differ from their weight kind."""
    unusual_at: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Group of layers and matrix -> its place in `unusual`."""

    @classmethod
    def of(cls, archs: Sequence[Arch], kv_dtypes: Sequence[str]) -> PrecisionColumns:
        """One row per architecture; `kv_dtypes[i]` is the dtype of its cache."""
        kinds = [kind_dtypes(a) for a in archs]

        def column(weights: str) -> Floats:
            return np.array([bytes_per_weight(k[weights]) for k in kinds])

        unusual = unusual_dtypes(archs)
        return cls(
            attention=column(ATTENTION),
            dense_ffn=column(DENSE),
            experts=column(EXPERTS),
            shared_experts=column(SHARED),
            router=column(ROUTER),
            embedding=np.array([bytes_per_weight(a.embedding_dtype) for a in archs]),
            lm_head=column(HEAD),
            kv=np.array([kv_bytes(d) for d in kv_dtypes]),
            unusual=tuple(np.array([bytes_per_weight(d) for d in row]) for row in unusual.values()),
            unusual_at={key: i for i, key in enumerate(unusual)},
        )

    def bytes_of(self, matrix: RankMatrix) -> Floats:
        """Bytes per weight of a matrix."""
        return self.bytes_at(matrix.layer, matrix.name, matrix.weights)

    def bytes_at(self, layer: str, name: str, weights: str) -> Floats:
        """The same by its group of layers, its name and its weight kind."""
        place = self.unusual_at.get((layer, name))
        if place is not None:
            return self.unusual[place]
        values: dict[str, Floats] = {
            ATTENTION: self.attention,
            DENSE: self.dense_ffn,
            EXPERTS: self.experts,
            SHARED: self.shared_experts,
            ROUTER: self.router,
            HEAD: self.lm_head,
        }
        return values[weights]
