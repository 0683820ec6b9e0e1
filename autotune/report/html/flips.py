"""Sensitivity in words: up to where the choice holds, and what comes first beyond."""

from __future__ import annotations

from collections.abc import Callable

from autotune.report.html.tables import Cell, Column, Row, Table
from autotune.report.vocabulary.words import LIMITS, percent, probability, times
from autotune.study import Study
from autotune.text.numbers import exact, number
from autotune.tuning.sensitivity import AxisSensitivity, Flip, Sensitivity

TITLES = {
    "hbm_bandwidth": "HBM bandwidth",
    "link_bandwidth": "Link speed",
    "isl": "Prompt length",
    "osl": "Output length",
    "load": "Load",
}


def base_words(axis: AxisSensitivity, study: Study) -> str:
    """What the study says, with its unit."""
    gpu, work = study.cluster.gpu, study.workload
    if axis.name == "hbm_bandwidth":
        return f"{number(gpu.hbm_bytes_per_s / 1e12)} TB/s a GPU"
    if axis.name == "link_bandwidth":
        inside, between = gpu.scaleup_bytes_per_s / 1e9, gpu.scaleout_bytes_per_s / 1e9
        return f"{number(inside)} GB/s inside a domain, {number(between)} GB/s between"
    if axis.name in ("isl", "osl"):
        return f"{exact(axis.base)} tokens{' on average' if getattr(work, axis.name).min != axis.base else ''}"
    if work.request_rate_per_s is not None:
        return f"{exact(axis.base)} requests/s"
    return f"{axis.base:,.0f} in flight{', as solved for the first plan' if axis.load_is_chosen else ''}"


def flips_table(found: Sensitivity, study: Study, name: Callable[[str], str]) -> Table:
    """One row per figure: what the study says, the range in which the choice holds, what comes first beyond it."""
    rows = []
    for axis in found.axes:
        low, high = axis.points[0].factor, axis.points[-1].factor
        below = next((f for f in axis.flips if f.factor < 1.0), None)
        above = next((f for f in axis.flips if f.factor > 1.0), None)
        here = next((f for f in axis.flips if f.factor == 1.0), None)
        if here is not None:
            holds = "not at all"
        elif below is None and above is None:
            holds = f"all of {times(low)} to {times(high)}"
        else:
            holds = f"{times(below.factor if below else low)} to {times(above.factor if above else high)}"
        said = [flip_words(f, name) for f in (below, here, above) if f is not None]
        rows.append(
            Row(
                role="flips" if said else "",
                cells=(
                    Cell(text=TITLES[axis.name], small=base_words(axis, study)),
                    Cell(text=holds),
                    Cell(text=" ".join(said) or "The first plan stays first."),
                ),
            )
        )
    columns = (
        Column(title="Figure of the study", numeric=False),
        Column(title="Choice holds", numeric=False),
        Column(title="Beyond that", numeric=False),
    )
    return Table(caption="", columns=columns, rows=tuple(rows))


def flip_words(flip: Flip, name: Callable[[str], str]) -> str:
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
    rival = "" if end.best == flip.to else f" to {name(end.best)}"
    return (
        f"{where} {name(flip.to)} is first; at {times(end.factor)} keeping the choice loses "
        f"{percent(end.loss_frac, 1)}{rival}, {sure} (P(better) {probability(end.p_best_is_better)})."
    )


def summary(found: Sensitivity) -> str:
    """The answer in one sentence."""
    low = min(a.points[0].factor for a in found.axes)
    high = max(a.points[-1].factor for a in found.axes)
    span = f"{times(low)} to {times(high)} of what the study says"
    overtaken = [a for a in found.axes if any(f.to is not None for f in a.flips)]
    emptied = [TITLES[a.name] for a in found.axes if any(p.best is None for p in a.points)]
    if not overtaken:
        text = f"No other plan comes first anywhere from {span}."
    else:
        text = f"From {span}, another plan comes first with {_and([TITLES[a.name] for a in overtaken])}"
        sure = [TITLES[a.name] for a in overtaken if any(p.told_apart for p in a.points)]
        if not sure:
            text += ", nowhere by more than the model's uncertainty."
        elif len(sure) < len(overtaken):
            text += f"; beyond the model's uncertainty only with {_and(sure)}."
        else:
            text += "."
    return f"{text} With {_and(emptied)} there are points at which no plan keeps every limit." if emptied else text


def _and(names: list[str]) -> str:
    lower = [n if n.isupper() or n.startswith("HBM") else n.lower() for n in names]
    return lower[0] if len(lower) == 1 else f"{', '.join(lower[:-1])} and {lower[-1]}"
