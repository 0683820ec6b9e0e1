"""Answering a study: scoring every plan, solving its knobs, ranking what keeps the constraints."""

from autotune.tuning.plans import Knobs, PlanResult, Violation
from autotune.tuning.run import BaselineResult, TuneResult, score_baseline, score_plan, tune

__all__ = [
    "BaselineResult",
    "Knobs",
    "PlanResult",
    "TuneResult",
    "Violation",
    "score_baseline",
    "score_plan",
    "tune",
]
