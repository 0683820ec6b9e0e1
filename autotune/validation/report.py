"""Everything `autotune validate` says of a file of runs, as one document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from autotune.text.escaping import csv_text
from autotune.validation.metrics import comparison_reliability, errors_of, mean_tau
from autotune.validation.slo import SloRuns, reliability, slo_task
from costmodel.calibration.measured_cells import expected_error, own_key
from costmodel.calibration.profile import Profile
from costmodel.estimate.batch import PlanEntry
from costmodel.estimate.normal import Z90
from costmodel.estimate.result import Estimate, Service
from costmodel.measured.benchmark_recipes import recipe_source
from costmodel.measured.implausible import Contradiction
from costmodel.measured.learn_profile import that_can_be
from costmodel.measured.pool_runs import PoolRun
from costmodel.measured.runs import Run, RunBatch
from costmodel.plan.columns import Floats

MOST_TOLD = 10
"""Runs that contradict physics which are told one by one."""
HEADER = ("id", "pred_ttft_ms", "pred_tpot_ms", "ttft_p10_ms", "ttft_p90_ms", "tpot_p10_ms", "tpot_p90_ms")


def predictions_csv(runs: Sequence[Run | PoolRun], estimate: Service) -> str:
    """One row per run, in the file's order."""
    rows: list[Sequence[str]] = [HEADER]
    shape = estimate.tpot_s.shape
    ttft, tpot = (np.exp(Z90 * np.broadcast_to(sd, shape)) for sd in (estimate.ttft_log_sd, estimate.tpot_log_sd))
    for i, run in enumerate(runs):
        first, rest = estimate.ttft_s[i] * 1e3, estimate.tpot_s[i] * 1e3
        figures = (first, rest, first / ttft[i], first * ttft[i], rest / tpot[i], rest * tpot[i])
        rows.append([run.id, *(f"{x:.6g}" for x in figures)])
    return csv_text(rows)


def covered_by(profile: Profile | None, entries: Sequence[PlanEntry]) -> list[str]:
    """What is to be said of a user's calibration that does not cover every run."""
    if profile is None:
        return []
    names = [own_key(e.engine.name, e.cluster.gpu.name, e.arch) for e in entries]
    covered = sum(name in profile.cells for name in names)
    if covered == len(names):
        return []
    if not covered:
        return ["the calibration profile covers none of these runs (model, GPU, engine, precision): it changes nothing"]
    return [f"the calibration profile covers {covered:,} of {len(names):,} runs: the others are predicted without it"]


def contradictions_told(against: Sequence[Contradiction], runs: int) -> list[str]:
    """Which of so many runs cannot be what they say, and why."""
    said = [str(found.problem) for found in against[:MOST_TOLD]]
    if len(against) > MOST_TOLD:
        said.append(f"{len(against) - MOST_TOLD:,} more runs of {runs:,} cannot be what they say")
    return said


def of_the_fit(runs: Sequence[Run]) -> list[str]:
    """How many runs are of servers whose runs the shipped calibration was fitted on: errors of those are the fit's."""
    entries = [run.entry for run in runs]
    known = [
        expected_error(e.arch, e.cluster.gpu, e.engine, e.engine_version)
        for e in entries
        if e.engine.calibration == e.engine.name and e.cluster.gpu.measured_as == e.cluster.gpu.name
    ]
    inside = [error for error in known if error.reach == "cell"]
    if not inside:
        return []
    tpot, ttft = (float(np.mean([getattr(e, name) for e in inside])) for name in ("tpot_mean", "ttft_mean"))
    sentence = (
        f"{len(inside):,} of {len(runs):,} runs are of servers (model, precision, GPU, engine and version) that the "
        "shipped calibration was fitted on: where they are the runs of that fit, their errors are what is left after "
        f"it; such runs that were left out of it were predicted with TPOT off by {tpot:.1%} and TTFT by {ttft:.1%} on "
        "average"
    )
    return [sentence]


def _assumptions(runs: Sequence[Run], profile: Profile | None) -> list[str]:
    """What the file leaves open and how it was filled in, and which runs cannot be what they say."""
    against = contradictions_told(that_can_be(runs)[1], len(runs))
    if against:
        against.append("no calibration learns from runs that cannot be what they say")
    said = [*covered_by(profile, [r.entry for r in runs]), *of_the_fit(runs), *against]
    if one_token := sum(r.mean_osl <= 1.0 for r in runs):
        said.append(f"{one_token:,} of {len(runs):,} runs have one output token, and so no time per output token")
    taken = sum(r.by_recipe for r in runs)
    if not taken:
        return said
    sentence = (
        f"{taken:,} of {len(runs):,} runs, with lengths drawn from 0.8 to 1.0 of the nominal ones, do not say how "
        f"their server was set: token budget, cache dtype and waits as in the {recipe_source()}; the columns "
        "max_num_batched_tokens, kv_dtype, scheduler_recv_interval and batch_wait_timeout_iters go before it"
    )
    return [sentence, *said]


