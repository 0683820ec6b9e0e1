"""An evaluation as a JSON document; the fields are a contract."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from autotune.evaluation.evaluate_pools import PoolSection, PoolSections, pools_of
from autotune.evaluation.values import Evaluation, Sections
from autotune.launch.export import export_refusal
from autotune.report.document import confidence_document, finite, layout_document
from autotune.report.reach import idle_gpus, reach_of_one
from autotune.report.study_words import called, command, launch_steps
from autotune.scoring.gpu_time import gpu_s_per_request
from autotune.scoring.overload import told, told_figures
from autotune.scoring.pair_words import other_settings
from autotune.scoring.plan_name import full_name
from autotune.space import format_plan, short_plan
from autotune.space.pool_plan import ROLES
from autotune.study import Study
from autotune.tuning import PlanResult


def evaluation_document(found: Evaluation) -> dict[str, Any]:
    """What `autotune evaluate --json` writes."""
    result, best, parts, metric = found.result, found.best, found.sections, found.study.objective.metric
    pooled = parts if isinstance(parts, PoolSections) else None
    document: dict[str, Any] = finite(
        {
            "study": found.study.name,
            "verdict": found.verdict,
            **_plan(found),
            "knobs": None if result is None else asdict(result.knobs),
            "summary": {
                "binding": found.binding,
                "best_plan": None if best is None else best.plan,
                "best_name": None if best is None else full_name(found.study, best),
                "metric": metric,
                "value": None if result is None or metric not in result.metrics else told(result, metric),
                "best_value": None if best is None else best.metrics[metric],
                **({} if pooled is None else _best_aggregated(pooled, metric)),
                "loses_against_best_frac": None if found.distance is None else found.distance.frac,
                "loses_in": None if found.distance is None else found.distance.metric,
                "p_better_than_best": found.p_better_than_best,
                "p_meets": None if result is None else result.p_meets,
            },
            "confidence": None if result is None else confidence_document(result, None),
            **({} if pooled is None else {"metrics": told_figures(pooled.plan)}),
            "checks": [asdict(c) for c in found.checks],
            **(_sections(parts, result, best) if isinstance(parts, Sections) else _pools(found.study, parts)),
            "conclusion": found.conclusion,
            "assumptions": list(found.assumptions),
        }
    )
    return document


def _plan(found: Evaluation) -> dict[str, Any]:
    """Which plan it is, what follows for it, and what stands against it."""
    study, result, parts = found.study, found.result, found.sections
    out: dict[str, Any] = {
        "plan_text": found.text,
        "name": "" if result is None else full_name(study, result),
        "command": command(study, "evaluate", *([] if found.is_baseline else ["--plan", found.text])).text,
        "next": _next_steps(found),
        "never_measured": "" if result is None else reach_of_one(study, result),
        "leaves_idle": "" if result is None else idle_gpus(study, result),
        "export_refuses": "" if result is None else export_refusal(study, result),
    }
    if isinstance(parts, Sections):
        own = parts.candidate
        if result is None:
            out["name"] = f"{own.engine}:{short_plan(own.layout, dense=not study.arch.is_moe)}"
        plan = found.elsewhere or format_plan(own.layout, own.engine, own.gpu)
        return {"plan": plan, **out, "engine": own.engine, "layout": layout_document(own.layout)}
    return {"plan": parts.plan.plan, **out, "engine": parts.plan.engine}


def _best_aggregated(parts: PoolSections, metric: str) -> dict[str, Any]:
    other = parts.best_aggregated
    return {
        "best_aggregated_plan": None if other is None else other.plan,
        "best_aggregated_value": None if other is None else other.metrics[metric],
    }


def _sections(parts: Sections, result: PlanResult | None, best: PlanResult | None) -> dict[str, Any]:
    return {
        "compatibility": dict(parts.compatibility),
        "performance": dict(parts.performance),
        "time": _time(result, best),
        "strategy": [asdict(v) for v in parts.strategy],
        "memory": [asdict(m) for m in parts.memory],
        "capacity": dict(parts.capacity),
        "balance": dict(parts.balance),
        "claims": [asdict(c) for c in parts.claims],
        "quantities": dict(parts.quantities),
    }


def _pools(study: Study, parts: PoolSections) -> dict[str, Any]:
    return {
        "pools": {role: _pool(getattr(parts, role), dense=not study.arch.is_moe) for role in ROLES},
        "max_local_prefill_tokens": pools_of(parts.plan).max_local_prefill_tokens,
        "ttft_parts_s": dict(parts.plan.breakdown["ttft_parts_s"]),
        "transfer": asdict(parts.transfer),
        "rate_match": asdict(parts.rate_match),
    }


def _pool(section: PoolSection, *, dense: bool) -> dict[str, Any]:
    layout = layout_document(section.layout)
    return {**asdict(section), "layout": layout, "short": short_plan(section.layout, dense=dense)}


def _next_steps(found: Evaluation) -> list[str]:
    """The commands that follow: what the best plan is worth beside this one, and the launch files of this one."""
    study, result, best = found.study, found.result, found.best
    if result is None:
        return []
    name, out = found.elsewhere or called(study, result, is_baseline=found.is_baseline), []
    if best is not None and (best.plan != result.plan or other_settings(study, best, result)):
        out.append(command(study, "compare", "--current", name, "--candidate", "best").text)
    if found.passed and not export_refusal(study, result):
        out += [line.text for line in launch_steps(study, result, "--plan", name)]
    return out


def _time(result: PlanResult | None, best: PlanResult | None) -> list[dict[str, Any]]:
    """GPU-seconds of a request by phase and operator, beside those of the best plan of one kind of replica."""
    if result is None:
        return []
    mine = gpu_s_per_request(result)
    theirs = None if best is None or best.pools is not None else gpu_s_per_request(best)
    return [
        {
            "phase": phase,
            "operator": group,
            "gpu_s": mine.get((phase, group), 0.0),
            "best_gpu_s": None if theirs is None else theirs.get((phase, group), 0.0),
        }
        for phase, group in dict.fromkeys([*mine, *(theirs or {})])
        if mine.get((phase, group)) or (theirs or {}).get((phase, group))
    ]
