"""The answer of a study as one self-contained HTML page."""

from __future__ import annotations

from dataclasses import replace

from autotune.engines import engine_title
from autotune.launch.export import Refusal, refusals
from autotune.metrics import METRICS, Metric
from autotune.report.answer import MOST_TRIED, next_block, refused_lines
from autotune.report.document import assumptions, plan_string
from autotune.report.html.flips import sensitivity_section
from autotune.report.html.page_layout import (
    Grid,
    Heading,
    Legend,
    Page,
    Part,
    Plain,
    Prose,
    Section,
    Sortable,
    Tile,
    Words,
    assumed_section,
    render_page,
)
from autotune.report.html.tune_sections import Named, left_out_section, limits_table, memory_section, time_section
from autotune.report.kinds import kinds_line
from autotune.report.ranked_table import ranked_plans, ranked_table
from autotune.report.study_words import command
from autotune.report.svg.intervals import interval_chart
from autotune.report.svg.scatter import Marked, Scatter, ScatterLimit, scatter
from autotune.report.svg.shapes import Shape, circle, path, plan_mark, rect
from autotune.report.text_blocks import Line, Table
from autotune.report.verdict import tune_verdict
from autotune.report.vocabulary.metrics import PER_GPU, TPOT, TTFT
from autotune.report.vocabulary.plan_names import subject_name
from autotune.report.vocabulary.words import GIB, count, lengths, percent, signed, token_words
from autotune.scoring.plan_name import plan_name
from autotune.study import Study
from autotune.text.numbers import number, probability, within
from autotune.tuning import PlanResult, TuneResult
from autotune.tuning.sensitivity import Sensitivity

TABLE_ROWS = 200
"""Plans in the table; more would neither be read nor load quickly."""
POINTED_AT = 120
"""Plans in a scatter chart that answer to the pointer; the others are dots."""
INTERVAL_ROWS = 8
MOST_READINGS = 6
LIMIT_SAMPLE = (rect(10, 1, 9, 18, "beyond"), path("M10 1V19", "limit"))
WHISKER_SAMPLE = (path("M2 10H18M2 7V13M18 7V13", "whisker first"),)
FRONT_SAMPLE = (path("M2 16V10H10V4H18", "front"),)
READING = Section(key="reading", title="How to read it", folded=True, parts=(Prose("reading.html.jinja"),))


def tune_page(result: TuneResult, found: Sensitivity | None = None, refusal: Refusal | None = None) -> str:
    """The page of a study's answer.

    Without `found`, of `sensitivity`, that section is left out; `refusal`: of `refusals`, where it is known already.
    """
    refusal = refusal or refusals(result.study)
    view, study = _View(result), result.study
    verdict = tune_verdict(result, view.name(view.subject) if view.subject else "")
    steps = next_block(result, verdict, refusal)
    sections = [_limits(view), _tradeoff(view), _plans(view, refusal)]
    if view.side:
        kinds = ((view.subject_words, "first"), ("in production", "base"))
        names = [(role, f"{view.name(p)}, {words}") for (words, role), (_, _, p) in zip(kinds, view.side, strict=False)]
        sections += [time_section(view.side, Legend(tuple(names))), memory_section(study, view.side)]
    if found is not None:
        sections.append(sensitivity_section(found, study, view.name_of))
    sections += [left_out_section(result), assumed_section(assumptions(result)), READING]
    return render_page(
        Page(
            kind="plan report",
            title=study.name,
            facts=_facts(study),
            verdict=verdict,
            subject=None if view.subject is None else (view.subject_words, subject_name(result, view.subject)),
            tiles=_tiles(view),
            sections=[section for section in sections if section is not None],
            steps=[] if steps is None else [x.text for x in steps.lines if isinstance(x, Line) and x.whole],
            made_by=f"{command(study, 'tune').text} --html PAGE.html",
        )
    )


