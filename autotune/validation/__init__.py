"""Predictions against measured runs: errors, intervals, rankings, and published deployments."""

from autotune.validation.metrics import Errors, errors_of, kendall_tau
from autotune.validation.published import published_points
from autotune.validation.slo import SloScore, slo_task

__all__ = ["Errors", "SloScore", "errors_of", "kendall_tau", "published_points", "slo_task"]
