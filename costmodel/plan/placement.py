"""How a plan's groups lie over the link tiers, and what each collective costs there.

Ranks are placed as the engine orders them (`EngineTraits.stages_strided`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.engine import EngineTraits
from costmodel.plan.columns import ClusterColumns, Columns, Floats, LayoutColumns
from costmodel.plan.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement(Columns):
    """Ranks of each group inside one scale-up domain, and over how many domains the group spreads."""

    tp_local: Floats
    tp_domains: Floats
    stage_local: Floats
    stage_domains: Floats
    pp_crosses: Floats
    """1 where a boundary between stages leaves the domain."""

    @classmethod
    def of(cls, layout: LayoutColumns, cluster: ClusterColumns) -> Placement:
        """Place every plan's groups."""
        domain = cluster.domain_gpus
        tp_local = np.minimum(layout.attn_tp, domain)
        stage_stride = layout.attn_tp * layout.attn_cp * np.where(layout.stages_strided > 0, layout.pp, 1.0)
        blocks = np.maximum(np.floor(domain / stage_stride), 1.0)
        block = np.minimum(layout.attn_tp * layout.attn_cp, domain)
        stage_local = np.minimum(layout.width, block * np.minimum(blocks, layout.attn_dp))
        stage_domains = np.ceil(layout.width / stage_local)
        inner = np.where(layout.stages_strided > 0, layout.attn_tp * layout.attn_cp, layout.width)
        return cls(
            tp_local=tp_local + 0.0 * stage_local,
            tp_domains=np.ceil(layout.attn_tp / tp_local) + 0.0 * stage_local,
            stage_local=stage_local,
            stage_domains=stage_domains,
            pp_crosses=((layout.pp > 1) & (inner * layout.pp > domain)).astype(np.float64) + 0.0 * stage_local,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCopies:
    """How often a token leaves its rank for its experts, expected over uniform routing."""

    to_experts: Floats
    """When each of its experts gets a copy (DeepEP low latency)."""
    to_experts_remote: Floats
    """Those of them that leave the domain."""
    to_ranks: Floats
    """Distinct other ranks that hold an expert of it."""
    to_domains: Floats
    """Distinct other domains: one copy each, forwarded inside (DeepEP throughput kernels)."""

    @classmethod
    def of(cls, layout: LayoutColumns, placement: Placement, experts_per_token: Floats) -> TokenCopies:
        """Of tokens with so many experts."""
        ranks, picked = layout.moe_ep, experts_per_token
        domains = np.minimum(placement.stage_domains, ranks)
        return cls(
            to_experts=picked * (1.0 - 1.0 / ranks),
            to_experts_remote=picked * (1.0 - 1.0 / domains),
            to_ranks=_distinct(ranks, picked) * (1.0 - 1.0 / ranks),
            to_domains=_distinct(domains, picked) * (1.0 - 1.0 / domains),
        )


def _distinct(bins: Floats, draws: Floats) -> Floats:
    """Expected bins hit by `draws` uniform draws: bins (1 - (1 - 1/bins)^draws)."""
    return np.asarray(bins * (1.0 - (1.0 - 1.0 / bins) ** draws))


def stage_ranks(layout: Layout, engine: EngineTraits) -> NDArray[np.int64]:
    """Ranks of one replica by stage and place in the stage, shape `(pp, width)`.

    Places of a stage are numbered attention-DP, CP, TP from slowest to fastest in either order of ranks.
    """
    ranks = np.arange(layout.pp * layout.width)
    if not engine.stages_strided:
        return ranks.reshape(layout.pp, layout.width)
    blocks = ranks.reshape(layout.attn_dp, layout.pp, layout.attn_cp * layout.attn_tp)
    return blocks.transpose(1, 0, 2).reshape(layout.pp, layout.width)