class _View:
    """What several parts of the page share: names, the plan it is about, the baseline."""

    def __init__(self, result: TuneResult) -> None:
        self.result = result
        self.subject: PlanResult | None = next(iter(result.ranked or result.infeasible), None)
        self.base: PlanResult | None = None if result.baseline is None else result.baseline.result
        self.subject_words = "first plan" if result.ranked else "nearest plan"
        self.objective = METRICS[result.study.objective.metric]
        everything = (*result.ranked, *result.infeasible, *(() if self.base is None else (self.base,)))
        self._several = len({p.engine for p in everything}) > 1
        self._by_plan = {p.plan: p for p in everything}

    def name(self, plan: PlanResult) -> str:
        """`R8 TP2 DP8 EP16`, with the engine where several compete."""
        return plan_name(plan, dense=not self.result.study.arch.is_moe, several_engines=self._several)

    def name_of(self, plan: str) -> str:
        """The name of a plan string of this result."""
        return self.name(self._by_plan[plan])

    @property
    def throughput(self) -> Metric:
        """What is plotted against latencies: the objective, unless it is a latency itself."""
        return PER_GPU if self.objective.name in ("ttft_s", "tpot_s") or self.objective.simulated else self.objective

    @property
    def side(self) -> Named:
        """The first plan (or the nearest), and the baseline where it is another or has other knobs."""
        if self.subject is None:
            return ()
        out = [(f"{self.name(self.subject)} ({self.subject_words.split()[0]})", "first", self.subject)]
        if self.base is not None and not self.base.runs_as(self.subject):
            out.append((f"{self.name(self.base)} (production)", "base", self.base))
        return tuple(out)

    def marked(self, most: int) -> list[Marked]:
        """The first plans and the baseline."""
        plans = (self.result.ranked or self.result.infeasible)[:most]
        out = []
        for i, plan in enumerate(plans, start=1):
            if i == 1 or self.base is None or not self.base.runs_as(plan):
                name = f"{'rank' if plan.feasible else 'nearest'} {i}: {self.name(plan)}"
                out.append(Marked(plan=plan, name=name, role="first" if i == 1 else "plan"))
        if self.base is not None and not (plans and self.base.runs_as(plans[0])):
            out.append(Marked(plan=self.base, name=f"production: {self.name(self.base)}", role="base"))
        return out

    def limit(self, metric: Metric) -> ScatterLimit | None:
        """The study's limit on a metric that is plotted."""
        c = self.result.study.constraints
        value = {
            TTFT.name: c.ttft_s,
            TPOT.name: c.tpot_s,
            "total_tokens_per_s_per_gpu": c.min_total_tokens_per_s_per_gpu,
            "output_tokens_per_s_per_gpu": c.min_output_tokens_per_s_per_gpu,
        }.get(metric.name)
        if value is None:
            return None
        return ScatterLimit(
            value=value * metric.factor, label=f"limit {number(value * metric.factor, 6)} {metric.unit}"
        )


def _facts(study: Study) -> tuple[str, ...]:
    work = study.workload

    load = "load solved for each plan"
    if work.concurrency is not None:
        load = f"{work.concurrency:,} requests in flight"
    elif work.request_rate_per_s is not None:
        load = f"{number(work.request_rate_per_s, 6)} requests/s"
    return (
        study.arch.name,
        " and ".join(f"{c.gpus:,} × {c.gpu.name}" for c in (study.cluster, *study.axes.other_gpus)),
        engine_title(study.engine),
        f"prompts of {lengths(work.isl, ' to ')}, outputs of {lengths(work.osl, ' to ')} {token_words(work.isl)}",
        load,
    )


def _tiles(view: _View) -> list[Tile]:
    plan, base = view.subject, view.base
    if plan is None:
        return []
    other = None if base is None or plan.runs_as(base) else base
    tiles = [
        Tile(
            title=m.title,
            value=number(m.of(plan)),
            unit=m.unit,
            small="what comes" if m.known(plan) else f"likely range: {m.shown_interval(plan)}",
            change="" if other is None else f"{signed(m.of(plan) / m.of(other) - 1.0)} vs production",
        )
        for m in dict.fromkeys([view.throughput, TTFT, TPOT])
    ]
    kept = probability(plan.p_meets)
    memory = METRICS["memory_util_frac"]
    gpu = f"of {view.result.study.cluster.gpu.hbm_bytes / GIB:,.0f} GiB, fullest GPU"
    tiles.append(Tile(title="Keeps every limit", value=kept, unit="likely", small="given how sure the estimate is"))
    tiles.append(Tile(title=memory.title, value=percent(plan.metrics[memory.name]), small=gpu))
    return tiles


