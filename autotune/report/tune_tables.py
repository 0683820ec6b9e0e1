"""The tables of a ranking: plans that keep every limit, and the nearest of those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from autotune.engines import engine_title
from autotune.report.document import baseline_rank, versus
from autotune.report.kinds import BestOfKinds
from autotune.report.text_blocks import Cell, Column, Row, Table
from autotune.report.vocabulary.metrics import COST, METRICS, OUT_PER_GPU, PER_GPU, TPOT, TTFT, Metric
from autotune.report.vocabulary.plan_names import plan_name, same_run
from autotune.report.vocabulary.titles import LIMITS, OPERATORS
from autotune.report.vocabulary.violations import off_by
from autotune.report.vocabulary.words import asked, measure, percent, probability, signed
from autotune.scoring.plan_result import relative_excess
from autotune.simulation.percentile_limits import percentile_limits
from autotune.text.numbers import number
from autotune.tuning import PlanResult, TuneResult

Ranked = tuple[int | None, PlanResult, str]
"""Rank (None: the baseline, where it breaks a limit), plan, and its role: `first`, `base` or nothing."""


WHOLE_RATES = ("total_tokens_per_s", "output_tokens_per_s", "requests_per_s")
"""Rates of all GPUs together, which have a column where plans are ranked by them."""


def ranked_plans(result: TuneResult, most: int | None) -> list[Ranked]:
    """The first plans, all where `most` is None; and the baseline, where they lack it.

    Where plans with pools or those of one kind of replica all come later, the best of that kind have the last places:
    what cannot be told apart says less than what is another kind of plan.
    """
    base = None if result.baseline is None else result.baseline.result
    places = list(enumerate(result.ranked, start=1))
    shown, kinds = places[:most], BestOfKinds.of(result)
    if most is not None and kinds is not None and kinds.second is not None and kinds.second[0] > most:
        pooled = kinds.second[1].pools is not None
        others = [placed for placed in places if (placed[1].pools is not None) is pooled][: max(most - 2, 1)]
        shown = [*shown[: max(most - len(others), 1)], *others]
    out: list[Ranked] = []
    for rank, plan in shown:
        role = "first" if rank == 1 else "base" if base is not None and same_run(base, plan) else ""
        out.append((rank, plan, role))
    if result.baseline is not None and base is not None and not any(same_run(base, p) for _, p, _ in out):
        out.append((baseline_rank(result.baseline, result), base, "base"))
    return out


def ranked_table(result: TuneResult, shown: Sequence[Ranked]) -> Table:
    """What a plan does and how sure that is, a row each."""
    several = len({p.engine for _, p, _ in shown}) > 1
    priced = any(COST.name in p.metrics for _, p, _ in shown)
    base = None if result.baseline is None else result.baseline.result
    metric = METRICS[result.study.objective.metric]
    simulated = percentile_limits(result.study)
    rates = (PER_GPU, OUT_PER_GPU, *((metric,) if metric.name in WHOLE_RATES else ()))
    columns = [Column(title="Plan", heading="plan", numeric=False), Column(title="Rank", heading="rank")]
    columns += [Column(title="Engine", heading="engine", numeric=False)] if several else []
    columns += [
        Column(title=m.title, unit=m.unit, heading=m.heading, first="descending", minor=m is not metric)
        for m in (*rates, *([metric] if metric.simulated else []))
    ]
    columns += [
        Column(title="TTFT", unit="s", heading="TTFT s", hint="mean at the longest prompt; below it the likely range"),
        Column(title="TPOT", unit="ms", heading="TPOT ms", hint="mean; below it the likely range"),
        *(
            Column(
                title=limit.title,
                unit=limit.unit,
                heading=f"{limit.title} {limit.unit if limit.latency else ''}".strip(),
                hint="over simulated requests",
            )
            for limit in simulated
        ),
        Column(
            title="Keeps limits",
            heading="keeps\nlimits",
            first="descending",
            hint="probability that every limit is kept",
        ),
    ]
    if base is not None:
        hint = f"{metric.title}, against the plan in production"
        columns.append(Column(title="vs now", heading="vs\nnow", first="descending", hint=hint))
        said = "probability to be better than the plan in production"
        columns.append(Column(title="Better than now", heading="better\nthan now", first="descending", hint=said))
    columns += [
        Column(title="In flight", unit="requests", heading="in flight", first="descending", minor=True),
        Column(
            title="Chunk", unit="tokens", heading="chunk", first="descending", hint="token budget of a step", minor=True
        ),
        Column(title="Memory", unit="of GPU", heading="mem", hint="fullest GPU", minor=True),
        Column(title="GPU busy", heading="GPU", first="descending", minor=True),
        *([Column(title=COST.title, unit=COST.unit, heading=COST.heading)] if priced else []),
        Column(title="Bottleneck", heading="bottleneck", numeric=False, minor=True),
    ]
    rows = []
    for rank, plan, role in shown:
        known = result.confidence.get(plan.plan)
        alike = known is not None and known.among_best
        runs = base is not None and same_run(plan, base)
        cells = [_plan_cell(result, plan), _rank_cell(rank, runs=runs, alike=alike)]
        cells += [Cell(text=engine_title(plan.engine), by=plan.engine)] if several else []
        cells += [_metric_cell(m, plan) for m in rates]
        cells += [_simulated_cell(plan, metric.name)] if metric.simulated else []
        cells += [_metric_cell(m, plan, interval=True) for m in (TTFT, TPOT)]
        cells += [_simulated_cell(plan, limit.code) for limit in simulated]
        cells.append(Cell(text=probability(plan.p_meets), by=_by(plan.p_meets)))
        if base is not None:
            better = None if known is None or runs else known.p_better_than_baseline
            cells += _against_base(plan, base, metric, better)
        cells += [
            Cell(text=f"{plan.knobs.concurrency:,}", by=float(plan.knobs.concurrency)),
            Cell(text=f"{plan.knobs.max_num_batched_tokens:,}", by=float(plan.knobs.max_num_batched_tokens)),
            *(Cell(text=percent(plan.metrics[n]), by=plan.metrics[n]) for n in ("memory_util_frac", "gpu_util_frac")),
            *([_metric_cell(COST, plan)] if priced else []),
            Cell(text=OPERATORS[plan.breakdown["bottleneck"]], by=OPERATORS[plan.breakdown["bottleneck"]]),
        ]
        rows.append(Row(cells=tuple(cells), plan=plan.plan, role=role, engine=plan.engine, alike=alike))
    return Table(caption="Plans that keep every limit, best first", columns=tuple(columns), rows=tuple(rows))


def nearest_table(result: TuneResult, plans: Sequence[PlanResult]) -> Table:
    """Infeasible plans, nearest first: what they break, and by how much."""
    several = len({p.engine for p in plans}) > 1
    base = None if result.baseline is None else result.baseline.result
    rows = []
    for plan in plans:
        worst, *others = plan.violations
        cells = [_plan_cell(result, plan)]
        cells += [Cell(text=engine_title(plan.engine), by=plan.engine)] if several else []
        cells += [
            Cell(text=LIMITS[worst.code], by=worst.code),
            Cell(text=measure(worst.value, worst.unit), by=_by(worst.value), small=worst.unit),
            Cell(text=asked(worst.limit, worst.unit), by=worst.limit),
            Cell(text=off_by(worst), by=_by(relative_excess(worst))),
            *(_metric_cell(m, plan, interval=True) for m in (TTFT, TPOT)),
            Cell(text=", ".join(LIMITS[v.code] for v in others) or "–", by=float(len(others))),
        ]
        role = "base" if base is not None and base.plan == plan.plan else ""
        rows.append(Row(plan=plan.plan, engine=plan.engine, role=role, cells=tuple(cells)))
    columns = [Column(title="Plan", heading="plan", numeric=False)]
    columns += [Column(title="Engine", heading="engine", numeric=False)] if several else []
    columns += [
        Column(title="Breaks most", heading="breaks most", numeric=False),
        Column(title="Value", heading="value"),
        Column(title="Limit", heading="limit"),
        Column(title="Off by", heading="off by", numeric=False),
        Column(title="TTFT", unit="s", heading="TTFT s"),
        Column(title="TPOT", unit="ms", heading="TPOT ms"),
        Column(title="Also breaks", heading="also breaks", numeric=False),
    ]
    return Table(caption="Plans that break a limit, nearest first", columns=tuple(columns), rows=tuple(rows))


def _plan_cell(result: TuneResult, plan: PlanResult) -> Cell:
    return Cell(text=plan_name(plan, dense=not result.study.arch.is_moe), by=plan.plan)


def _rank_cell(rank: int | None, *, runs: bool, alike: bool) -> Cell:
    """`runs`: it is the baseline, the plan in production; `alike`: it cannot be told apart from the first."""
    place = "✗" if rank is None else f"{'≈' if alike and rank > 1 else ''}{rank:,}"
    small = "breaks a limit" if rank is None else "production" if runs else "first" if rank == 1 else ""
    return Cell(text=f"now {place}" if runs else place, by=rank, small=small)


def _metric_cell(metric: Metric, plan: PlanResult, *, interval: bool = False) -> Cell:
    value = plan.metrics.get(metric.name)
    if value is None:
        return Cell(text="")
    small = metric.shown_interval(plan) if interval else ""
    return Cell(text=metric.text(value), by=_by(value * metric.factor), small=small)


def _simulated_cell(plan: PlanResult, code: str) -> Cell:
    """A figure over simulated requests, and its likely range."""
    found = plan.breakdown.get("simulated", {}).get(code)
    if found is None:
        return Cell(text="")
    ends = f"{number(found['likely_low'])}–{number(found['likely_high'])}"
    return Cell(text=number(found["value"]), by=_by(found["value"]), small=ends)


def _against_base(plan: PlanResult, base: PlanResult, metric: Metric, better: float | None) -> list[Cell]:
    same = same_run(plan, base)
    change = 0.0 if same else versus(plan, base).get(f"{metric.name}_frac")
    return [Cell(text="–" if same else signed(change), by=change), Cell(text=probability(better), by=better)]


def _by(value: float) -> float | None:
    return value if isfinite(value) else None