def validation_document(
    batch: RunBatch, estimate: Estimate, profile: Profile | None = None, of_file: Sequence[str] = ()
) -> dict[str, Any]:
    """Coverage, errors by GPU, engine and model, rankings, and the SLO task.

    `of_file`: what else is to be said, of the file that the runs are from.
    """
    runs = batch.runs
    targets = {
        "ttft": Target(np.array([r.ttft_s for r in runs]), estimate.ttft_s, estimate.ttft_log_sd),
        "tpot": Target(np.array([r.tpot_s for r in runs]), estimate.tpot_s, estimate.tpot_log_sd),
    }
    done = np.isfinite(estimate.ttft_s) & np.isfinite(estimate.tpot_s)
    return {
        "runs": len(runs),
        "coverage": float(done.mean()),
        "assumptions": [*of_file, *_assumptions(runs, profile)],
        "overall": errors_over(targets, list(range(len(runs)))),
        **{f"by_{name}": errors_by(targets, [getattr(r, name) for r in runs]) for name in ("gpu", "engine", "model")},
        **_ranking(batch, estimate),
    }


class Target(NamedTuple):
    """One quantity of some runs, shape `(num_runs,)` each."""

    measured: Floats
    predicted: Floats
    log_sd: Floats
    """Standard deviation of log(measured / predicted)."""


def errors_over(targets: Mapping[str, Target], rows: Sequence[int]) -> dict[str, Any]:
    """Errors of each quantity over some runs; None where none of them was measured."""
    out: dict[str, Any] = {}
    for name, target in targets.items():
        spread = np.broadcast_to(target.log_sd, target.predicted.shape)
        found = errors_of(target.predicted[rows], spread[rows], target.measured[rows])
        out[name] = None if found is None else asdict(found)
    return out


def errors_by(targets: Mapping[str, Target], keys: Sequence[str]) -> dict[str, Any]:
    """The same of each group of runs that share a key."""
    return {k: errors_over(targets, [i for i, key in enumerate(keys) if key == k]) for k in sorted(set(keys))}


def _throughput(runs: Sequence[Run], ttft_s: Floats, tpot_s: Floats) -> Floats:
    """Output tokens/s per GPU of a closed loop; TTFT left out where it was not measured."""
    osl = np.array([r.mean_osl for r in runs])
    time_s = np.where(np.isfinite(ttft_s), ttft_s, 0.0) + np.maximum(osl - 1.0, 1.0) * tpot_s
    flight = np.array([r.concurrency for r in runs])
    return np.asarray(flight * osl / time_s / np.array([float(r.gpus) for r in runs]))


def groups_of(runs: Sequence[Run | PoolRun]) -> list[list[int]]:
    """Indices of the runs that differ in layout and concurrency alone."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, r in enumerate(runs):
        groups.setdefault((r.gpu, r.engine, r.model, r.precision, r.isl, r.osl), []).append(i)
    return list(groups.values())


def slo_columns(runs: Sequence[Run], *, ttft_s: Floats, tpot_s: Floats, tpot_log_sd: Floats) -> SloRuns:
    """Predictions of shape `(num_runs,)` beside what was measured.

    A TTFT that was not measured is left out of the prediction as well, so that like is compared with like.
    """
    first, rest = np.array([r.ttft_s for r in runs]), np.array([r.tpot_s for r in runs])
    return SloRuns(
        tpot_s=rest,
        throughput=_throughput(runs, first, rest),
        predicted_tpot_s=tpot_s,
        predicted_throughput=_throughput(runs, np.where(np.isfinite(first), ttft_s, math.nan), tpot_s),
        tpot_log_sd=tpot_log_sd,
    )


def _ranking(batch: RunBatch, estimate: Estimate) -> dict[str, Any]:
    runs = batch.runs
    lists = groups_of(runs)
    columns = slo_columns(runs, ttft_s=estimate.ttft_s, tpot_s=estimate.tpot_s, tpot_log_sd=estimate.tpot_log_sd)
    known = np.array([np.isfinite(r.ttft_s) for r in runs])
    tau_speed, count = mean_tau(columns.predicted_throughput, columns.throughput, lists)
    tau_tpot, _ = mean_tau(estimate.tpot_s, columns.tpot_s, lists)
    scores = slo_task(columns, lists)
    return {
        "kendall_tau": {"throughput_per_gpu": tau_speed, "tpot": tau_tpot, "groups": count},
        "slo_task": {name: asdict(score) for name, score in scores.items()},
        "reliability": [asdict(r) for r in reliability(columns, lists)],
        "reliability_better": [
            asdict(r)
            for r in comparison_reliability(batch, estimate, np.where(known, columns.throughput, math.nan), lists)
        ],
    }
