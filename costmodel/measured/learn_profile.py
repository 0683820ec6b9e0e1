"""From a user's runs to a profile of their cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

import numpy as np

from costmodel.calibration.measured_cells import own_key
from costmodel.calibration.profile import LEAST_RUNS, OUTLIER, Posterior, Profile, ProfileCell, posterior
from costmodel.calibration.residual import TARGETS, residual_columns
from costmodel.errors import InputError, Problem
from costmodel.estimate.error_model import Situation
from costmodel.estimate.result import Estimate
from costmodel.measured.implausible import Contradiction, far_from_predicted, milliseconds, without_contradictions
from costmodel.measured.runs import Run, RunBatch, prepare_runs
from costmodel.plan.columns import Floats, LayoutColumns
from costmodel.plan.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetChange:
    """What a profile changes of TPOT or of TTFT: mean |predicted / measured - 1| of the runs given, and widths."""

    before: float
    after: float
    log_sd_before: float
    """Standard deviation of log(measured / predicted), mean over the runs."""
    log_sd_after: float
    level: float
    """What the profile makes of the predictions, as a factor, median."""
    surprises: bool
    """Whether that is more than what was known of such servers left likely."""
    scatter: float
    """Standard deviation of the log of one run, over that of measured runs; 1: the runs scatter as these do."""
    apart: tuple[str, ...]
    """Runs that the others contradict, so that next to nothing was learnt from them: which, and by how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellChange:
    """What a profile changes in one cell."""

    name: str
    models: tuple[str, ...]
    """Names of the models that ran."""
    runs: int
    tpot: TargetChange
    ttft: TargetChange
    left_out: tuple[str, ...] = ()
    """Runs that cannot be what they say, which nothing was learnt from: which, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearntCell:
    """A cell, and by target the runs that the others contradict."""

    cell: ProfileCell
    apart: Mapping[str, tuple[Run, ...]]


def calibrate(runs: Sequence[Run]) -> tuple[Profile, tuple[CellChange, ...]]:
    """Learn a user's cells from their runs, without those that cannot be what they say (`implausible`).

    Raises:
        InputError: a cell has fewer than `LEAST_RUNS` runs with a TPOT, named with what it has and what was left out.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(own_key(run.engine, run.entry.cluster.gpu.name, run.entry.arch), []).append(run)
    learnt, possible, left_out = dict[str, LearntCell](), {}, {}
    for name, members in groups.items():
        possible[name], against = that_can_be(members)
        left_out[name] = tuple(str(found.problem) for found in against)
        measured = [r for r in possible[name] if np.isfinite(r.tpot_s)]
        if len(measured) < LEAST_RUNS:
            message = f"{name} must have at least {LEAST_RUNS} runs with a TPOT, got {len(measured)}"
            if against:
                message += f"; {len(against)} cannot be what they say"
            if one_token := sum(r.mean_osl <= 1.0 for r in members):
                message += f"; {one_token} of one output token have none"
            raise InputError([Problem(path="runs", message=message), *(found.problem for found in against)])
        learnt[name] = learn_cell(measured)
    profile = Profile(cells={name: found.cell for name, found in learnt.items()})
    return profile, tuple(
        _change(name, possible[name], found, profile, left_out[name]) for name, found in learnt.items()
    )


def that_can_be(runs: Sequence[Run]) -> tuple[tuple[Run, ...], tuple[Contradiction, ...]]:
    """The runs that neither physics nor their predictions rule out, and what speaks against the others."""
    possible, against = without_contradictions(runs)
    if not possible:
        return possible, against
    far = [far_from_predicted(r, predicted) for r, predicted in zip(possible, _predicted(possible), strict=True)]
    kept = tuple(r for r, found in zip(possible, far, strict=True) if found is None)
    return kept, (*against, *(found for found in far if found is not None))


def _predicted(runs: Sequence[Run]) -> list[tuple[float, float]]:
    """TTFT and TPOT of each run, seconds."""
    found = prepare_runs(runs).evaluate()
    return list(zip(found.ttft_s.tolist(), found.tpot_s.tolist(), strict=True))


