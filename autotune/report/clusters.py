"""Clusters side by side: the best plan of every GPU type and count that a study opens, and the fewest GPUs that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from autotune.space import short_plan
from autotune.space.pooled_planstring import short_pooled
from autotune.study import cluster_choices, opens_clusters
from autotune.tuning import PlanResult, TuneResult
from costmodel.hardware import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRow:
    """One cluster's answer."""

    cluster: Cluster
    feasible: int
    """Plans on it that keep every limit."""
    best: PlanResult | None
    rank: int | None
    """Of its best plan among all."""
    also: tuple[str, ...]
    """GPU types that its plans' pools may take beside."""


def cluster_rows(result: TuneResult) -> tuple[ClusterRow, ...]:
    """A row per cluster, in the study's order; empty where there is but one."""
    study = result.study
    if not opens_clusters(study):
        return ()
    others = tuple(c.gpu.name for c in study.axes.other_gpus)
    rows = []
    for cluster in cluster_choices(study):
        mine = [(i, p) for i, p in enumerate(result.ranked, start=1) if _lies_on(p, cluster, study.cluster.gpu.name)]
        rank, best = mine[0] if mine else (None, None)
        rows.append(ClusterRow(cluster=cluster, feasible=len(mine), best=best, rank=rank, also=others))
    return tuple(rows)


def fewest_gpus(rows: Sequence[ClusterRow]) -> dict[str, int | None]:
    """GPU type -> the fewest GPUs on which a plan that was scored keeps every limit; None: on none of the counts."""
    return {
        name: min((r.cluster.gpus for r in rows if r.cluster.gpu.name == name and r.feasible), default=None)
        for name in dict.fromkeys(r.cluster.gpu.name for r in rows)
    }


def _lies_on(plan: PlanResult, cluster: Cluster, home: str) -> bool:
    if plan.pools is None:
        return (plan.gpu or home) == cluster.gpu.name and plan.layout.gpus == cluster.gpus
    own = [p.gpus for p in (plan.pools.prefill, plan.pools.decode) if p.gpu == cluster.gpu.name]
    return sum(own) == cluster.gpus


def clusters_document(result: TuneResult) -> dict[str, Any]:
    """Fields of the `tune` document; none where the study has one cluster."""
    rows = cluster_rows(result)
    if not rows:
        return {}
    return {
        "clusters": [
            {
                "gpu": r.cluster.gpu.name,
                "gpus": r.cluster.gpus,
                "price_per_gpu_hour": r.cluster.gpu.price_per_hour,
                "feasible": r.feasible,
                "best": None if r.best is None else r.best.plan,
                "rank": r.rank,
                "metrics": None if r.best is None else dict(r.best.metrics),
            }
            for r in rows
        ],
        "fewest_gpus": fewest_gpus(rows),
    }


def print_clusters(console: Console, result: TuneResult) -> None:
    """The same as a table."""
    rows = cluster_rows(result)
    if not rows:
        return
    console.print("[bold]Clusters side by side[/] (the best plan of each by the objective)")
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    titles = ("GPUs", "feasible", "rank", "best plan", "tok/s/GPU", "tok/s", "TTFT s", "TPOT ms", "USD/h", "USD/Mtok")
    for title in titles:
        table.add_column(title, justify="left" if title in ("GPUs", "best plan") else "right", no_wrap=True)
    dense = not result.study.arch.is_moe
    for r in rows:
        price = r.cluster.gpu.price_per_hour
        per_hour = "" if price is None else f"{price * r.cluster.gpus:,.2f}"
        name = f"{r.cluster.gpus:,} x {r.cluster.gpu.name}"
        if r.best is None:
            table.add_row(
                name,
                "0",
                "",
                "none keeps every limit" if result.complete else "none sampled keeps every limit",
                "",
                "",
                "",
                "",
                per_hour,
                "",
            )
            continue
        m = r.best.metrics
        table.add_row(
            name,
            f"{r.feasible:,}",
            str(r.rank),
            f"{r.best.engine}: {table_name(r.best, dense=dense)}",
            f"{m['total_tokens_per_s_per_gpu']:,.0f}",
            f"{m['total_tokens_per_s']:,.0f}",
            f"{m['ttft_longest_s']:.2f}",
            f"{m['tpot_s'] * 1e3:.1f}",
            per_hour,
            f"{m['usd_per_million_tokens']:,.3f}" if "usd_per_million_tokens" in m else "",
        )
    console.print(table)
    for name, least in fewest_gpus(rows).items():
        text = "none of the counts keeps every limit" if least is None else f"{least:,} keep every limit"
        sampled = "" if result.complete else ", as far as was sampled"
        console.print(f"Fewest of {name}: {text}{sampled}", highlight=False)


def table_name(plan: PlanResult, *, dense: bool) -> str:
    """A plan's short name: both pools of a disaggregated one, and the GPU type where it is not the cluster's own."""
    if plan.pools is not None:
        first, second = (short_plan(s.layout, dense=dense) for s in (plan.pools.prefill, plan.pools.decode))
        return short_pooled(plan.pools, (first, second))
    stages = plan.layout.stage_layers
    split = f" SPLIT{'-'.join(map(str, stages))}" if "SPLIT" in plan.plan and len(stages) <= MOST_STAGES else ""
    split = " SPLIT…" if "SPLIT" in plan.plan and not split else split
    return short_plan(plan.layout, dense=dense) + split + (f" @{plan.gpu}" if plan.gpu else "")


MOST_STAGES = 4
"""Stages whose layers fit a table."""
