"""Plans in rows: those that keep every limit, and the nearest of those that break one.

What decides stands first, so that a narrow terminal keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

from autotune.metrics import METRICS, Metric
from autotune.report.document import baseline_rank, versus
from autotune.report.kinds import BestOfKinds
from autotune.report.reach import short_reach
from autotune.report.text_blocks import Cell, Column, Row, Table
from autotune.report.vocabulary.metrics import COST, OUT_PER_GPU, PER_GPU, TPOT, TTFT
from autotune.report.vocabulary.plan_names import has_local_prefill, local_prefill_words
from autotune.report.vocabulary.titles import LIMITS, off_by
from autotune.report.vocabulary.words import asked, measure, percent, signed
from autotune.scoring.limits import OF_SHARES, SERVED_WITHIN
from autotune.scoring.objective import plan_expected, time_breaks_ties, time_decides
from autotune.scoring.overload import ENDLESS, overload_of, told
from autotune.scoring.plan_name import plan_name
from autotune.scoring.plan_result import relative_excess
from autotune.simulation.percentile_limits import PercentileLimit, percentile_limits
from autotune.study import Study
from autotune.text.numbers import number, probability
from autotune.tuning import PlanResult, TuneResult

Ranked = tuple[int | None, PlanResult, str]
"""Rank (None: the baseline, where it breaks a limit or comes behind all that are ranked), plan, and its role: `first`,
`base` or nothing."""
Made = tuple[Column, Callable[[PlanResult], Cell]]
"""A column, and how a plan's cell in it is made."""
RANGE_DIGITS = 2


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
        role = "first" if rank == 1 else "base" if base is not None and base.runs_as(plan) else ""
        out.append((rank, plan, role))
    if result.baseline is not None and base is not None and not any(base.runs_as(p) for _, p, _ in out):
        out.append((baseline_rank(result.baseline, result), base, "base"))
    return out


def ranked_table(result: TuneResult, shown: list[Ranked], *, overflow: str = "named") -> Table:
    """Rank, name, what the rows are ranked by, how sure the limits are, latencies with likely ranges, and the rest.

    `shown`: from `ranked_plans`; `overflow`: as in `Table.overflow`.
    """
    study = result.study
    base = None if result.baseline is None else result.baseline.result
    several = len({p.engine for _, p, _ in shown}) > 1
    made: list[Made] = [
        (
            Column(title="Plan", heading="plan", numeric=False, wraps=True),
            lambda p: Cell(text=plan_name(p, dense=not study.arch.is_moe, several_engines=several), by=p.plan),
        ),
        *_key(study),
        *([] if base is None else [_versus(study, base)]),
        _latency(study, TTFT, study.constraints.ttft_s),
        _latency(study, TPOT, study.constraints.tpot_s),
        *(_simulated(x) for x in percentile_limits(study) if x.statistic != "mean" and x.code != SERVED_WITHIN),
        *([] if base is None else [_better(result, base)]),
        *_further(study, [plan for _, plan, _ in shown]),
    ]
    rows = []
    for rank, plan, role in shown:
        known = result.confidence.get(plan.plan)
        alike = known is not None and known.among_best and rank != 1
        place = f"{'≈' if alike else ''}{rank:,}" if rank is not None else _no_rank(result, plan)
        cells = [Cell(text=place, by=rank, small=_role_words(rank, plan, base)), *(cell(plan) for _, cell in made)]
        rows.append(Row(cells=tuple(cells), plan=plan.plan, role=role, engine=plan.engine, alike=alike or rank == 1))
    columns = (Column(title="Rank", heading="#"), *(column for column, _ in made))
    caption = "Plans that keep every limit, best first"
    return Table(caption=caption, columns=columns, rows=tuple(rows), overflow=overflow)


def _no_rank(result: TuneResult, plan: PlanResult) -> str:
    return f"> {len(result.ranked):,}" if plan.feasible else "✗"