def learn_cell(runs: Sequence[Run], known: Profile | None = None) -> LearntCell:
    """The posterior of the cell that all `runs` belong to; `known` is what goes before the calibration's own of it."""
    first = runs[0].entry
    name = own_key(first.engine.name, first.cluster.gpu.name, first.arch)
    prior = residual_columns(
        [(first.arch, first.cluster.gpu, first.engine, first.engine_version)], None if known is None else known.values()
    )
    before = None if known is None else known.cells.get(name)
    prepared = prepare_runs(runs)
    formulas = replace(prepared, batch=replace(prepared.batch, residual=None)).evaluate()
    phi = run_situation(runs).phi
    layouts: dict[Layout, int] = {}
    deployments = np.array([layouts.setdefault(r.entry.layout, len(layouts)) for r in runs])
    found, apart = dict[str, Posterior](), {}
    for target in TARGETS:
        log_error = np.log(np.array([getattr(r, f"{target}_s") for r in runs]) / getattr(formulas, f"{target}_s"))
        known_ = np.flatnonzero(np.isfinite(log_error))
        found[target] = posterior(getattr(prior, target), phi[:, known_], deployments[known_], log_error[known_])
        apart[target] = tuple(runs[known_[i]] for i in found[target].apart)
    cell = ProfileCell(
        runs=len(runs),
        tpot=found["tpot"].values,
        ttft=found["ttft"].values,
        tpot_noise=found["tpot"].noise + (0.0 if before is None else before.tpot_noise),
        ttft_noise=found["ttft"].noise + (0.0 if before is None else before.ttft_noise),
    )
    return LearntCell(cell=cell, apart=apart)


def run_situation(runs: Sequence[Run]) -> Situation:
    """Where measured runs lie in what the calibration was fitted on."""
    layout = LayoutColumns.of([r.entry.layout for r in runs], [r.entry.engine for r in runs])
    isl, osl, in_flight = (np.array([getattr(r, n) for r in runs]) for n in ("mean_isl", "mean_osl", "concurrency"))
    return Situation.of(layout, in_flight / layout.replicas, isl, osl)


def _change(
    name: str, runs: Sequence[Run], learnt: LearntCell, profile: Profile, left_out: tuple[str, ...]
) -> CellChange:
    before, after = prepare_runs(runs), prepare_runs(runs, profile)
    estimates = before.evaluate(), after.evaluate()
    changes = {}
    for target in TARGETS:
        noises = [_noise(batch, target) for batch in (before, after)]
        changes[target] = _target_change(target, runs, estimates, learnt.apart[target], noises[1] / noises[0])
    return CellChange(
        name=name,
        models=tuple(dict.fromkeys(r.model for r in runs)),
        runs=len(runs),
        tpot=changes["tpot"],
        ttft=changes["ttft"],
        left_out=left_out,
    )


def _noise(prepared: RunBatch, target: str) -> float:
    """Variance of the log of one run."""
    residual = prepared.batch.residual
    return 1.0 if residual is None else float(getattr(residual, target).noise.mean())


def _target_change(
    target: str, runs: Sequence[Run], estimates: tuple[Estimate, Estimate], apart: Sequence[Run], more_noise: float
) -> TargetChange:
    measured = np.array([getattr(r, f"{target}_s") for r in runs])
    before, after = (getattr(e, f"{target}_s") for e in estimates)
    log_sd_before, log_sd_after = (float(getattr(e, f"{target}_log_sd").mean()) for e in estimates)
    known = np.isfinite(measured)

    def error(predicted: Floats) -> float:
        return float(np.abs(predicted[known] / measured[known] - 1.0).mean()) if known.any() else nan

    level = float(np.median(after[known] / before[known])) if known.any() else nan
    ids = {r.id for r in apart}
    return TargetChange(
        before=error(before),
        after=error(after),
        log_sd_before=log_sd_before,
        log_sd_after=log_sd_after,
        level=level,
        surprises=bool(abs(np.log(level)) > OUTLIER * log_sd_before),
        scatter=more_noise**0.5,
        apart=tuple(
            f"{run.id}: {target}_ms {milliseconds(measured[i])}, {measured[i] / after[i]:.2g} times the "
            f"{milliseconds(after[i])} that the other runs say"
            for i, run in enumerate(runs)
            if run.id in ids
        ),
    )
