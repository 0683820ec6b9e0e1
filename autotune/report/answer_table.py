"""The few rows that an answer on a terminal shows: what decides first, so that a narrow terminal keeps it."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.report.document import versus
from autotune.report.reach import short_reach
from autotune.report.text_blocks import Cell, Column, Row, Table
from autotune.report.tune_tables import Ranked
from autotune.report.vocabulary.metrics import COST, METRICS, TPOT, TTFT, Metric
from autotune.report.vocabulary.plan_names import plan_name, same_run
from autotune.report.vocabulary.titles import OPERATORS
from autotune.report.vocabulary.words import percent, probability, signed
from autotune.scoring.objective import plan_expected
from autotune.scoring.plan_result import PlanResult
from autotune.simulation.percentile_limits import percentile_limits
from autotune.study import Study
from autotune.text.numbers import number
from autotune.tuning import TuneResult

RANGE_DIGITS = 2


def answer_table(result: TuneResult, shown: Sequence[Ranked]) -> Table:
    """A row per plan: rank, name, what it is ranked by, how sure the limits are, latencies with their likely ranges."""
    study = result.study
    base = None if result.baseline is None else result.baseline.result
    several = len({p.engine for _, p, _ in shown}) > 1
    columns = [Column(title="#"), Column(title="plan", numeric=False, wraps=True), *_key_columns(study)]
    columns += [] if base is None else [Column(title="vs\nnow")]
    columns += [_latency(TTFT, study.constraints.ttft_s), _latency(TPOT, study.constraints.tpot_s)]
    columns += [
        Column(title=f"{limit.title} {limit.unit if limit.latency else ''}".strip())
        for limit in percentile_limits(study)
    ]
    columns += [] if base is None else [Column(title="better\nthan now")]
    columns += [
        Column(title="measured", numeric=False),
        Column(title="tok/s\nper user"),
        Column(title="in\nflight"),
        Column(title="chunk"),
        Column(title="memory\nneeded"),
        Column(title="GPU\nbusy"),
        Column(title="bottleneck", numeric=False),
    ]
    rows = []
    for rank, plan, role in shown:
        known = result.confidence.get(plan.plan)
        alike = known is not None and known.among_best and rank != 1
        runs = base is not None and same_run(plan, base)
        name = plan_name(plan, dense=not study.arch.is_moe, several_engines=several)
        place = "✗" if rank is None else f"{'≈' if alike else ''}{rank:,}"
        cells = [Cell(text=place), Cell(text=name), *_key_cells(study, plan)]
        if base is not None:
            share = _share(study, plan, base)
            cells.append(Cell(text="now" if runs else signed(share)))
        cells += [Cell(text=f"{m.text(plan.metrics[m.name])} {likely(m, plan)}") for m in (TTFT, TPOT)]
        for limit in percentile_limits(study):
            found = plan.breakdown.get("simulated", {}).get(limit.code)
            cells.append(Cell(text="" if found is None else number(found["value"])))
        if base is not None:
            better = None if known is None or runs else known.p_better_than_baseline
            cells.append(Cell(text=probability(better)))
        tpot_s = plan.metrics["tpot_s"]
        cells += [
            Cell(text=short_reach(study, plan)),
            Cell(text=number(1.0 / tpot_s) if tpot_s else "–"),
            Cell(text=f"{plan.knobs.concurrency:,}"),
            Cell(text=f"{plan.knobs.max_num_batched_tokens:,}"),
            *(Cell(text=percent(plan.metrics[n])) for n in ("memory_util_frac", "gpu_util_frac")),
            Cell(text=OPERATORS[plan.breakdown["bottleneck"]]),
        ]
        rows.append(Row(cells=tuple(cells), plan=plan.plan, role=role, engine=plan.engine, alike=alike))
    return Table(columns=tuple(columns), rows=tuple(rows))


def _share(study: Study, plan: PlanResult, base: PlanResult) -> float | None:
    """By how much the plan differs from the one in production: in the ranked metric, in time where a rate is given."""
    metric = METRICS[study.objective.metric]
    if study.workload.request_rate_per_s is not None and metric.better == "maximize":
        return plan.metrics["e2e_s"] / base.metrics["e2e_s"] - 1.0
    return versus(plan, base).get(f"{metric.name}_frac")


def likely(metric: Metric, plan: PlanResult) -> str:
    """`0.3–0.71`: where the mean lies with 80 % probability, in the metric's unit."""
    return "–".join(number(end, RANGE_DIGITS) for end in metric.interval(plan))


def key_words(study: Study) -> str:
    """What rows are sorted by, as a sentence about the columns."""
    metric = METRICS[study.objective.metric]
    if metric.name == "gpus":
        return "by GPUs, fewest first, then by throughput per GPU x keeps limits"
    if study.workload.request_rate_per_s is not None and metric.better == "maximize":
        return "by keeps limits, as all serve the same load, then by request s"
    if metric.name == COST.name:
        return f"by expected ({metric.heading} / keeps limits)"
    if metric.better == "minimize":
        return f"by {metric.heading}"
    return f"by expected ({metric.heading} x keeps limits)"


def _key_columns(study: Study) -> list[Column]:
    metric = METRICS[study.objective.metric]
    heading = metric.heading.replace("/GPU", "\n/GPU").replace("USD/", "USD\n/")
    kept = Column(title="keeps\nlimits")
    if metric.name == "gpus":
        return [Column(title="GPUs"), Column(title="tok/s\n/GPU"), kept]
    if study.workload.request_rate_per_s is not None and metric.better == "maximize":
        return [kept, Column(title="request\ns"), Column(title=heading)]
    if metric.better == "minimize" and metric.name != COST.name:
        return [*([] if metric.name in (TTFT.name, TPOT.name) else [Column(title=heading)]), kept]
    return [Column(title="expected"), Column(title=heading), kept]


def _key_cells(study: Study, plan: PlanResult) -> list[Cell]:
    metric = METRICS[study.objective.metric]
    value, kept = metric.text(plan.metrics.get(metric.name)), Cell(text=probability(plan.p_meets))
    if metric.name == "gpus":
        per_gpu = number(plan.metrics["total_tokens_per_s_per_gpu"])
        return [Cell(text=f"{plan.metrics['gpus']:,.0f}"), Cell(text=per_gpu), kept]
    if study.workload.request_rate_per_s is not None and metric.better == "maximize":
        return [kept, Cell(text=number(plan.metrics["e2e_s"])), Cell(text=value)]
    if metric.better == "minimize" and metric.name != COST.name:
        return [*([] if metric.name in (TTFT.name, TPOT.name) else [Cell(text=value)]), kept]
    return [Cell(text=number(plan_expected(study, plan) * metric.factor)), Cell(text=value), kept]


def _latency(metric: Metric, limit_s: float | None) -> Column:
    bound = "" if limit_s is None else f", at most {number(limit_s * metric.factor, 6)}"
    title = "TTFT s" if metric is TTFT else "TPOT ms"
    return Column(title=f"{title}\n{bound.removeprefix(', ') or 'likely range'}", numeric=False)