def key_words(study: Study) -> str:
    """What rows are sorted by, as a sentence about the columns."""
    metric = METRICS[study.objective.metric]
    if metric.name == "gpus":
        return f"by GPUs, then {PER_GPU.heading} x keeps limits"
    if time_decides(study):
        return "by keeps limits, then request s"
    if metric.name == COST.name:
        return f"by expected ({metric.heading} / keeps limits)"
    if metric.better == "minimize":
        return f"by {metric.heading}"
    then = ", then request s" if time_breaks_ties(study) else ""
    return f"by expected ({metric.heading} x keeps limits){then}"


def _role_words(rank: int | None, plan: PlanResult, base: PlanResult | None) -> str:
    if rank is None and not plan.feasible:
        return "breaks a limit"
    return "now" if base is not None and plan.runs_as(base) else ""


def _key(study: Study) -> list[Made]:
    """What the rows are sorted by."""
    metric = METRICS[study.objective.metric]
    hint = "probability that every limit is kept"
    kept: Made = (
        Column(title="Keeps limits", heading="keeps\nlimits", first="descending", hint=hint),
        lambda p: Cell(text=probability(p.p_meets), by=_by(p.p_meets)),
    )
    if metric.name == "gpus":
        return [_figure(metric), _figure(PER_GPU), kept]
    if time_decides(study):
        return [kept, _REQUEST, _figure(metric)]
    if metric.better == "minimize" and metric.name != COST.name:
        shown = metric.name in (TTFT.name, TPOT.name)
        return [*([] if shown else [_figure(metric)]), kept]
    sign, first = ("/", "ascending") if metric.name == COST.name else ("x", "descending")
    expected: Made = (
        Column(
            title="Expected",
            unit=metric.unit,
            heading="expected",
            first=first,
            hint=f"{metric.title} {sign} keeps limits",
        ),
        lambda p: _number_cell(plan_expected(study, p) * metric.factor),
    )
    return [expected, _figure(metric), kept, *([_REQUEST] if time_breaks_ties(study) else [])]


def _figure(metric: Metric, *, heading: str = "", minor: bool = False) -> Made:
    """A metric; one that is simulated with its likely range below it on a page."""
    heading = heading or metric.heading.replace("/GPU", "\n/GPU").replace("USD/", "USD\n/")
    first = "ascending" if metric.better == "minimize" else "descending"
    column = Column(title=metric.title, unit=metric.unit, heading=heading, first=first, minor=minor)

    def cell(plan: PlanResult) -> Cell:
        if metric.simulated:
            return _simulated_cell(plan, metric.name)
        value = told(plan, metric.name) if metric.name in plan.metrics else None
        return Cell(text="") if value is None else Cell(text=metric.text(value), by=_by(value * metric.factor))

    return column, cell


_REQUEST = _figure(METRICS["e2e_s"], heading="request\ns")
"""The time of a request, where it decides between plans that serve alike."""


def _versus(study: Study, base: PlanResult) -> Made:
    """By how much plans differ from the one in production: in what they are ranked by, at a given rate in time."""
    metric = METRICS["e2e_s"] if time_decides(study) else METRICS[study.objective.metric]
    short = {"e2e_s": "request", TTFT.name: "TTFT", TPOT.name: "TPOT"}.get(metric.name, "")
    hint = f"{metric.title}, against the plan in production"

    def cell(plan: PlanResult) -> Cell:
        if plan.runs_as(base):
            return Cell(text="now", by=0.0)
        if metric.name == "e2e_s":
            before, now = told(base, "e2e_s"), told(plan, "e2e_s")
            change: float | None = now / before - 1.0 if isfinite(before) and isfinite(now) else None
        else:
            change = versus(plan, base).get(f"{metric.name}_frac")
        return Cell(text=signed(change), by=change)

    heading = f"{short}\nvs now" if short else "vs\nnow"
    return Column(title="vs now", heading=heading, first="descending", hint=hint), cell


