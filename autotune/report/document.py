"""Results as JSON documents, and plans as CSV; the fields are a contract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from autotune.disaggregated.tune_pools import PoolSearch
from autotune.metrics import METRICS, Use, used
from autotune.report.clusters import clusters_document
from autotune.report.files import table_csv
from autotune.report.kinds import kinds_document
from autotune.scoring.joint_uncertainty import Confidence
from autotune.scoring.overload import told, told_figures
from autotune.scoring.unsure_means import beside_percentiles, unsure_means
from autotune.space import Candidate, Space, format_plan
from autotune.space.pool_plan import ROLES, Pools
from autotune.study import own_option_values
from autotune.text.escaping import csv_text
from autotune.tuning import BaselineResult, PlanResult, TuneResult
from autotune.tuning.answer_study import place
from costmodel.plan.layout import LAYOUT_AXES, Layout

if TYPE_CHECKING:
    from autotune.tuning.simulate_ranking import SimulatedRanking

UNOPENED = {"dcp": 1, "redundant_experts": 0, "two_batch_overlap": 0}
"""Axes that only a study that opens them has, and the value at which a layout leaves them out."""
CSV_COLUMNS = ("rank", "plan", "engine", "feasible", "violations", "gpu", "stage_layers", *LAYOUT_AXES)


def layout_document(layout: Layout) -> dict[str, Any]:
    """A layout."""
    out: dict[str, Any] = {"replicas": layout.replicas, "pp": layout.pp, "stage_layers": list(layout.stage_layers)}
    out |= {axis: getattr(layout, axis) for axis in LAYOUT_AXES if axis not in out}
    return {name: value for name, value in out.items() if value != UNOPENED.get(name)}


def versus(plan: PlanResult, baseline: PlanResult | None) -> dict[str, float]:
    """Relative differences from the baseline, `metric_frac`: 0.1 is ten per cent more."""
    out: dict[str, float] = {}
    if baseline is None:
        return out
    for name in (metric.name for metric in used(Use.BASELINE)):
        before, now = (told(p, name) if name in p.metrics else math.nan for p in (baseline, plan))
        if before and math.isfinite(before) and math.isfinite(now):
            out[f"{name}_frac"] = now / before - 1.0
    return out


def confidence_document(plan: PlanResult, known: Confidence | None) -> dict[str, Any]:
    """How sure the estimate and its place are: 80 % intervals and probabilities."""
    out: dict[str, Any] = {"p_meets": plan.p_meets}
    for name, ends in (
        ("ttft_s", ("ttft_p10_s", "ttft_p90_s")),
        ("tpot_s", ("tpot_p10_s", "tpot_p90_s")),
        ("requests_per_s", ("requests_per_s_p10", "requests_per_s_p90")),
    ):
        fracs = METRICS[name].likely_fracs(plan)
        out |= {end: told(plan, name) * frac for end, frac in zip(ends, fracs, strict=True)}
    return out if known is None else out | asdict(known)


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
        **({} if plan.own_options is None else {"engine_options": own_option_values(plan.own_options)}),
        **({} if plan.pools is None else {"pools": pools_document(plan.pools)}),
        "feasible": plan.feasible,
        "violations": [asdict(v) for v in plan.violations],
        "metrics": told_figures(plan),
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
    return {"plan": plan_string(candidate), "engine": candidate.engine, **layout_document(candidate.layout)}


def plan_string(candidate: Candidate) -> str:
    """The string that means just this layout, engine and GPU type."""
    return format_plan(candidate.layout, candidate.engine, candidate.gpu)


def baseline_document(baseline: BaselineResult | None, result: TuneResult) -> dict[str, Any] | None:
    """The baseline: what its string was taken to mean, its rank, or why it has none."""
    if baseline is None:
        return None
    resolution = baseline.resolution
    out: dict[str, Any] = {
        "text": baseline.text,
        "assumed": list(resolution.assumed),
        "alternatives": [plan_string(c) for c in resolution.alternatives],
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
    """Where the baseline with its own knobs would stand among the ranked plans.

    None: it breaks a limit, or plans that were not simulated may come before it.
    """
    plan, seen = baseline.result, result.by_percentile
    found = None if plan is None else place(result.study, plan, result.ranked)
    open_behind = seen is not None and bool(seen.left)
    return None if open_behind and found is not None and found > len(result.ranked) else found


def baseline_place(baseline: BaselineResult, result: TuneResult) -> str:
    """`rank 3 of 12`, of a baseline that keeps every limit, itself counted; or that it is behind all of these."""
    rank, among = baseline_rank(baseline, result), len(result.ranked)
    if rank is None:
        return f"behind the first {among:,}"
    own = baseline.result
    among += own is not None and all(p.plan != own.plan for p in result.ranked)
    return f"rank {rank:,} of {among:,}"


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
    feasible, rest = (
        [
            plan_document(p, rank=i if p.feasible else None, baseline=baseline, known=result.confidence.get(p.plan))
            for i, p in enumerate(plans[: top or None], start=1)
        ]
        for plans in (result.ranked, result.infeasible if top == 0 or not result.ranked else ())
    )
    return finite(
        {
            "study": result.study.name,
            "complete": result.complete,
            "counts": counts_document(result.space, feasible=result.feasible_count, infeasible=result.infeasible_counts)
            | ({} if result.by_percentile is None else {"not_simulated": result.not_simulated_count}),
            "objective": asdict(result.study.objective),
            "assumptions": list(assumptions(result)),
            "baseline": baseline_document(result.baseline, result),
            "plans": feasible + rest,
            **({} if result.by_percentile is None else {"simulated": _simulated(result.by_percentile)}),
            **clusters_document(result),
            **({} if result.pools is None else {"disaggregated": _pool_search(result.pools)}),
            **kinds_document(result),
            "scored_now": result.scored_now,
            "storage": result.storage,
        }
    )


def _simulated(found: SimulatedRanking) -> dict[str, Any]:
    """How plans were simulated: those that were not cannot be among the ranked ones."""
    kept = len(found.ranked) + len(found.behind)
    seen = {"plans": found.simulated, "kept": kept, "ranked": len(found.ranked), "not_needed": len(found.left)}
    # on a sample of the log the first plan is the best on that sample
    return seen | ({"exact": False, "sampled": found.sampled} if found.sampled else {"exact": True})


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
    first, base = next(iter(result.ranked), None), None if result.baseline is None else result.baseline.result
    cut += unsure_means(result.study, first)
    cut += beside_percentiles(result.study, {"the first plan": first, "the plan in production": base})
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


def plans_csv(document: Mapping[str, Any], *, gpu: str) -> str:
    """The plans of a document of `tune` or of a Pareto front as CSV, one row each, with every axis of the layout.

    Args:
        document: from `tune_document` or `front_document`.
        gpu: the study's own GPU type, which plans do not repeat.

    Of a disaggregated plan the layout is the decode pool's; the prefill pool's has columns of its own.
    """
    rows = [_csv_row(plan, gpu) for plan in document["plans"]]
    return table_csv(rows) if rows else csv_text([CSV_COLUMNS])


def _csv_row(plan: Mapping[str, Any], gpu: str) -> dict[str, Any]:
    pools = plan.get("pools")
    found = {"gpu": gpu, **UNOPENED, **plan["layout"], **plan}
    found["violations"] = " ".join(v["code"] for v in plan["violations"])
    found["stage_layers"] = _stages(plan["layout"])
    if pools is not None:
        found["gpu"] = pools["decode"]["gpu"]
    row = {name: found[name] for name in CSV_COLUMNS} | plan["knobs"] | plan["metrics"]
    if pools is not None:
        side = pools["prefill"]
        layout = {**UNOPENED, **side["layout"], "gpu": side["gpu"], "stage_layers": _stages(side["layout"])}
        row |= {f"prefill_{name}": layout[name] for name in ("gpu", "stage_layers", *LAYOUT_AXES)}
    return row


def _stages(layout: Mapping[str, Any]) -> str:
    return "-".join(map(str, layout["stage_layers"]))
