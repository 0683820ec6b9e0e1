"""Tables as values: cells with what is shown and what they sort by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from autotune.metrics import METRICS
from autotune.report.document import versus
from autotune.report.vocabulary.words import (
    ENGINES,
    LIMITS,
    OPERATORS,
    TPOT,
    TTFT,
    percent,
    plan_name,
    probability,
    same_run,
    signed,
)
from autotune.scoring.plan_result import relative_excess
from autotune.text.numbers import exact, number
from autotune.tuning import PlanResult, TuneResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column; `first` is the direction of its first click."""

    title: str
    unit: str = ""
    numeric: bool = True
    first: str = "ascending"
    hint: str = ""
    wide: bool = False
    """Holds sentences: on a phone it keeps a width in which they can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell; `by` is what it sorts by, None goes last."""

    text: str
    by: float | str | None = None
    small: str = ""
    tone: str = ""
    """`good`, `open` or `bad`: its colour, beside what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row. The first cell is its heading."""

    cells: tuple[Cell, ...]
    plan: str = ""
    role: str = ""
    engine: str = ""
    alike: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns and rows."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def ranked_table(result: TuneResult, shown: Sequence[tuple[int | None, PlanResult, str]]) -> Table:
    """`shown`: (rank, plan, role), in order; None is a baseline that breaks a limit."""
    dense = not result.study.arch.is_moe
    several = len({p.engine for _, p, _ in shown}) > 1
    base = None if result.baseline is None else result.baseline.result
    metric = METRICS[result.study.objective.metric]
    columns = (
        Column(title="Plan", numeric=False),
        Column(title="Rank"),
        *((Column(title="Engine", numeric=False),) if several else ()),
        Column(title="Throughput", unit="tok/s/GPU", first="descending", hint="prompt and output tokens"),
        Column(title="Output", unit="tok/s/GPU", first="descending"),
        Column(title="TTFT", unit="s", hint="mean at the longest prompt; below it p10 to p90"),
        Column(title="TPOT", unit="ms", hint="mean; below it p10 to p90"),
        Column(title="P(meets)", first="descending", hint="probability that every limit is kept"),
        *(
            (
                Column(title="vs prod.", first="descending", hint=f"{metric.title}, against the plan in production"),
                Column(title="P(better)", first="descending", hint="than the plan in production"),
            )
            if base is not None
            else ()
        ),
        Column(title="In flight", unit="requests", first="descending"),
        Column(title="Chunk", unit="tokens", first="descending", hint="token budget of a step"),
        Column(title="Memory", unit="of GPU", hint="fullest GPU"),
        Column(title="GPU busy", first="descending"),
        Column(title="Bottleneck", numeric=False),
    )
    rows = []
    for rank, plan, role in shown:
        known = result.confidence.get(plan.plan)
        alike = known is not None and known.among_best
        cells = [
            Cell(text=plan_name(plan, dense=dense, several_engines=False), by=plan.plan),
            Cell(text="–" if rank is None else f"{rank:,}", by=rank, small=_place(rank, alike, plan, base)),
        ]
        if several:
            cells.append(Cell(text=ENGINES[plan.engine], by=plan.engine))
        cells += _figures(plan)
        if base is not None:
            change = versus(plan, base).get(f"{metric.name}_frac")
            better = None if known is None else known.p_better_than_baseline
            same = same_run(plan, base)
            cells += [
                Cell(text="–" if same else signed(change), by=0.0 if same else change),
                Cell(text="–" if same else probability(better), by=None if same else better),
            ]
        cells += [
            Cell(text=f"{plan.knobs.concurrency:,}", by=float(plan.knobs.concurrency)),
            Cell(text=f"{plan.knobs.max_num_batched_tokens:,}", by=float(plan.knobs.max_num_batched_tokens)),
            Cell(text=percent(plan.metrics["memory_util_frac"]), by=plan.metrics["memory_util_frac"]),
            Cell(text=percent(plan.metrics["gpu_util_frac"]), by=plan.metrics["gpu_util_frac"]),
            Cell(text=OPERATORS[plan.breakdown["bottleneck"]], by=OPERATORS[plan.breakdown["bottleneck"]]),
        ]
        rows.append(Row(cells=tuple(cells), plan=plan.plan, role=role, engine=plan.engine, alike=alike))
    return Table(caption="Plans that keep every limit, best first", columns=columns, rows=tuple(rows))


def _place(rank: int | None, alike: bool, plan: PlanResult, base: PlanResult | None) -> str:
    production = base is not None and same_run(plan, base)
    if rank is None:
        return "production, breaks a limit"
    if production:
        return "production"
    return "first" if rank == 1 else "≈ first" if alike else ""


def _figures(plan: PlanResult) -> list[Cell]:
    m = plan.metrics
    return [
        Cell(text=number(m["total_tokens_per_s_per_gpu"]), by=_by(m["total_tokens_per_s_per_gpu"])),
        Cell(text=number(m["output_tokens_per_s_per_gpu"]), by=_by(m["output_tokens_per_s_per_gpu"])),
        Cell(text=number(TTFT.of(plan)), by=_by(TTFT.of(plan)), small=TTFT.shown_interval(plan)),
        Cell(text=number(TPOT.of(plan)), by=_by(TPOT.of(plan)), small=TPOT.shown_interval(plan)),
        Cell(text=probability(plan.p_meets), by=_by(plan.p_meets)),
    ]


def _by(value: float) -> float | None:
    return value if isfinite(value) else None


def nearest_table(result: TuneResult, plans: Sequence[PlanResult]) -> Table:
    """Infeasible plans, nearest first: what they break, and by how much."""
    dense = not result.study.arch.is_moe
    several = len({p.engine for p in plans}) > 1
    rows = []
    for plan in plans:
        worst, *others = plan.violations
        rows.append(
            Row(
                plan=plan.plan,
                engine=plan.engine,
                role="base" if _is_baseline(result, plan) else "",
                cells=(
                    Cell(text=plan_name(plan, dense=dense, several_engines=False), by=plan.plan),
                    *((Cell(text=ENGINES[plan.engine], by=plan.engine),) if several else ()),
                    Cell(text=LIMITS[worst.code], by=worst.code),
                    Cell(text=number(worst.value, 4), by=_by(worst.value), small=worst.unit),
                    Cell(text=exact(worst.limit), by=worst.limit),
                    Cell(text=f"{relative_excess(worst):,.0%}", by=_by(relative_excess(worst))),
                    Cell(text=", ".join(LIMITS[v.code] for v in others) or "–", by=float(len(others))),
                    *_figures(plan)[2:4],
                ),
            )
        )
    return Table(
        caption="Plans that break a limit, nearest first",
        columns=(
            Column(title="Plan", numeric=False),
            *((Column(title="Engine", numeric=False),) if several else ()),
            Column(title="Breaks most", numeric=False),
            Column(title="Value"),
            Column(title="Limit"),
            Column(title="Off by"),
            Column(title="Also breaks", numeric=False),
            Column(title="TTFT", unit="s"),
            Column(title="TPOT", unit="ms"),
        ),
        rows=tuple(rows),
    )


def _is_baseline(result: TuneResult, plan: PlanResult) -> bool:
    return (
        result.baseline is not None
        and result.baseline.result is not None
        and (result.baseline.result.plan == plan.plan)
    )
