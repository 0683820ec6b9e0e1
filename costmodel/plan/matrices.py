"""The matrices that a rank holds: the one source of both a layer's GEMM shapes and its weights in memory.

Time (`costmodel.step.operators`) and memory (`costmodel.step.memory`) both read this table, so the two cannot drift
apart; the parameters of a model (`costmodel.arch.weights`) are the same table for one rank.
"""

from __future__ import annotations

from dataclasses import dataclass

from costmodel.arch.block import HEAD, Matrix
from costmodel.plan.columns import ArchColumns, LayoutColumns


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMatrix(Matrix):
    """A matrix of one layer of a group. `n`, `k`: shape `(num_plans,)` or `(1,)`."""

    layer: str
    """Group of layers that has it, or `head`."""


def rank_matrices(arch: ArchColumns, layout: LayoutColumns) -> tuple[RankMatrix, ...]:
    """Every matrix of one layer of each group that occurs in the batch, sharded as the layout says."""
    out = [
        RankMatrix(name=m.name, layer=g.name, weights=m.weights, n=m.n, k=m.k, count=m.count, multiplied=m.multiplied)
        for g in arch.groups
        for m in g.block.matrices(arch.hidden_size, layout)
    ]
    head = arch.vocab_size / layout.attn_tp
    return (*out, RankMatrix(name="lm_head", layer="head", weights=HEAD, n=head, k=arch.hidden_size))
