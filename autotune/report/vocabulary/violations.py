"""Broken limits in words."""

from __future__ import annotations

from autotune.report.vocabulary.titles import LIMITS
from autotune.report.vocabulary.words import asked, measure, short_unit, united
from autotune.scoring.plan_result import relative_excess
from autotune.tuning import Violation


def broken(violation: Violation) -> str:
    """`TTFT at the longest prompt 4,294 ms against 50 ms, 86 times the limit`; a shortfall is at most all of it."""
    value = measure(violation.value, violation.unit)
    title = LIMITS[violation.code]
    limit = united(asked(violation.limit, violation.unit), short_unit(title, violation.unit))
    return f"{title} {value} against {limit}, {off_by(violation)}"


def off_by(violation: Violation) -> str:
    """`over by 12%`, `86 times the limit`, `short by 40%`, `none at all`, `just over`."""
    share = relative_excess(violation)
    if violation.value < violation.limit:
        share = min(share, 1.0)
        return "none at all" if violation.value <= 0.0 else "just short" if share < 0.005 else f"short by {share:.0%}"
    if share >= 10.0:
        return f"{share + 1.0:,.0f} times the limit"
    return "just over" if share < 0.005 else f"over by {share:.0%}"
