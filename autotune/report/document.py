"""Results as JSON documents; the fields are a contract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autotune.disaggregated.tune_pools import PoolSearch
from autotune.metrics import Use, used
from autotune.report.clusters import clusters_document
from autotune.scoring.joint_uncertainty import Confidence
from autotune.space import Candidate, Space, format_plan
from autotune.space.pool_plan import ROLES, Pools
from autotune.tuning import PlanResult, TuneResult
from autotune.tuning.answer_study import BaselineResult, place
from costmodel.estimate.normal import Z90
from costmodel.plan.layout import Layout


def layout_document(layout: Layout) -> dict[str, Any]:
    """A layout; degrees that are off unless a study opens them are left out at their neutral value."""
    out: dict[str, Any] = {
        "replicas": layout.replicas,
        "pp": layout.pp,
        "stage_layers": list(layout.stage_layers),
        "attn_tp": layout.attn_tp,
        "attn_dp": layout.attn_dp,
        "attn_cp": layout.attn_cp,
        "moe_tp": layout.moe_tp,
        "moe_ep": layout.moe_ep,
    }
    if layout.dcp > 1:
        out["dcp"] = layout.dcp
    if layout.redundant_experts:
        out["redundant_experts"] = layout.redundant_experts
    return out


def versus(plan: PlanResult, baseline: PlanResult | None) -> dict[str, float]:
    """Relative differences from the baseline, `metric_frac`: 0.1 is ten per cent more."""
    if baseline is None:
        return {}
    out = {}
    for name in (metric.name for metric in used(Use.BASELINE)):
        before, now = baseline.metrics.get(name, 0.0), plan.metrics.get(name, math.nan)
        if before and math.isfinite(before) and math.isfinite(now):
            out[f"{name}_frac"] = now / before - 1.0
    return out


def confidence_document(plan: PlanResult, known: Confidence | None) -> dict[str, Any]:
    """How sure the estimate and its place are: 80 % intervals and probabilities."""
    out: dict[str, Any] = {"p_meets": plan.p_meets}
    for name, sd in (("ttft_s", "ttft_log_sd"), ("tpot_s", "tpot_log_sd"), ("requests_per_s", "throughput_log_sd")):
        factor = math.exp(Z90 * plan.metrics[sd])
        stem = name.removesuffix("_s") if name != "requests_per_s" else "requests_per_s"
        unit = "" if name == "requests_per_s" else "_s"
        out[f"{stem}_p10{unit}"] = plan.metrics[name] / factor
        out[f"{stem}_p90{unit}"] = plan.metrics[name] * factor
    if known is not None:
        out |= asdict(known)
    return out


def plan_document(
    plan: PlanResult, *, rank: int | None, baseline: PlanResult | None, known: Confidence | None = None
) -> dict[str, Any]:
    """One plan."""
    return {
        "rank": rank,
        "plan": plan.plan,
        "engine": plan.engine,
        "layout": layout_document(plan.layout),
        "knobs": asdict(plan.knobs),
        **({} if plan.gpu is None else {"gpu": plan.gpu}),
        **({} if plan.pools is None else {"pools": pools_document(plan.pools)}),
        "feasible": plan.feasible,
        "violations": [asdict(v) for v in plan.violations],
        "metrics": dict(plan.metrics),
        "confidence": confidence_document(plan, known),
        "breakdown": dict(plan.breakdown),
        "vs_baseline": versus(plan, baseline),
    }


def pools_document(pools: Pools) -> dict[str, Any]:
    """The two sides of a disaggregated plan."""
    out = asdict(pools)
    for role in ROLES:
        out[role]["layout"] = layout_document(getattr(pools, role).layout)
    return out


def candidate_document(candidate: Candidate) -> dict[str, Any]:
    """A layout of the space, with the string that means just it."""
    return {
        "plan": format_plan(candidate.layout, candidate.engine, candidate.gpu),
        "engine": candidate.engine,
        **layout_document(candidate.layout),
    }


def baseline_document(baseline: BaselineResult | None, result: TuneResult) -> dict[str, Any] | None:
    """The baseline: what its string was taken to mean, its rank, or why it has none."""
    if baseline is None:
        return None
    resolution = baseline.resolution
    out: dict[str, Any] = {
        "text": baseline.text,
        "assumed": list(resolution.assumed),
        "alternatives": [format_plan(c.layout, c.engine, c.gpu) for c in resolution.alternatives],
        "rules_broken": [asdict(v) for v in resolution.violations],
        **candidate_document(resolution.candidate),
        "layout": layout_document(resolution.candidate.layout),
        "feasible": False,
        "rank": None,
    }
    if baseline.result is not None:
        out |= plan_document(baseline.result, rank=baseline_rank(baseline, result), baseline=None)
    return out


def baseline_rank(baseline: BaselineResult, result: TuneResult) -> int | None:
    """Where the baseline with its own knobs would stand among the ranked plans."""
    plan = baseline.result
    return None if plan is None else place(result.study, plan, result.ranked)


def counts_document(space: Space, *, feasible: int, infeasible: Mapping[str, int]) -> dict[str, Any]:
    """How many were looked at and what became of them."""
    return {
        "enumerated": space.enumerated,
        "valid": len(space.candidates),
        "feasible": feasible,
        "rejected": dict(sorted(space.rejected.items())),
        "infeasible": dict(infeasible),
    }


def tune_document(result: TuneResult, *, top: int) -> dict[str, Any]:
    """The whole answer; `top` plans, 0 for all of them, infeasible ones included."""
    baseline = None if result.baseline is None else result.baseline.result
    sure = result.confidence
    plans = [
        plan_document(p, rank=i, baseline=baseline, known=sure.get(p.plan))
        for i, p in enumerate(result.ranked, start=1)
    ]
    rest = [plan_document(p, rank=None, baseline=baseline, known=sure.get(p.plan)) for p in result.infeasible]
    shown = plans + rest if top == 0 else (plans or rest)[:top]
    return finite(
        {
            "study": result.study.name,
            "complete": result.complete,
            "counts": counts_document(
                result.space, feasible=result.feasible_count, infeasible=result.infeasible_counts
            ),
            "objective": asdict(result.study.objective),
            "assumptions": list(assumptions(result)),
            "baseline": baseline_document(result.baseline, result),
            "plans": shown,
            **clusters_document(result),
            **({} if result.pools is None else {"disaggregated": _pool_search(result.pools)}),
            "scored_now": result.scored_now,
            "storage": result.storage,
        }
    )


def _pool_search(found: PoolSearch) -> dict[str, Any]:
    """What was looked at for disaggregated plans: nothing that depends on where the answer came from."""
    return {"pairs_of_layouts": found.plans, "kept": found.kept, "complete": True}


def assumptions(result: TuneResult) -> tuple[str, ...]:
    """What the study, the model and the baseline's string left open, and what was taken instead."""
    extra = () if result.baseline is None else result.baseline.resolution.assumed
    found = result.pools
    cut = []
    if found is not None and found.kept < found.plans:
        cut.append(
            f"disaggregated plans: the best {found.kept} of {found.plans:,} are in the ranking, and no place behind "
            "the last of them counts the others"
        )
    return (*result.study.assumptions, *cut, *(f"baseline.plan: {text}" for text in extra))


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: None stands for both."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value
