"""How a plan's groups lie over the link tiers, and what each collective costs there.

Ranks are placed as the engine orders them (`EngineTraits.stages_strided`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.plan.columns import ArchColumns, ClusterColumns, Columns, Floats, LayoutColumns


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement(Columns):
    """Ranks of each group inside one scale-up domain, and over how many domains the group spreads."""

    tp_local: Floats
    tp_domains: Floats
    stage_local: Floats
    stage_domains: Floats
    pp_crosses: Floats
    """1 where a boundary between stages leaves the domain."""
    expert_copies: Floats
    """Copies of a token that leave its rank when each of its experts gets one (DeepEP low latency)."""
    expert_copies_remote: Floats
    """Those of them that leave the domain."""
    rank_copies: Floats
    """Distinct other ranks that hold an expert of a token, expected over uniform routing."""
    domain_copies: Floats
    """Distinct other domains: one copy each, forwarded inside (DeepEP throughput kernels)."""

    @classmethod
    def of(cls, arch: ArchColumns, layout: LayoutColumns, cluster: ClusterColumns) -> Placement:
        """Place every plan's groups."""
        domain = cluster.domain_gpus
        tp_local = np.minimum(layout.attn_tp, domain)
        stage_stride = layout.attn_tp * layout.attn_cp * np.where(layout.stages_strided > 0, layout.pp, 1.0)
        blocks = np.maximum(np.floor(domain / stage_stride), 1.0)
        block = np.minimum(layout.attn_tp * layout.attn_cp, domain)
        stage_local = np.minimum(layout.width, block * np.minimum(blocks, layout.attn_dp))
        stage_domains = np.ceil(layout.width / stage_local)
        inner = np.where(layout.stages_strided > 0, layout.attn_tp * layout.attn_cp, layout.width)
        ranks = layout.moe_ep
        domains = np.minimum(stage_domains, ranks)
        return cls(
            tp_local=tp_local + 0.0 * stage_local,
            tp_domains=np.ceil(layout.attn_tp / tp_local) + 0.0 * stage_local,
            stage_local=stage_local,
            stage_domains=stage_domains,
            pp_crosses=((layout.pp > 1) & (inner * layout.pp > domain)).astype(np.float64) + 0.0 * stage_local,
            expert_copies=arch.top_k * (1.0 - 1.0 / ranks),
            expert_copies_remote=arch.top_k * (1.0 - 1.0 / domains),
            rank_copies=_distinct(ranks, arch.top_k) * (1.0 - 1.0 / ranks),
            domain_copies=_distinct(domains, arch.top_k) * (1.0 - 1.0 / domains),
        )


def _distinct(bins: Floats, draws: Floats) -> Floats:
    """Expected bins hit by `draws` uniform draws: bins (1 - (1 - 1/bins)^draws)."""
    return np.asarray(bins * (1.0 - (1.0 - 1.0 / bins) ** draws))
