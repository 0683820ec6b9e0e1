"""Which GPU has which part of a plan, as the engine orders its ranks, and which ranks communicate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotune.graph.values import Group, Rank
from costmodel.engine import EngineTraits
from costmodel.hardware import Cluster
from costmodel.plan.layout import Layout
from costmodel.plan.placement import stage_ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRanks:
    """The ranks of one replica, whose first has global rank 0; a later replica adds an offset."""

    gpu: NDArray[np.int64]
    """Global rank, shape `(pp, width)`: stage, index within the stage."""
    tp_group: NDArray[np.int64]
    """TP group of each index of a stage, shape `(width,)`."""

    @classmethod
    def of(cls, layout: Layout, engine: EngineTraits) -> ReplicaRanks:
        """The ranks of a layout as the engine orders them."""
        return cls(gpu=stage_ranks(layout, engine), tp_group=np.arange(layout.width) // layout.attn_tp)

    @property
    def size(self) -> int:
        """GPUs of the replica."""
        return int(self.gpu.size)

    def ranks(self, replicas: int, cluster: Cluster) -> tuple[Rank, ...]:
        """Every GPU of so many replicas, by global rank."""
        stages, width = self.gpu.shape
        place = {int(self.gpu[s, i]): (s, i) for s in range(stages) for i in range(width)}
        return tuple(
            Rank(replica=r, stage=place[g][0], index=place[g][1], host=(r * self.size + g) // cluster.gpus_per_node)
            for r in range(replicas)
            for g in range(self.size)
        )


class Groups:
    """The groups of one replica, numbered as they are asked for."""

    def __init__(self, cluster: Cluster) -> None:
        self._domain = cluster.domain_gpus
        self._index: dict[tuple[str, tuple[int, ...]], int] = {}

    def index(self, kind: str, ranks: NDArray[np.int64]) -> int:
        """Number of a group, new or known."""
        key = (kind, tuple(int(r) for r in ranks))
        return self._index.setdefault(key, len(self._index))

    def __len__(self) -> int:
        return len(self._index)

    def groups(self, replicas: int, size: int) -> tuple[Group, ...]:
        """Of so many replicas of `size` GPUs, one replica after the other."""
        return tuple(
            self._group(kind, tuple(g + r * size for g in ranks))
            for r in range(replicas)
            for kind, ranks in self._index
        )

    def _group(self, kind: str, ranks: tuple[int, ...]) -> Group:
        return Group(kind=kind, ranks=ranks, crosses=len({g // self._domain for g in ranks}) > 1)
