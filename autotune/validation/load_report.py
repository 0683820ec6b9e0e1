"""What `autotune validate` says of a file of runs with percentiles: predictions by simulation, and their errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autotune.engines import policies_by_name
from autotune.text.escaping import csv_text
from autotune.validation.report import contradictions_told, covered_by
from costmodel.calibration.profile import Profile
from costmodel.errors import InputError, Problem
from costmodel.measured.implausible import contradiction_of_load, overloaded
from costmodel.measured.load_runs import REPORTED, LoadRun, predict_run
from costmodel.simulation.forecast import Forecast, Likely


def predict_load_runs(
    runs: Sequence[LoadRun], profile: Profile | None = None, *, progress: Callable[[int, int], None] | None = None
) -> list[Forecast]:
    """Simulate every run by its engine's scheduler; `progress` is called with (runs done, runs in all).

    Raises:
        InputError: runs of which no request fits beside the weights, all of them.
    """
    policies, found = policies_by_name(), []
    problems: list[Problem] = []
    for number, run in enumerate(runs):
        if progress is not None:
            progress(number, len(runs))
        try:
            found.append(predict_run(run, policies[run.entry.engine.name], profile))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return found


def load_predictions_csv(runs: Sequence[LoadRun], forecasts: Sequence[Forecast]) -> str:
    """One row per run in the file's order: every latency and statistic, then the ends of their 80 % likely ranges."""
    names = [f"pred_{name}_{statistic}" for name, statistic in REPORTED]
    rows: list[Sequence[str]] = [
        ("id", *(f"{n}_ms" for n in names), *(f"{n}_{end}_ms" for n in names for end in ("low", "high")))
    ]
    for run, forecast in zip(runs, forecasts, strict=True):
        figures = [forecast.latency(*key) for key in REPORTED]
        ends = [end for figure in figures for end in (figure.low, figure.high)]
        rows.append([run.id, *(f"{1e3 * x:.6g}" for x in (*(figure.value for figure in figures), *ends))])
    return csv_text(rows)


def load_runs_document(
    runs: Sequence[LoadRun],
    forecasts: Sequence[Forecast],
    profile: Profile | None = None,
    of_file: Sequence[str] = (),
) -> dict[str, Any]:
    """Errors by model and by percentile, and how often the likely range holds what was measured.

    Overloaded servers stand apart: how long their queues got is a test of when they saturate, not of latency.
    `of_file`: what else is to be said, of the file that the runs are from.
    """
    steady = [i for i, run in enumerate(runs) if not overloaded(run)]
    models = sorted({runs[i].model for i in steady})
    found = [{key: forecast.latency(*key) for key in REPORTED} for forecast in forecasts]

    def part(chosen: Sequence[int]) -> dict[str, Any]:
        return {"runs": len(chosen)} | {
            f"{name}_{statistic}": _errors(
                [(found[i][name, statistic], runs[i].measured.get((name, statistic))) for i in chosen]
            )
            for name, statistic in REPORTED
        }

    return {
        "load_runs": len(runs),
        "assumptions": [*of_file, *covered_by(profile, [run.entry for run in runs]), *_assumptions(runs)],
        "overall": part(steady),
        "by_model": {name: part([i for i in steady if runs[i].model == name]) for name in models},
        "overloaded": part([i for i, run in enumerate(runs) if overloaded(run)]),
        "overloaded_ids": [run.id for run in runs if overloaded(run)],
    }


def _errors(pairs: Sequence[tuple[Likely, float | None]]) -> Mapping[str, float | int] | None:
    known = [(likely, measured) for likely, measured in pairs if measured is not None]
    if not known:
        return None
    error = np.array([abs(likely.value / measured - 1.0) for likely, measured in known])
    inside = np.array([likely.low <= measured <= likely.high for likely, measured in known])
    bias = float(np.median([likely.value / measured - 1.0 for likely, measured in known]))
    return {
        "runs": len(known),
        "mape": float(error.mean()),
        "median": float(np.median(error)),
        "bias": bias,
        "inside_likely_range": float(inside.mean()),
    }


def _assumptions(runs: Sequence[LoadRun]) -> list[str]:
    """What the file leaves open, by how many runs do, and which runs cannot be what they say."""
    counted: dict[str, int] = {}
    for sentence in (s for run in runs for s in run.assumptions):
        counted[sentence] = counted.get(sentence, 0) + 1
    against = [found for run in runs if (found := contradiction_of_load(run)) is not None]
    said = [f"{sentence} ({count:,} of {len(runs):,} runs)" for sentence, count in counted.items()]
    return [*said, *contradictions_told(against, len(runs))]