def _better(result: TuneResult, base: PlanResult) -> Made:
    def cell(plan: PlanResult) -> Cell:
        known = result.confidence.get(plan.plan)
        better = None if known is None or plan.runs_as(base) else known.p_better_than_baseline
        return Cell(text=probability(better), by=better)

    said = "probability to be better than the plan in production"
    return Column(title="Better than now", heading="better\nthan now", first="descending", hint=said), cell


def _latency(study: Study, metric: Metric, limit_s: float | None) -> Made:
    """A mean with its likely range: where it lies with 80 % probability; simulated where the limit on it is."""
    bound = "likely range" if limit_s is None else f"at most {number(limit_s * metric.factor, 6)}"
    title, hint = ("TTFT", "mean at the longest prompt") if metric is TTFT else ("TPOT", "mean")
    hint = "mean over simulated requests" if study.means_of_requests else hint
    column = Column(
        title=title,
        unit=metric.unit,
        heading=f"{title} {metric.unit}\n{bound}",
        numeric=False,
        ranged=True,
        hint=f"{hint}; below it the likely range",
    )

    def cell(plan: PlanResult) -> Cell:
        value, interval = _mean_met(metric, plan)
        ends = "–".join(number(end, RANGE_DIGITS) for end in interval) if isfinite(value) else ""
        return Cell(text=metric.text(value), by=_by(value * metric.factor), small=ends)

    return column, cell


def _mean_met(metric: Metric, plan: PlanResult) -> tuple[float, tuple[float, float]]:
    """A mean latency, SI, and its likely range in the metric's unit: simulated where the limit on it is."""
    code = f"{'ttft' if metric is TTFT else 'tpot'}_mean_ms"
    found = plan.breakdown.get("simulated", {}).get(code)
    if found is None:
        return told(plan, metric.name), metric.interval(plan)
    value, low, high = (found[end] / 1e3 for end in ("value", "likely_low", "likely_high"))
    return value, (low * metric.factor, high * metric.factor)


def _simulated(limit: PercentileLimit) -> Made:
    """A figure over simulated requests."""
    heading = f"{limit.title} {limit.unit if limit.latency else ''}".strip()
    column = Column(title=limit.title, unit=limit.unit, heading=heading, hint="over simulated requests")
    return column, lambda p: _simulated_cell(p, limit.code)


def _simulated_cell(plan: PlanResult, code: str) -> Cell:
    found = plan.breakdown.get("simulated", {}).get(code)
    if found is None:
        return Cell(text="")
    written = percent if code in OF_SHARES else number
    ends = f"{written(found['likely_low'])}–{written(found['likely_high'])}"
    return Cell(text=written(found["value"]), by=_by(found["value"]), small=ends)


def _further(study: Study, plans: list[PlanResult]) -> list[Made]:
    """What decides little, and is left out on a phone and first on a narrow terminal."""
    ranked_by = METRICS[study.objective.metric].name
    rates = [m for m in (PER_GPU, OUT_PER_GPU) if m.name != ranked_by and not (m is PER_GPU and ranked_by == "gpus")]
    priced = ranked_by != COST.name and any(COST.name in plan.metrics for plan in plans)
    return [
        (
            Column(
                title="Measured", heading="measured", numeric=False, hint="whether the calibration has seen such a plan"
            ),
            lambda p: Cell(text=short_reach(study, p), by=short_reach(study, p)),
        ),
        *_dtypes(study),
        *([_LOCAL_PREFILL] if has_local_prefill(plans) else []),
        (
            Column(title="Per user", unit="tok/s", heading="tok/s\nper user", first="descending", minor=True),
            lambda p: _number_cell(1.0 / p.metrics["tpot_s"]) if p.metrics["tpot_s"] else Cell(text="–"),
        ),
        (
            Column(title="In flight", unit="requests", heading="in\nflight", first="descending", minor=True),
            lambda p: Cell(text=f"{p.knobs.concurrency:,}", by=float(p.knobs.concurrency)),
        ),
        *(_figure(m, minor=True) for m in (*rates, *([COST] if priced else []))),
        (
            Column(title="Chunk", unit="tokens", heading="chunk", hint="token budget of a step", minor=True),
            lambda p: Cell(text=f"{p.knobs.max_num_batched_tokens:,}", by=float(p.knobs.max_num_batched_tokens)),
        ),
        (
            Column(title="Memory", unit="of GPU", heading="memory\nneeded", hint="fullest GPU", minor=True),
            lambda p: Cell(text=percent(p.metrics["memory_util_frac"]), by=p.metrics["memory_util_frac"]),
        ),
    ]


