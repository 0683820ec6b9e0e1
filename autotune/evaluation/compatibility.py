"""Where the plan's groups lie, how experts, heads and layers are cut, and which engines take it."""

from __future__ import annotations

from typing import Any

import numpy as np

from autotune.engines import ENGINES
from autotune.space import Candidate, violations
from autotune.study import Study
from costmodel.arch.attention import Compressed, GroupedQuery, Latent
from costmodel.arch.ffn import Experts
from costmodel.arch.recurrent import Recurrent
from costmodel.plan.columns import ClusterColumns, LayoutColumns
from costmodel.plan.layout import Layout
from costmodel.plan.placement import Placement


def compatibility(study: Study, candidate: Candidate) -> dict[str, Any]:
    """For any plan, one that the engine's rules forbid included."""
    layout, arch = candidate.layout, study.arch
    moe_layers = sum(g.count for g in arch.groups if isinstance(g.block, Experts))
    instances = arch.num_experts + layout.redundant_experts
    out: dict[str, Any] = {
        "gpus_used": layout.gpus,
        "gpus": study.cluster.gpus,
        "ranks_per_node": min(study.cluster.gpus_per_node, layout.gpus),
        "nodes": -(-layout.gpus // study.cluster.gpus_per_node),
        "axes": _axes(study, candidate),
        "stage_layers": list(layout.stage_layers),
        "heads_per_rank": max((float(a.heads) for a in arch.attentions if not isinstance(a, Recurrent)), default=0.0)
        / layout.attn_tp,
        **_kv_heads(study, layout),
        "engines": [_engine(study, candidate, engine) for engine in ENGINES],
    }
    if arch.is_moe:
        all_instances = instances * moe_layers * layout.replicas
        out["expert_modules"] = {
            "distinct": arch.num_experts * moe_layers,
            "instances": all_instances,
            "instances_per_gpu": all_instances * (layout.moe_tp / layout.gpus),
            "per_gpu_per_layer": instances / layout.moe_ep,
            "distinct_per_gpu": arch.num_experts * moe_layers / layout.gpus,
        }
    return out


def _kv_heads(study: Study, layout: Layout) -> dict[str, Any]:
    """KV heads on a rank, and how many ranks of a TP group hold the same: MLA's latent lies on all of them."""
    arch = study.arch
    grouped = [a for a in arch.attentions if isinstance(a, GroupedQuery)]
    if not grouped:
        latent = any(isinstance(a, Latent | Compressed) for a in arch.attentions)
        return {
            "kv_heads_per_rank": 1.0,
            "kv_copies": layout.attn_tp / layout.dcp if latent else 1.0,
            "kv_is_latent": latent,
        }
    heads = max(float(a.kv_heads) for a in grouped) / layout.attn_tp
    return {
        "kv_heads_per_rank": max(heads, 1.0),
        "kv_copies": max(1.0 / heads / layout.dcp, 1.0),
        "kv_is_latent": False,
    }


def _engine(study: Study, candidate: Candidate, engine: str) -> dict[str, Any]:
    version = study.engine_version if engine == study.engine else None
    broken = violations(study.arch, engine, candidate.layout, version, drafts=study.axes.speculative is not None)
    return {
        "engine": engine,
        "launches": not broken,
        "forbidden_by": [f"{v.rule}: {v.message}" for v in broken],
    }


def _axes(study: Study, candidate: Candidate) -> list[dict[str, Any]]:
    layout = candidate.layout
    place = Placement.of(
        LayoutColumns.of([layout], [ENGINES[candidate.engine].traits]),
        ClusterColumns.of([study.cluster]),
    )
    domain = study.cluster.domain_gpus

    alone = {"ranks_together": 1, "tier": "none: one rank"}

    def spread(ranks: int, local: float, domains: float) -> dict[str, Any]:
        if ranks == 1:
            return alone
        tier = (
            "scale-up" if domains <= 1 else f"scale-up inside, scale-out between {domains:g} domains of {domain} GPUs"
        )
        return {"ranks_together": int(min(local, ranks)), "tier": tier}

    def one(values: Any) -> float:
        return float(np.asarray(values).reshape(-1)[0])

    stage = spread(layout.width, one(place.stage_local), one(place.stage_domains))
    heads = spread(layout.attn_tp, one(place.tp_local), one(place.tp_domains))
    groups = stage if layout.attn_dp > 1 else {"tier": "none: one group"}
    sends = "none: one stage" if layout.pp == 1 else "scale-out" if one(place.pp_crosses) else "scale-up"
    rows: list[tuple[str, int, str, dict[str, Any]]] = [
        ("R", layout.replicas, "replicas of the whole model, which exchange nothing", {"tier": "none: no traffic"}),
        ("PP", layout.pp, "pipeline stages; activations are handed on", {"tier": sends}),
        ("TP", layout.attn_tp, "shards of attention heads; all-reduce in every layer", heads),
        ("attention-DP", layout.attn_dp, "groups of a stage that each attend to their own requests", groups),
    ]
    if study.arch.is_moe:
        experts, shards = (stage if degree > 1 else alone for degree in (layout.moe_ep, layout.moe_tp))
        rows.append(("EP", layout.moe_ep, "groups of experts; tokens go to their experts and back", experts))
        rows.append(("ETP", layout.moe_tp, "shards of every expert", shards))
    return [{"axis": axis, "value": value, "maps_to": words, **more} for axis, value, words, more in rows]
