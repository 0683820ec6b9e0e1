"""Clusters side by side: the best plan of every GPU type and count that a study opens, and the fewest GPUs that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autotune.metrics import METRICS, Metric
from autotune.report.text_blocks import Block, text_table
from autotune.report.vocabulary.metrics import COST, PER_GPU, TPOT, TTFT
from autotune.scoring.plan_name import full_name
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
    unplaced: int
    """Plans on it that may keep every limit behind all that are ranked: not all were simulated."""
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
        unplaced = sum(_lies_on(p, cluster, study.cluster.gpu.name) for p in result.unplaced)
        row = ClusterRow(cluster=cluster, feasible=len(mine), best=best, rank=rank, unplaced=unplaced, also=others)
        rows.append(row)
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
                "behind_the_ranked": r.unplaced,
                "best": None if r.best is None else r.best.plan,
                "rank": r.rank,
                "metrics": None if r.best is None else dict(r.best.metrics),
            }
            for r in rows
        ],
        "fewest_gpus": fewest_gpus(rows),
    }


def clusters_block(result: TuneResult) -> Block | None:
    """The same as a table; None where the study has one cluster."""
    rows = cluster_rows(result)
    if not rows:
        return None
    shown = (PER_GPU, METRICS["total_tokens_per_s"], TTFT, TPOT, COST)
    header = ["GPUs", "feasible", "rank", "best plan", *(m.heading for m in shown[:-1]), "USD/h", COST.heading]
    sampled = "" if result.complete else ", as far as was sampled"

    def simulated(name: str, least: int | None) -> str:
        fewer = any(
            r.unplaced and (least is None or r.cluster.gpus < least) for r in rows if r.cluster.gpu.name == name
        )
        return ", as far as was simulated" if fewer else ""

    lines = [
        f"Fewest of {name}: "
        + ("none of the counts keeps every limit" if least is None else f"{least:,} keep every limit")
        + sampled
        + simulated(name, least)
        for name, least in fewest_gpus(rows).items()
    ]
    return Block(
        title="Clusters side by side (the best plan of each by the objective)",
        table=text_table(header, [_cells(row, result, shown) for row in rows], texts=(0, 3)),
        lines=tuple(lines),
    )


def _cells(row: ClusterRow, result: TuneResult, shown: Sequence[Metric]) -> tuple[str, ...]:
    price, best = row.cluster.gpu.price_per_hour, row.best
    rank = "" if row.rank is None else str(row.rank)
    name = f"none{'' if result.complete else ' sampled'} keeps every limit"
    if row.unplaced:
        name = f"behind the first {len(result.ranked):,}, not all simulated"
    figures = [""] * len(shown)
    if best is not None:
        name = full_name(result.study, best)
        figures = [m.text(best.metrics[m.name]) if m.name in best.metrics else "" for m in shown]
    per_hour = "" if price is None else f"{price * row.cluster.gpus:,.2f}"
    cluster = f"{row.cluster.gpus:,} x {row.cluster.gpu.name}"
    return (cluster, f"{row.feasible:,}", rank, name, *figures[:-1], per_hour, figures[-1])