def _dtypes(study: Study) -> list[Made]:
    """What the weights and the KV cache are stored in, where a study searches over several."""
    search, made = study.search, list[Made]()
    if len(search.weight_dtype) > 1:
        column = Column(title="Weights", heading="weights", numeric=False, hint="what they are stored in")
        made.append((column, lambda p: _dtype_cell(p.knobs.weight_dtype)))
    if len(search.kv_dtype) > 1:
        column = Column(title="KV cache", heading="KV\ncache", numeric=False, hint="what it is stored in")
        made.append((column, lambda p: _dtype_cell(p.knobs.kv_dtype)))
    return made


def _dtype_cell(dtype: str | None) -> Cell:
    return Cell(text=dtype or "checkpoint's", by=dtype or "")


def _local_prefill(plan: PlanResult) -> Cell:
    if plan.pools is None:
        return Cell(text="")
    return Cell(text=local_prefill_words(plan), by=float(plan.pools.max_local_prefill_tokens))


_LOCAL_PREFILL: Made = (
    Column(
        title="Local prefill",
        unit="tokens",
        heading="local\nprefill",
        hint="prompts with at most so many tokens to compute are prefilled by the decode pool",
    ),
    _local_prefill,
)


def _number_cell(value: float) -> Cell:
    return Cell(text=number(value), by=_by(value))


def _by(value: float) -> float | None:
    return value if isfinite(value) else None


def nearest_table(result: TuneResult, most: int | None, *, overflow: str = "named") -> Table:
    """What each breaks, and by how much: the first `most` (None: all), and the plan in production if it is another.

    `overflow`: as in `Table.overflow`.
    """
    base = None if result.baseline is None else result.baseline.result
    plans = list(result.infeasible[:most])
    if base is not None and not base.feasible and not any(base.runs_as(plan) for plan in plans):
        plans.append(base)
    several = len({p.engine for p in plans}) > 1
    rows = []
    for plan in plans:
        worst, *others = plan.violations
        name = plan_name(plan, dense=not result.study.arch.is_moe, several_engines=several)
        runs = base is not None and base.runs_as(plan)
        cells = (
            Cell(text=f"{name} (now)" if runs else name, by=plan.plan),
            Cell(text=LIMITS[worst.code], by=worst.code),
            Cell(text=measure(worst.value, worst.unit), by=_by(worst.value), small=worst.unit),
            Cell(text=asked(worst.limit, worst.unit), by=worst.limit),
            Cell(text=off_by(worst), by=_by(relative_excess(worst))),
            *(_mean(metric, plan) for metric in (TTFT, TPOT)),
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


def _mean(metric: Metric, plan: PlanResult) -> Cell:
    value, interval = _mean_met(metric, plan)
    small = "–".join(number(end) for end in interval) if isfinite(value) else ""
    return Cell(text=metric.text(value), by=_by(value * metric.factor), small=small)


def endless_note(plans: Sequence[PlanResult]) -> tuple[str, ...]:
    """What `∞` in a table of plans means, where it stands there."""
    if all(overload_of(plan.breakdown) is None for plan in plans):
        return ()
    return (f"∞: {ENDLESS}, as more requests come than the plan serves.",)
