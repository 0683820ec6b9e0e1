"""The plans that break a limit, nearest first."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from autotune.report.text_blocks import Cell, Column, Row, Table
from autotune.report.vocabulary.metrics import TPOT, TTFT, Metric
from autotune.report.vocabulary.plan_names import plan_name, same_run
from autotune.report.vocabulary.titles import LIMITS, off_by
from autotune.report.vocabulary.words import asked, measure
from autotune.scoring.overload import ENDLESS, overload_of, told
from autotune.scoring.plan_result import relative_excess
from autotune.tuning import PlanResult, TuneResult


def nearest_table(result: TuneResult, most: int | None, *, overflow: str = "named") -> Table:
    """What each breaks, and by how much: the first `most` (None: all), and the plan in production if it is another.

    `overflow`: as in `Table.overflow`.
    """
    base = None if result.baseline is None else result.baseline.result
    plans = list(result.infeasible[:most])
    if base is not None and not base.feasible and not any(same_run(base, plan) for plan in plans):
        plans.append(base)
    several = len({p.engine for p in plans}) > 1
    rows = []
    for plan in plans:
        worst, *others = plan.violations
        name = plan_name(plan, dense=not result.study.arch.is_moe, several_engines=several)
        runs = base is not None and same_run(base, plan)
        cells = (
            Cell(text=f"{name} (now)" if runs else name, by=plan.plan),
            Cell(text=LIMITS[worst.code], by=worst.code),
            Cell(text=measure(worst.value, worst.unit), by=_by(worst.value), small=worst.unit),
            Cell(text=asked(worst.limit, worst.unit), by=worst.limit),
            Cell(text=off_by(worst), by=_by(relative_excess(worst))),
            *(_latency(metric, plan) for metric in (TTFT, TPOT)),
            Cell(text=", ".join(LIMITS[v.code] for v in others) or "–", by=float(len(others))),
        )
        rows.append(Row(plan=plan.plan, engine=plan.engine, role="base" if runs else "", cells=cells))
    columns = (
        Column(title="Plan", heading="plan", numeric=False),
        Column(title="Breaks most", heading="breaks most", numeric=False),
        Column(title="Value", heading="value"),
        Column(title="Limit", heading="limit"),
        Column(title="Off by", heading="off by", numeric=False),
        Column(title="TTFT", unit="s", heading="TTFT s"),
        Column(title="TPOT", unit="ms", heading="TPOT ms"),
        Column(title="Also breaks", heading="also breaks", numeric=False),
    )
    caption = "Plans that break a limit, nearest first"
    return Table(caption=caption, columns=columns, rows=tuple(rows), overflow=overflow)


def endless_note(plans: Sequence[PlanResult]) -> tuple[str, ...]:
    """What `∞` in the table means, where it stands there."""
    if all(overload_of(plan.breakdown) is None for plan in plans):
        return ()
    return (f"∞: {ENDLESS}, as more requests come than the plan serves.",)


def _latency(metric: Metric, plan: PlanResult) -> Cell:
    value = told(plan, metric.name)
    small = metric.shown_interval(plan) if isfinite(value) else ""
    return Cell(text=metric.text(value), by=_by(value * metric.factor), small=small)


def _by(value: float) -> float | None:
    return value if isfinite(value) else None
