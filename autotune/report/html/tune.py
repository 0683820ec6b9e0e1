"""The answer of a study as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotune.metrics import METRICS, Metric
from autotune.report.document import assumptions, baseline_rank
from autotune.report.html.flips import TITLES, flips_table, summary
from autotune.report.html.intervals import interval_chart
from autotune.report.html.page import render
from autotune.report.html.page_layout import Tile
from autotune.report.html.scatter import Marked, ScatterLimit, scatter
from autotune.report.html.shapes import Chart
from autotune.report.html.tables import nearest_table, ranked_table
from autotune.report.html.trends import trend
from autotune.report.html.tune_sections import (
    Named,
    binding_table,
    limits_table,
    memory_chart,
    memory_table,
    rejected_table,
    request_charts,
    step_charts,
    ttft_chart,
    work_rows,
)
from autotune.report.html.verdict import tune_verdict
from autotune.report.vocabulary.words import (
    ENGINES,
    PER_GPU,
    TPOT,
    TTFT,
    percent,
    plan_name,
    probability,
    same_run,
    signed,
    within,
)
from autotune.space import format_plan
from autotune.study import Study
from autotune.text.numbers import exact, number
from autotune.tuning import PlanResult, TuneResult
from autotune.tuning.sensitivity import Sensitivity

TABLE_ROWS = 200
"""Plans in the table; more would neither be read nor load quickly."""
POINTED_AT = 120
"""Plans in a scatter chart that answer to the pointer; the others are dots."""
NEAREST_ROWS = 40
INTERVAL_ROWS = 8


def tune_page(result: TuneResult, found: Sensitivity | None = None) -> str:
    """The page of a study's answer.

    Args:
        result: from `tune`.
        found: from `autotune.tuning.sensitivity.sensitivity`; None leaves that section out.
    """
    view = _View(result)
    study = result.study
    ranked = view.shown
    first = view.side
    return render(
        "tune.html.jinja",
        title=study.name,
        facts=_facts(study),
        verdict=tune_verdict(result, view.name(view.subject) if view.subject else ""),
        tiles=_tiles(view),
        subject=view.subject,
        subject_word="first plan" if result.ranked else "nearest plan",
        first_name=view.name(view.subject) if view.subject else "",
        base=None if result.baseline is None else result.baseline,
        base_name=view.name(view.base) if view.base is not None and len(first) > 1 else None,
        alternatives=_alternatives(result),
        limits=limits_table(study, first) if first else None,
        scatters=_scatters(view),
        table=ranked_table(result, ranked) if result.ranked else None,
        table_total=len(result.ranked),
        engines=sorted({(p.engine, ENGINES[p.engine]) for _, p, _ in ranked}),
        alike=sum(result.confidence[p.plan].among_best for p in result.ranked),
        intervals=_intervals(view),
        steps=step_charts(first) if first else (),
        requests=request_charts(first) if first else (),
        work=work_rows(first),
        ttft=ttft_chart(first) if first else None,
        memory=memory_chart(study, first) if first else None,
        memory_table=memory_table(first) if first else None,
        sensitivity=found,
        flips=None if found is None else flips_table(found, study, view.name_of),
        flips_summary="" if found is None else summary(found),
        trends=() if found is None else _trends(view, found),
        rejected=rejected_table(result),
        binding=binding_table(result),
        enumerated=result.space.enumerated,
        valid=len(result.space.candidates),
        nearest=nearest_table(result, result.infeasible[:NEAREST_ROWS]) if result.infeasible else None,
        nearest_total=len(result.infeasible),
        assumptions=assumptions(result),
        objective=within(METRICS[study.objective.metric].title),
        minimized=study.objective.direction == "minimize",
    )


class _View:
    """What several parts of the page share: names, the plan it is about, the baseline."""

    def __init__(self, result: TuneResult) -> None:
        self.result = result
        self.subject: PlanResult | None = next(iter(result.ranked or result.infeasible), None)
        self.base: PlanResult | None = None if result.baseline is None else result.baseline.result
        everything = (*result.ranked, *result.infeasible, *(() if self.base is None else (self.base,)))
        self._several = len({p.engine for p in everything}) > 1
        self._dense = not result.study.arch.is_moe
        self._by_plan = {p.plan: p for p in everything}
        self.shown = self._shown()

    def name(self, plan: PlanResult) -> str:
        """`R8 TP2 DP8 EP16`, with the engine where several compete."""
        return plan_name(plan, dense=self._dense, several_engines=self._several)

    def name_of(self, plan: str) -> str:
        """The same of a plan string of this result."""
        return self.name(self._by_plan[plan])

    @property
    def side(self) -> Named:
        """The first plan (or the nearest), and the baseline where it is another or has other knobs."""
        if self.subject is None:
            return ()
        word = "first" if self.result.ranked else "nearest"
        out = [(f"{self.name(self.subject)} ({word})", "first", self.subject)]
        if self.base is not None and not same_run(self.base, self.subject):
            out.append((f"{self.name(self.base)} (production)", "base", self.base))
        return tuple(out)

    def _shown(self) -> list[tuple[int | None, PlanResult, str]]:
        base = self.base
        out: list[tuple[int | None, PlanResult, str]] = []
        for rank, plan in enumerate(self.result.ranked[:TABLE_ROWS], start=1):
            role = "first" if rank == 1 else "base" if base is not None and same_run(base, plan) else ""
            out.append((rank, plan, role))
        if base is not None and self.result.baseline is not None and not any(same_run(base, p) for _, p, _ in out):
            out.append((baseline_rank(self.result.baseline, self.result), base, "base"))
        return out

    def marked(self, most: int) -> list[Marked]:
        """The first plans and the baseline, with what is said when they are pointed at."""
        plans = (self.result.ranked or self.result.infeasible)[:most]
        out = []
        for i, plan in enumerate(plans, start=1):
            title = f"{'rank' if plan.feasible else 'nearest'} {i}: {self.name(plan)}"
            role = "first" if i == 1 else "plan"
            if self.base is not None and i > 1 and same_run(self.base, plan):
                continue
            out.append(Marked(plan=plan, tip=self._tip(plan, title), role=role))
        if self.base is not None and not (plans and same_run(self.base, plans[0])):
            out.append(
                Marked(plan=self.base, tip=self._tip(self.base, f"production: {self.name(self.base)}"), role="base")
            )
        return out

    def _tip(self, plan: PlanResult, title: str) -> str:
        figures = [f"{m.title}: {m.shown(plan)} ({m.shown_interval(plan)})" for m in (PER_GPU, TTFT, TPOT)]
        meets = f"P(meets) {probability(plan.p_meets)}, {plan.knobs.concurrency:,} in flight"
        return "\n".join([title, *figures, meets])


def _facts(study: Study) -> tuple[str, ...]:
    work, cluster = study.workload, study.cluster

    def lengths(low: int, high: int) -> str:
        return f"{low:,}" if low == high else f"{low:,} to {high:,}"

    if work.concurrency is not None:
        load = f"{work.concurrency:,} requests in flight"
    elif work.request_rate_per_s is not None:
        load = f"{exact(work.request_rate_per_s)} requests/s"
    else:
        load = "load solved for each plan"
    return (
        study.arch.name,
        f"{cluster.gpus:,} × {cluster.gpu.name}",
        ENGINES[study.engine],
        f"prompts of {lengths(work.isl.min, work.isl.max)}, outputs of {lengths(work.osl.min, work.osl.max)} tokens",
        load,
    )


def _tiles(view: _View) -> tuple[Tile, ...]:
    plan, base = view.subject, view.base
    if plan is None:
        return ()
    objective = METRICS[view.result.study.objective.metric]
    metrics = dict.fromkeys([PER_GPU if objective in (TTFT, TPOT) else objective, TTFT, TPOT])
    out = []
    for metric in metrics:
        change = None if base is None or same_run(plan, base) else metric.of(plan) / metric.of(base) - 1.0
        out.append(
            Tile(
                title=metric.title,
                value=number(metric.of(plan)),
                unit=metric.unit,
                small=f"p10 to p90: {metric.shown_interval(plan)}",
                change="" if change is None else f"{signed(change)} vs production",
            )
        )
    memory = plan.metrics["memory_util_frac"]
    out += [
        Tile(
            title="Keeps every limit",
            value=probability(plan.p_meets),
            unit="likely",
            small="given how sure the estimate is",
            change="",
        ),
        Tile(
            title="GPU memory in use",
            value=percent(memory),
            unit="",
            small=f"of {view.result.study.cluster.gpu.hbm_bytes / 2**30:,.0f} GiB, fullest GPU",
            change="",
        ),
    ]
    return tuple(out)


def _alternatives(result: TuneResult) -> tuple[str, ...]:
    if result.baseline is None:
        return ()
    return tuple(format_plan(c.layout, c.engine, c.gpu) for c in result.baseline.resolution.alternatives[:6])


def _scatters(view: _View) -> tuple[Chart, ...]:
    result, c = view.result, view.result.study.constraints
    if view.subject is None:
        return ()
    objective = METRICS[result.study.objective.metric]
    y = objective if result.study.objective.direction == "maximize" else PER_GPU
    least = {
        "total_tokens_per_s_per_gpu": c.min_total_tokens_per_s_per_gpu,
        "output_tokens_per_s_per_gpu": c.min_output_tokens_per_s_per_gpu,
    }.get(y.name)
    marked = view.marked(POINTED_AT)
    return tuple(
        scatter(
            x=x,
            y=y,
            marked=marked,
            feasible=result.ranked,
            infeasible=result.infeasible,
            most_x=_most(limit, x),
            least_y=None if least is None else ScatterLimit(value=least, label=f"limit {exact(least)} {y.unit}"),
        )
        for x, limit in ((TPOT, c.tpot_s), (TTFT, c.ttft_s))
    )


def _most(limit_s: float | None, metric: Metric) -> ScatterLimit | None:
    if limit_s is None:
        return None
    value = limit_s * metric.factor
    return ScatterLimit(value=value, label=f"limit {exact(value)} {metric.unit}")


def _intervals(view: _View) -> tuple[Chart, ...]:
    result, c = view.result, view.result.study.constraints
    rows = [(m, _row_name(view, m, i)) for i, m in enumerate(view.marked(INTERVAL_ROWS), start=1)]
    if not rows:
        return ()
    objective = METRICS[result.study.objective.metric]
    y = PER_GPU if objective.name in ("ttft_s", "tpot_s") else objective
    return (
        interval_chart(y, rows, limit=None, least=True),
        interval_chart(TPOT, rows, limit=_most(c.tpot_s, TPOT), least=False),
        interval_chart(TTFT, rows, limit=_most(c.ttft_s, TTFT), least=False),
    )


def _row_name(view: _View, mark: Marked, place: int) -> str:
    return f"production · {view.name(mark.plan)}" if mark.role == "base" else f"{place} · {view.name(mark.plan)}"


def _trends(view: _View, found: Sensitivity) -> Sequence[Chart]:
    metric = METRICS[view.result.study.objective.metric]
    name: Callable[[str], str] = view.name_of
    return tuple(trend(axis, metric, name, TITLES[axis.name]) for axis in found.axes)
