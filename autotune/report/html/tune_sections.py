"""Parts of the page of a study's answer: limits, times, memory, what was left out, how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from autotune.engines import rule_texts
from autotune.report.html.page_layout import Grid, Legend, Part, Plain, Section, Sortable, Words
from autotune.report.ranked_table import endless_note, nearest_table
from autotune.report.svg.bars import Series, grouped_bars, stacked_bars
from autotune.report.svg.shapes import Chart
from autotune.report.text_blocks import Cell, Column, Row, Table, text_table
from autotune.report.vocabulary.titles import (
    LIMITS,
    MEMORY,
    MEMORY_PARTS,
    TTFT_PARTS,
    memory_parts,
)
from autotune.report.vocabulary.words import GIB, asked, gib, measure, united
from autotune.scoring.gpu_time import gpu_s_per_request, operator_title
from autotune.scoring.limits import study_limits
from autotune.scoring.overload import told_figures
from autotune.simulation.percentile_limits import percentile_limits
from autotune.study import Study
from autotune.tuning import PlanResult, TuneResult

Named = Sequence[tuple[str, str, PlanResult]]
"""Plans side by side: (name, role, plan)."""
NEAREST_ROWS = 40


def limits_table(study: Study, plans: Named) -> Table:
    """Every limit, and what is left of it or missing, for each plan."""
    each = [plan for _, _, plan in plans]
    rows = []
    for limit in study_limits(study):
        if not any(limit.code in plan.margins for plan in each):
            continue
        bound = _Bound(
            code=limit.code, limit=limit.limit, size=limit.size, unit=limit.kind.unit, least=limit.kind.least
        )
        values = [limit.value(told_figures(plan), plan.p_meets) for plan in each]
        rows.append(_row(LIMITS[limit.code], bound, values, each))
    for of_requests in percentile_limits(study):
        code, asked_for, unit = of_requests.code, of_requests.limit, of_requests.unit
        bound = _Bound(code=code, limit=asked_for, size=asked_for, unit=unit, least=not of_requests.latency)
        found = [plan.breakdown.get("simulated", {}).get(code, {}).get("value") for plan in each]
        rows.append(_row(of_requests.title, bound, found, each))
    columns = [Column(title="Limit", numeric=False), *(Column(title=name) for name, _, _ in plans)]
    return Table(columns=tuple(columns), rows=tuple(rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """One limit in its unit."""

    code: str
    limit: float
    size: float
    """What room is a share of."""
    unit: str
    least: bool


def _row(title: str, bound: _Bound, values: Sequence[float | None], plans: Sequence[PlanResult]) -> Row:
    said = f"at {'least' if bound.least else 'most'} {united(asked(bound.limit, bound.unit), bound.unit)}"
    cells = [Cell(text=title, small=said), *map(_kept, [bound] * len(plans), values, plans)]
    return Row(cells=tuple(cells))


def _kept(bound: _Bound, value: float | None, plan: PlanResult) -> Cell:
    """Whether a plan keeps a limit; empty where it was not held against it."""
    if value is None or bound.code not in plan.margins:
        return Cell(text="")
    over, unit = plan.margins[bound.code], bound.unit
    room = abs(over) / bound.size
    passed = over <= 0.0
    word = ("room" if passed else "over") if not bound.least else ("above" if passed else "short")
    share = "" if not isfinite(room) or room > 99.0 else f"{room:,.0%} {word}"
    tone = "good" if passed else "bad"
    shown = measure(value, unit)
    shown += "" if " " in unit else united("", unit)
    return Cell(text=f"{'✓' if passed else '✗'} {shown}", small=share, tone=tone)


def time_section(plans: Named, legend: Legend) -> Section:
    """GPU time of a request, and time of a pass, by operator; what TTFT is made of."""
    lead = "GPU time that one request takes, summed over the GPUs that work for it: less of it is more throughput."
    charts = [_ttft(plans)]
    if all(plan.metrics["requests_per_s"] > 0.0 for _, _, plan in plans):
        taken = [gpu_s_per_request(plan) for _, _, plan in plans]
        charts.insert(0, _operators("One request", "GPU-ms", plans, taken))
    parts: list[Part] = [
        legend,
        Words((lead,)),
        Grid(tuple(charts)),
        Plain(_passes(plans)),
    ]
    return Section(key="time", title="Where the time goes", nav="Time", parts=tuple(parts))


MOST_OPERATORS = 5
REST = "others"


def _operators(title: str, unit: str, plans: Named, seconds: Sequence[Mapping[tuple[str, str], float]]) -> Chart:
    """The operators that take most of either plan's time, and all others together."""
    names = {key: max(taken.get(key, 0.0) for taken in seconds) for taken in seconds for key in taken}
    most = sorted(names, key=lambda key: -names[key])[:MOST_OPERATORS]
    words = {f"{phase} {group}": operator_title(group, phase) for phase, group in most} | {REST: "All others"}
    series = []
    for (name, role, _), taken in zip(plans, seconds, strict=True):
        values = {f"{phase} {group}": taken.get((phase, group), 0.0) * 1e3 for phase, group in most}
        others = sum(s for key, s in taken.items() if key not in most)
        series.append(Series(name=name, role=role, values={**values, REST: max(others, 0.0) * 1e3}))
    return grouped_bars(title, unit=unit, words=words, series=series)


