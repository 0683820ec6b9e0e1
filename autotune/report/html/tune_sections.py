"""Parts of a page: limits, times, memory, what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from autotune.engines import RULES
from autotune.report.html.bars import Series, grouped_bars, stacked_bars
from autotune.report.html.shapes import Chart
from autotune.report.html.tables import Cell, Column, Row, Table
from autotune.report.vocabulary.words import LIMITS, MEMORY, OPERATORS, TTFT_PARTS, percent, probability
from autotune.scoring.gpu_time import gpu_s_per_request
from autotune.scoring.limits import study_limits
from autotune.study import Study
from autotune.text.numbers import exact, number
from autotune.tuning import PlanResult, TuneResult

SHARES = {"of GPU memory", "of time", "probability"}
SHORT = {"ms", "requests/s"}
RULE_TEXTS = {rule.name: rule.text for rule in RULES}
EXPERTS = ("experts", "shared_experts")
NOT_WEIGHTS = ("kv_cache", "activations", "buffers", "reserve")
MEMORY_PARTS = (
    ("experts", "Expert weights"),
    ("weights", "Other weights"),
    ("kv_cache", "KV cache"),
    ("activations", "Activations"),
    ("buffers", "Buffers"),
    ("reserve", "Reserve"),
)
Named = Sequence[tuple[str, str, PlanResult]]
"""Plans side by side: (name, role, plan)."""


def limits_table(study: Study, plans: Named) -> Table:
    """Every limit, and what is left of it or missing, for each plan."""
    rows = []
    for limit in study_limits(study):
        kind = limit.kind
        unit = "" if kind.unit in {*SHARES, *SHORT} else f" {kind.unit}"
        asked = f"at {'least' if kind.least else 'most'} {_figure(limit.limit, kind.unit, asked=True)}{unit}"
        cells = [Cell(text=LIMITS[limit.code], small=asked)]
        for _, _, plan in plans:
            over = plan.margins[limit.code]
            value = limit.value(plan.metrics, plan.p_meets)
            room = abs(over) / limit.size
            passed = over <= 0.0
            word = ("room" if passed else "over") if not kind.least else ("above" if passed else "short")
            share = "" if not isfinite(room) or room > 99.0 else f"{room:,.0%} {word}"
            shown = f"{'✓' if passed else '✗'} {_figure(value, kind.unit)}"
            cells.append(Cell(text=shown, small=share, tone=_tone(passed)))
        rows.append(Row(cells=tuple(cells)))
    columns = [Column(title="Limit", numeric=False)]
    columns += [Column(title=name) for name, _, _ in plans]
    return Table(caption="", columns=tuple(columns), rows=tuple(rows))


def _tone(passed: bool) -> str:
    return "good" if passed else "bad"


def _figure(value: float, unit: str, *, asked: bool = False) -> str:
    if unit == "probability" and not asked:
        return probability(value)
    if unit in SHARES:
        return percent(value, 1 if 0.99 < value < 1.0 else 0)
    return f"{exact(value) if asked else number(value)}{f' {unit}' if unit in SHORT else ''}"


def step_charts(plans: Named) -> tuple[Chart, ...]:
    """Milliseconds of one prefill pass and of one decode step by operator, and what TTFT is made of."""
    charts = []
    for phase, title in (("prefill", "One prefill pass"), ("decode", "One decode step")):
        series = [
            Series(name=name, role=role, values=_scaled(plan.breakdown[f"{phase}_s"], 1e3))
            for name, role, plan in plans
        ]
        charts.append(grouped_bars(title, unit="ms", words=OPERATORS, series=series))
    return tuple(charts)


def request_charts(plans: Named) -> tuple[Chart, ...]:
    """GPU-milliseconds that one request takes of each plan, by operator: what compares where batches differ."""
    if any(not plan.metrics["requests_per_s"] > 0.0 for _, _, plan in plans):
        return ()
    taken = [(name, role, gpu_s_per_request(plan)) for name, role, plan in plans]
    charts = []
    for phase, title in (("prefill", "Prefill of one request"), ("decode", "Decode of one request")):
        series = [
            Series(name=name, role=role, values={g: s * 1e3 for (p, g), s in each.items() if p == phase})
            for name, role, each in taken
        ]
        charts.append(grouped_bars(title, unit="GPU-ms", words=OPERATORS, series=series))
    return tuple(charts)


def work_rows(plans: Named) -> tuple[tuple[str, ...], ...]:
    """What the steps of `step_charts` carry: batches differ between plans, so their steps do not compare one to one."""
    return tuple(
        (
            name,
            f"{plan.knobs.max_num_batched_tokens:,}",
            f"{plan.knobs.max_num_seqs:,}",
            f"{sum(plan.breakdown['prefill_s'].values()) * 1e3:,.1f}",
            f"{sum(plan.breakdown['decode_s'].values()) * 1e3:,.1f}",
        )
        for name, _, plan in plans
    )


def ttft_chart(plans: Named) -> Chart:
    """What the mean time to the first token is made of."""
    series = [
        Series(name=name, role=role, values=_scaled(plan.breakdown["ttft_parts_s"], 1e3)) for name, role, plan in plans
    ]
    return stacked_bars("Mean time to first token", unit="ms", parts=tuple(TTFT_PARTS.items()), series=series)


def memory_chart(study: Study, plans: Named) -> Chart:
    """GiB on the fullest GPU by kind, against the limit."""
    series = []
    for name, role, plan in plans:
        found: dict[str, float] = {}
        for kind, held in plan.breakdown["memory_bytes"].items():
            part = "experts" if kind in EXPERTS else kind if kind in NOT_WEIGHTS else "weights"
            found[part] = found.get(part, 0.0) + held / 2**30
        series.append(Series(name=name, role=role, values=found))
    capacity = study.cluster.gpu.hbm_bytes / 2**30
    limit = next(x for x in study_limits(study) if x.code == "memory_util_frac").limit
    return stacked_bars(
        "Memory of the fullest GPU",
        unit="GiB",
        parts=MEMORY_PARTS,
        series=series,
        capacity=capacity,
        limit=(capacity * limit, f"limit {percent(limit, 1 if 0.99 < limit < 1.0 else 0)}"),
    )


def memory_table(plans: Named) -> Table:
    """Every kind of memory to two decimals, GiB."""
    kinds = [k for k in MEMORY if any(p.breakdown["memory_bytes"].get(k, 0.0) > 0.0 for _, _, p in plans)]
    rows = [
        Row(
            cells=(
                Cell(text=MEMORY[kind]),
                *(Cell(text=f"{p.breakdown['memory_bytes'].get(kind, 0.0) / 2**30:,.2f}") for _, _, p in plans),
            )
        )
        for kind in kinds
    ]
    columns = (Column(title="Kind", numeric=False), *(Column(title=name, unit="GiB") for name, _, _ in plans))
    return Table(caption="Memory by kind, fullest GPU", columns=columns, rows=tuple(rows))


def rejected_table(result: TuneResult) -> Table:
    """Layouts that an engine's rule forbids."""
    found = sorted(result.space.rejected.items(), key=lambda item: -item[1])
    return Table(
        caption="Rejected before scoring, by rule",
        columns=(Column(title="Layouts"), Column(title="Rule", numeric=False)),
        rows=tuple(Row(cells=(Cell(text=f"{n:,}"), Cell(text=RULE_TEXTS[r], small=r))) for r, n in found),
    )


def binding_table(result: TuneResult) -> Table:
    """Scored plans that break a limit, by the one that binds."""
    found = sorted(result.infeasible_counts.items(), key=lambda item: -item[1])
    return Table(
        caption="Scored and infeasible, by the limit broken most",
        columns=(Column(title="Plans"), Column(title="Limit", numeric=False)),
        rows=tuple(Row(cells=(Cell(text=f"{n:,}"), Cell(text=LIMITS[code], small=code))) for code, n in found),
    )


def _scaled(values: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in values.items()}
