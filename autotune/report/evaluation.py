"""An evaluation as a JSON document; the fields are a contract."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from autotune.evaluation.values import FAILED, PASSED, Evaluation
from autotune.report.document import confidence_document, layout_document
from autotune.space import format_plan


def evaluation_document(found: Evaluation) -> dict[str, Any]:
    """What `autotune evaluate --json` writes."""
    result, best, metric = found.result, found.best, found.study.objective.metric
    return {
        "study": found.study.name,
        "verdict": PASSED if found.passed else FAILED,
        "plan": format_plan(found.candidate.layout, found.candidate.engine, found.candidate.gpu),
        "plan_text": found.text,
        "engine": found.candidate.engine,
        "layout": layout_document(found.candidate.layout),
        "knobs": None if result is None else asdict(result.knobs),
        "summary": {
            "binding": found.binding,
            "best_plan": None if best is None else best.plan,
            "metric": metric,
            "value": None if result is None else result.metrics[metric],
            "best_value": None if best is None else best.metrics[metric],
            "loses_against_best_frac": found.distance_frac,
            "p_better_than_best": found.p_better_than_best,
            "p_meets": None if result is None else result.p_meets,
        },
        "confidence": None if result is None else confidence_document(result, None),
        "checks": [asdict(c) for c in found.checks],
        "compatibility": dict(found.compatibility),
        "performance": dict(found.performance),
        "strategy": [asdict(v) for v in found.strategy],
        "memory": [asdict(m) for m in found.memory],
        "capacity": dict(found.capacity),
        "balance": dict(found.balance),
        "claims": [asdict(c) for c in found.claims],
        "quantities": dict(found.quantities),
        "conclusion": found.conclusion,
        "assumptions": list(found.assumptions),
    }