def _ttft(plans: Named) -> Chart:
    series = [
        Series(name=name, role=role, values={p: s * 1e3 for p, s in plan.breakdown["ttft_parts_s"].items()})
        for name, role, plan in plans
    ]
    return stacked_bars("Mean time to first token", unit="ms", parts=TTFT_PARTS, series=series)


def _passes(plans: Named) -> Table:
    """What the steps carry: batches differ between plans, so their steps do not compare one to one."""
    columns = (
        Column(title="Plan", numeric=False),
        Column(title="Token budget", unit="per rank"),
        Column(title="Sequences", unit="per rank"),
        Column(title="Prefill pass", unit="ms"),
        Column(title="Decode step", unit="ms"),
    )
    rows = []
    for name, _, plan in plans:
        passes = [f"{sum(plan.breakdown[f'{phase}_s'].values()) * 1e3:,.1f}" for phase in ("prefill", "decode")]
        knobs = (f"{plan.knobs.max_num_batched_tokens:,}", f"{plan.knobs.max_num_seqs:,}")
        rows.append(Row(cells=tuple(Cell(text=t) for t in (name, *knobs, *passes))))
    caption = (
        "What these passes carry: batches differ between plans, so a longer step may serve more requests. Times are of "
        "their operators alone, to which the host adds its own"
    )
    return Table(caption=caption, columns=columns, rows=tuple(rows))


def memory_section(study: Study, plans: Named) -> Section:
    """GiB on the fullest GPU by kind, against the limit."""
    held = [plan.breakdown["memory_bytes"] for _, _, plan in plans]
    series = [
        Series(name=name, role=role, values={k: v / GIB for k, v in memory_parts(sizes).items()})
        for (name, role, _), sizes in zip(plans, held, strict=True)
    ]
    capacity = study.cluster.gpu.hbm_bytes / GIB
    limit = next(x for x in study_limits(study) if x.code == "memory_util_frac")
    chart = stacked_bars(
        "Memory of the fullest GPU",
        unit="GiB",
        parts=MEMORY_PARTS,
        series=series,
        capacity=capacity,
        limit=(capacity * limit.limit, f"limit {asked(limit.limit, limit.kind.unit)}"),
    )
    kinds = [k for k in MEMORY if any(sizes.get(k, 0.0) > 0.0 for sizes in held)]
    rows = [(MEMORY[kind], *(gib(sizes.get(kind, 0.0)) for sizes in held)) for kind in kinds]
    table = text_table(("GiB on the fullest GPU", *(name for name, _, _ in plans)), rows)
    return Section(key="memory", title="Memory", parts=(Grid((chart, table)),))


def left_out_section(result: TuneResult) -> Section:
    """Layouts that a rule forbids, plans that break a limit, and the nearest of those."""
    space, nearest = result.space, result.infeasible[:NEAREST_ROWS]
    lead = f"{space.enumerated:,} layouts were enumerated and {len(space.candidates):,} are valid."
    if result.not_simulated_count:
        lead += (
            f" {result.not_simulated_count:,} were not simulated: they could at best come behind those that are ranked."
        )
    found = (
        _counted("Rejected before scoring, by rule", ("Layouts", "Rule"), space.rejected, rule_texts()),
        _counted(
            "Scored and infeasible, by the limit broken most", ("Plans", "Limit"), result.infeasible_counts, LIMITS
        ),
    )
    parts: list[Part] = [Words((lead,)), Grid(tuple(table for table in found if table.rows))]
    if nearest:
        folded = "The nearest plans that break a limit" if result.ranked else ""
        parts.append(Sortable(nearest_table(result, NEAREST_ROWS), "nearest", folded=folded))
        parts += [Words(note, "note")] if (note := endless_note(nearest)) else []
    if len(nearest) < len(result.infeasible):
        parts.append(Words((f"The nearest {len(nearest)} of {len(result.infeasible):,} are listed.",), "note"))
    return Section(
        key="left-out",
        title="What was left out, and why",
        nav="Left out",
        folded=bool(result.ranked),
        parts=tuple(parts),
    )


def _counted(caption: str, header: tuple[str, str], counts: Mapping[str, int], titles: Mapping[str, str]) -> Table:
    """How many by code, most first."""
    rows = [
        Row(cells=(Cell(text=f"{n:,}"), Cell(text=titles[code], small=code)))
        for code, n in sorted(counts.items(), key=lambda item: -item[1])
    ]
    columns = (Column(title=header[0]), Column(title=header[1], numeric=False))
    return Table(caption=caption, columns=columns, rows=tuple(rows))
