"""An evaluation as a JSON document; the fields are a contract."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from autotune.evaluation.values import PASSED, Evaluation
from autotune.launch.refusal import export_refusal
from autotune.report.document import confidence_document, finite, layout_document
from autotune.report.reach import reach_of_one
from autotune.report.study_words import called, command, launch_steps
from autotune.report.vocabulary.plan_names import plan_name
from autotune.scoring.gpu_time import gpu_s_per_request
from autotune.scoring.overload import told
from autotune.space import format_plan, short_plan
from autotune.study import Study
from autotune.tuning import PlanResult


def evaluation_document(found: Evaluation) -> dict[str, Any]:
    """What `autotune evaluate --json` writes."""
    result, best, metric = found.result, found.best, found.study.objective.metric
    document: dict[str, Any] = finite(
        {
            "study": found.study.name,
            "verdict": found.verdict,
            "plan": format_plan(found.candidate.layout, found.candidate.engine, found.candidate.gpu),
            "plan_text": found.text,
            "name": _name(found),
            "command": command(found.study, "evaluate", "--plan", found.text).text,
            "next": next_steps(found.study, result, best, passed=found.verdict == PASSED),
            "never_measured": "" if result is None else reach_of_one(found.study, result),
            "export_refuses": "" if result is None else export_refusal(found.study, result),
            "engine": found.candidate.engine,
            "layout": layout_document(found.candidate.layout),
            "knobs": None if result is None else asdict(result.knobs),
            "summary": {
                "binding": found.binding,
                "best_plan": None if best is None else best.plan,
                "best_name": None
                if best is None
                else plan_name(best, dense=not found.study.arch.is_moe, several_engines=True),
                "metric": metric,
                "value": None if result is None else told(result, metric),
                "best_value": None if best is None else best.metrics[metric],
                "loses_against_best_frac": None if found.distance is None else found.distance.frac,
                "loses_in": None if found.distance is None else found.distance.metric,
                "p_better_than_best": found.p_better_than_best,
                "p_meets": None if result is None else result.p_meets,
            },
            "confidence": None if result is None else confidence_document(result, None),
            "checks": [asdict(c) for c in found.checks],
            "compatibility": dict(found.compatibility),
            "performance": dict(found.performance),
            "time": _time(result, best),
            "strategy": [asdict(v) for v in found.strategy],
            "memory": [asdict(m) for m in found.memory],
            "capacity": dict(found.capacity),
            "balance": dict(found.balance),
            "claims": [asdict(c) for c in found.claims],
            "quantities": dict(found.quantities),
            "conclusion": found.conclusion,
            "assumptions": list(found.assumptions),
        }
    )
    return document


def next_steps(study: Study, result: PlanResult | None, best: PlanResult | None, *, passed: bool) -> list[str]:
    """The commands that follow: what the best plan is worth beside this one, and the launch files of this one."""
    if result is None:
        return []
    name, out = called(study, result), []
    if best is not None and best.plan != result.plan:
        out.append(command(study, "compare", "--current", name, "--candidate", "best").text)
    if passed and not export_refusal(study, result):
        out += [line.text for line in launch_steps(study, result, "--plan", name)]
    return out


def _name(found: Evaluation) -> str:
    """The plan as people write it, and as every command takes it back."""
    dense = not found.study.arch.is_moe
    if found.result is not None:
        return plan_name(found.result, dense=dense, several_engines=True)
    return f"{found.candidate.engine}:{short_plan(found.candidate.layout, dense=dense)}"


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
