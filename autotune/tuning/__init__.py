"""Answering a study: scoring every plan, solving its knobs, ranking what keeps the constraints."""

from autotune.tuning.plans import Knobs, PlanResult, Violation
from autotune.tuning.run import TuneResult, tune

__all__ = ["Knobs", "PlanResult", "TuneResult", "Violation", "tune"]
