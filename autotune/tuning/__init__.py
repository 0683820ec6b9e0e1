"""Answering a study: scoring every plan, solving its knobs, ranking what keeps the constraints."""

from autotune.engines.service import Knobs
from autotune.scoring.plan_result import PlanResult, Violation
from autotune.tuning.answer import BaselineResult, TuneResult
from autotune.tuning.answer_study import score_named, score_plan, tune
from autotune.tuning.given_plan import score_baseline

__all__ = [
    "BaselineResult",
    "Knobs",
    "PlanResult",
    "TuneResult",
    "Violation",
    "score_baseline",
    "score_named",
    "score_plan",
    "tune",
]
