"""From a user's runs to a profile of their cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

import numpy as np

from costmodel.calibration.profile import LEAST_RUNS, OUTLIER, Profile, ProfileCell, posterior
from costmodel.calibration.residual import Residual, own_key, residual_columns
from costmodel.errors import InputError, Problem
from costmodel.estimate.error_model import Situation
from costmodel.measured.implausible import without_contradictions
from costmodel.measured.runs import Run, prepare_runs
from costmodel.plan.columns import Floats, LayoutColumns
from costmodel.plan.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class CellChange:
    """What a profile changes in one cell: mean |predicted / measured - 1| of the runs given, and interval widths."""

    name: str
    models: tuple[str, ...]
    """Names of the models that ran."""
    runs: int
    tpot_before: float
    tpot_after: float
    ttft_before: float
    ttft_after: float
    tpot_log_sd_before: float
    tpot_log_sd_after: float
    tpot_level: float
    """What the profile makes of predicted TPOTs, as a factor, median."""
    surprises: bool
    """Whether that is more than what was known of such servers left likely."""
    left_out: tuple[str, ...] = ()
    """Runs that contradict physics, which nothing was learnt from: which, and why."""


def calibrate(runs: Sequence[Run]) -> tuple[Profile, tuple[CellChange, ...]]:
    """Learn a user's cells from their runs, without those that contradict physics (`implausible.contradiction`).

    Raises:
        InputError: a cell has fewer than `LEAST_RUNS` runs with a TPOT, named with what it has and what was left out.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(own_key(run.engine, run.entry.cluster.gpu.name, run.entry.arch), []).append(run)
    cells, possible, left_out = {}, {}, {}
    for name, members in groups.items():
        possible[name], against = without_contradictions(members)
        left_out[name] = tuple(str(found.problem) for found in against)
        measured = [r for r in possible[name] if np.isfinite(r.tpot_s)]
        if len(measured) < LEAST_RUNS:
            message = f"{name} must have at least {LEAST_RUNS} runs with a TPOT, got {len(measured)}"
            if against:
                message += f"; {len(against)} cannot be what they say"
            raise InputError([Problem(path="runs", message=message), *(found.problem for found in against)])
        cells[name] = learn_cell(measured)
    profile = Profile(cells=cells)
    return profile, tuple(replace(_change(name, possible[name], profile), left_out=left_out[name]) for name in cells)


def learn_cell(runs: Sequence[Run], prior: Residual | None = None) -> ProfileCell:
    """The posterior of the cell that all `runs` belong to; `prior` is what the calibration knows of it."""
    if prior is None:
        first = runs[0].entry
        prior = residual_columns([(first.arch, first.cluster.gpu, first.engine, first.engine_version)])
    prepared = prepare_runs(runs)
    formulas = replace(prepared, batch=replace(prepared.batch, residual=None)).evaluate()
    phi = run_situation(runs).phi
    layouts: dict[Layout, int] = {}
    deployments = np.array([layouts.setdefault(r.entry.layout, len(layouts)) for r in runs])
    tpot = np.log(np.array([r.tpot_s for r in runs]) / formulas.tpot_s)
    ttft = np.log(np.array([r.ttft_s for r in runs]) / formulas.ttft_s)
    known = np.isfinite(ttft)
    return ProfileCell(
        runs=len(runs),
        tpot=posterior(prior.tpot, phi, deployments, tpot),
        ttft=posterior(prior.ttft, phi[:, known], deployments[known], ttft[known]),
    )


def run_situation(runs: Sequence[Run]) -> Situation:
    """Where measured runs lie in what the calibration was fitted on."""
    layout = LayoutColumns.of([r.entry.layout for r in runs], [r.entry.engine for r in runs])
    isl, osl, in_flight = (np.array([getattr(r, n) for r in runs]) for n in ("mean_isl", "mean_osl", "concurrency"))
    return Situation.of(layout, in_flight / layout.replicas, isl, osl)


def _change(name: str, runs: Sequence[Run], profile: Profile) -> CellChange:
    before, after = prepare_runs(runs).evaluate(), prepare_runs(runs, profile).evaluate()
    tpot, ttft = np.array([r.tpot_s for r in runs]), np.array([r.ttft_s for r in runs])

    def error(predicted: Floats, measured: Floats) -> float:
        return float(np.nanmean(np.abs(predicted / measured - 1.0))) if np.isfinite(measured).any() else float("nan")

    level = float(np.median(after.tpot_s / before.tpot_s))
    return CellChange(
        name=name,
        models=tuple(dict.fromkeys(r.model for r in runs)),
        runs=len(runs),
        tpot_before=error(before.tpot_s, tpot),
        tpot_after=error(after.tpot_s, tpot),
        ttft_before=error(before.ttft_s, ttft),
        ttft_after=error(after.ttft_s, ttft),
        tpot_log_sd_before=float(before.tpot_log_sd.mean()),
        tpot_log_sd_after=float(after.tpot_log_sd.mean()),
        tpot_level=level,
        surprises=abs(log(level)) > OUTLIER * float(before.tpot_log_sd.mean()),
    )