def _limits(view: _View) -> Section | None:
    if not view.side:
        return None
    lead = "Every limit that a plan must keep, what the model expects, and the room that is left."
    parts: list[Part] = [Words((lead,)), Plain(limits_table(view.result.study, view.side), "limits")]
    baseline = view.result.baseline
    if baseline is not None and baseline.result is None:
        why = "; ".join(v.message for v in baseline.resolution.violations)
        parts.append(Words(("The plan in production, ", baseline.text, f", cannot be launched: {why}."), ""))
    elif baseline is not None and baseline.result is not None:
        said = [
            "The study writes the plan in production as ",
            baseline.text,
            "; it was read as ",
            baseline.result.plan,
            ".",
        ]
        others = [plan_string(c) for c in baseline.resolution.alternatives[:MOST_READINGS]]
        for i, other in enumerate(others):
            said[-1] += " It could also have meant " if i == 0 else ", "
            said += [other, "." if i == len(others) - 1 else ""]
        parts.append(Words(tuple(said), "note"))
    return Section(key="limits", title="Limits", parts=tuple(parts))


def _tradeoff(view: _View) -> Section | None:
    result = view.result
    if view.subject is None:
        return None
    legend: list[tuple[str | tuple[Shape, ...], str]] = [
        ((plan_mark(10, 10, "first", "", "", size=7.0),), view.subject_words)
    ]
    if len(view.side) > 1:
        legend.append(((plan_mark(10, 10, "base", "", "", size=20 / 3),), "in production"))
    if result.ranked:
        legend += [((circle(10, 10, "mark plan"),), "keeps every limit"), (FRONT_SAMPLE, "Pareto front")]
    if result.infeasible:
        legend.append(((circle(10, 10, "dot-sample"),), "breaks a limit"))
    legend += [(WHISKER_SAMPLE, "likely range, 80 %"), (LIMIT_SAMPLE, "limit, and beyond it")]
    y = view.objective if result.study.objective.direction == "maximize" else PER_GPU
    charts = [
        scatter(
            Scatter(
                x=x,
                y=y,
                marked=view.marked(POINTED_AT),
                feasible=result.ranked,
                infeasible=result.infeasible,
                most_x=view.limit(x),
                least_y=view.limit(y),
            )
        )
        for x in (TPOT, TTFT)
    ]
    parts = (Legend(tuple(legend)), Grid(tuple(charts)))
    return Section(key="tradeoff", title="Throughput against latency", nav="Trade-off", parts=parts)


def _plans(view: _View, refusal: Refusal) -> Section | None:
    result = view.result
    if not result.ranked:
        return None
    shown = ranked_plans(result, TABLE_ROWS)
    engines = tuple(sorted({(p.engine, engine_title(p.engine)) for _, p, _ in shown}))
    less = result.study.objective.direction == "minimize"
    how = ", less is better" if less else " times the probability to keep every limit"
    said = [f"Ranked by {within(view.objective.title)}{how}."]
    alike = sum(result.confidence[p.plan].among_best for p in result.ranked) - 1
    if alike > 0:
        said[0] += (
            f" {count(alike, 'other plan')} cannot be told apart from the first with 80 % confidence (≈); choose among "
            "them by other criteria."
        )
    if len(result.ranked) > len(shown):
        said[0] += f" The first {len(shown):,} of {len(result.ranked):,} are listed; "
        said += ["result.json", " and ", "plans.csv", " (", "--out", ") hold them all."]
    also = [line] if (line := kinds_line(result)) else []
    also += refused_lines(tuple(enumerate(result.ranked[:MOST_TRIED], start=1)), refusal)
    said[-1] += "".join(f" {line}" for line in also)
    rows = [(m, _row_name(m, i, view)) for i, m in enumerate(view.marked(INTERVAL_ROWS), start=1)]
    charts = (
        interval_chart(view.throughput, rows, None),
        *(interval_chart(metric, rows, view.limit(metric)) for metric in (TPOT, TTFT)),
    )
    sure = (
        "Likely ranges (80 %) of the first plans. Errors of plans for one model on one cluster move together: whiskers "
        "that overlap do not mean that two plans cannot be told apart; better than now and ≈ take that into account."
    )
    parts = (
        Words(tuple(said)),
        Sortable(_plan_first(ranked_table(result, shown)), "ranked", engines),
        Heading("How sure the figures are"),
        Words((sure,)),
        Grid(charts, "three"),
    )
    return Section(key="plans", title="Ranked plans", nav="Plans", parts=parts)


def _plan_first(table: Table) -> Table:
    """On a page, where a table scrolls beside its first column, that column is the plan."""
    rows = tuple(replace(row, cells=(row.cells[1], row.cells[0], *row.cells[2:])) for row in table.rows)
    return replace(table, columns=(table.columns[1], table.columns[0], *table.columns[2:]), rows=rows)


def _row_name(mark: Marked, place: int, view: _View) -> str:
    return f"{'production' if mark.role == 'base' else place} · {view.name(mark.plan)}"
