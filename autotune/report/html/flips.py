"""Sensitivity: up to where the choice holds, and what comes first beyond."""

from __future__ import annotations

from collections.abc import Callable

from autotune.metrics import METRICS
from autotune.report.html.page_layout import Grid, Legend, Plain, Section, Words
from autotune.report.svg.shapes import path
from autotune.report.svg.trends import lost, trend
from autotune.report.text_blocks import Cell, Column, Row, Table
from autotune.report.vocabulary.titles import LIMITS
from autotune.report.vocabulary.words import times
from autotune.study import Study
from autotune.text.numbers import number, probability, within
from autotune.tuning.sensitivity import AxisSensitivity, Flip, Sensitivity

TITLES = {
    "hbm_bandwidth": "HBM bandwidth",
    "link_bandwidth": "Link speed",
    "isl": "Prompt length",
    "osl": "Output length",
    "load": "Load",
}
FLIP_SAMPLE = (path("M9 1h1.5v5h-1.5zM9 8h1.5v5h-1.5zM9 15h1.5v4h-1.5z", "flip-sample"),)
LEGEND = Legend(
    (("first", "the study's first plan"), ("best", "best plan at that point"), (FLIP_SAMPLE, "another plan is first"))
)


def sensitivity_section(found: Sensitivity, study: Study, name: Callable[[str], str]) -> Section:
    """The answer in a sentence, a table of every figure, and charts; `name` shortens plan strings."""
    metric = METRICS[study.objective.metric]
    among = ""
    if found.plans_scored < found.plans_valid:
        among = f", among the {found.plans_scored:,} best of {found.plans_valid:,} valid plans"
    weighed = "" if study.objective.direction == "minimize" else ", times the probability to keep every limit"
    lead = f"{_summary(found)} Every point is the changed study answered again, knobs solved anew{among}."
    note = f"Expected {within(metric.title)}{weighed}. A line ends where no plan, or not that plan, keeps every limit."
    return Section(
        key="sensitivity",
        folded=True,
        title="Does the choice flip?",
        nav="Sensitivity",
        parts=(
            Words((lead,)),
            Plain(_table(found, study, name), "flips-table"),
            LEGEND,
            Grid(tuple(trend(axis, metric, name, TITLES[axis.name]) for axis in found.axes), "three"),
            Words((note,), "note"),
        ),
    )


def _study_says(axis: AxisSensitivity, study: Study) -> str:
    """The figure with its unit."""
    gpu, work = study.cluster.gpu, study.workload
    if axis.name == "hbm_bandwidth":
        return f"{number(gpu.hbm_bytes_per_s / 1e12)} TB/s a GPU"
    if axis.name == "link_bandwidth":
        inside, between = gpu.scaleup_bytes_per_s / 1e9, gpu.scaleout_bytes_per_s / 1e9
        return f"{number(inside)} GB/s inside a domain, {number(between)} GB/s between"
    if axis.name in ("isl", "osl"):
        return f"{number(axis.base, 6)} tokens{' on average' if getattr(work, axis.name).min != axis.base else ''}"
    if work.request_rate_per_s is not None:
        return f"{number(axis.base, 6)} requests/s"
    return f"{axis.base:,.0f} in flight{', as solved for the first plan' if axis.load_is_chosen else ''}"


def _table(found: Sensitivity, study: Study, name: Callable[[str], str]) -> Table:
    """One row per figure: what the study says, the range in which the choice holds, what comes first beyond it."""
    rows = []
    for axis in found.axes:
        low, high = axis.points[0].factor, axis.points[-1].factor
        below = next((f for f in axis.flips if f.factor < 1.0), None)
        above = next((f for f in axis.flips if f.factor > 1.0), None)
        here = next((f for f in axis.flips if f.factor == 1.0), None)
        holds = f"{times(below.factor if below else low)} to {times(above.factor if above else high)}"
        if here is not None:
            holds = "not at all"
        elif below is None and above is None:
            holds = f"all of {holds}"
        said = [_flip_words(f, name) for f in (below, here, above) if f is not None]
        cells = (
            Cell(text=TITLES[axis.name], small=_study_says(axis, study)),
            Cell(text=holds),
            Cell(text=" ".join(said) or "The first plan stays first."),
        )
        rows.append(Row(role="flips" if said else "", cells=cells))
    titles = ("Figure of the study", "Choice holds", "Beyond that")
    return Table(columns=tuple(Column(title=title, numeric=False) for title in titles), rows=tuple(rows))


def _flip_words(flip: Flip, name: Callable[[str], str]) -> str:
    """One flip in a sentence or two."""
    where = "As it is," if flip.factor == 1.0 else f"{'Below' if flip.factor < 1.0 else 'Above'} {times(flip.factor)},"
    limits = ", ".join(LIMITS[code] for code in flip.breaks)
    if flip.to is None:
        return f"{where} no plan keeps every limit ({limits})."
    if flip.breaks:
        return f"{where} it breaks a limit ({limits}) and {name(flip.to)} is first."
    end = flip.end
    if end.best is None:
        return f"{where} {name(flip.to)} is first; at {times(end.factor)} no plan keeps every limit."
    if end.loss_frac is None:
        broken = ", ".join(LIMITS[code] for code in end.chosen_breaks)
        return f"{where} {name(flip.to)} is first; at {times(end.factor)} the study's choice breaks a limit ({broken})."
    sure = "surely" if end.told_apart else "not surely"
    rival = "" if end.best == flip.to else f" {'than with' if end.loses_time else 'to'} {name(end.best)}"
    return (
        f"{where} {name(flip.to)} is first; at {times(end.factor)} keeping the choice "
        f"{lost(end)}{rival}, {sure} (better with probability {probability(end.p_best_is_better)})."
    )


def _summary(found: Sensitivity) -> str:
    """The answer in one sentence."""
    low = min(a.points[0].factor for a in found.axes)
    high = max(a.points[-1].factor for a in found.axes)
    span = f"{times(low)} to {times(high)} of what the study says"
    overtaken = [a for a in found.axes if any(f.to is not None for f in a.flips)]
    emptied = [TITLES[a.name] for a in found.axes if any(p.best is None for p in a.points)]
    if not overtaken:
        text = f"No other plan comes first anywhere from {span}."
    else:
        text = f"From {span}, another plan comes first with {_joined([TITLES[a.name] for a in overtaken])}"
        sure = [TITLES[a.name] for a in overtaken if any(p.told_apart for p in a.points)]
        if not sure:
            text += ", nowhere by more than the model's uncertainty."
        elif len(sure) < len(overtaken):
            text += f"; beyond the model's uncertainty only with {_joined(sure)}."
        else:
            text += "."
    return f"{text} With {_joined(emptied)} there are points at which no plan keeps every limit." if emptied else text


def _joined(titles: list[str]) -> str:
    """`HBM bandwidth, link speed and load`."""
    lower = [within(title) for title in titles]
    return lower[0] if len(lower) == 1 else f"{', '.join(lower[:-1])} and {lower[-1]}"
