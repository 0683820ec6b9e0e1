"""Error figures of predictions, and how well they order runs: which statements of more throughput are true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.validation.slo import Reliability, in_tenths
from costmodel.estimate.error_model import gap_log_sd
from costmodel.estimate.normal import Z90, normal_cdf
from costmodel.estimate.result import Estimate
from costmodel.measured.learn_profile import run_situation
from costmodel.measured.runs import Run, RunBatch
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Of one quantity over some runs. Fractions, not per cent."""

    runs: int
    mape: float
    """Mean of |predicted / measured - 1|."""
    median: float
    p90: float
    bias: float
    """Median of predicted / measured, less 1."""
    inside_p10_p90: float
    """Share of runs inside the 80 % interval."""


def errors_of(predicted: Floats, log_sd: Floats, measured: Floats) -> Errors | None:
    """Errors over the runs that have a measurement; None where none has.

    `log_sd` is the standard deviation of log(measured / predicted). All of shape `(num_runs,)`.
    """
    known = np.isfinite(measured)
    if not known.any():
        return None
    ratio = predicted[known] / measured[known]
    error = np.abs(ratio - 1.0)
    inside = np.abs(np.log(ratio)) <= Z90 * log_sd[known]
    return Errors(
        runs=int(known.sum()),
        mape=float(error.mean()),
        median=float(np.median(error)),
        p90=float(np.quantile(error, 0.9)),
        bias=float(np.median(ratio) - 1.0),
        inside_p10_p90=float(inside.mean()),
    )


def kendall_tau(first: Floats, second: Floats) -> float:
    """Kendall's tau-b of two lists of equal length; NaN where one of them is constant (Kendall, 1945)."""
    a, b = np.triu_indices(first.size, k=1)
    x, y = np.sign(first[a] - first[b]), np.sign(second[a] - second[b])
    scale = np.sqrt(float((x != 0).sum()) * float((y != 0).sum()))
    return float((x * y).sum() / scale) if scale else float("nan")


def mean_tau(predicted: Floats, measured: Floats, groups: Sequence[Sequence[int]]) -> tuple[float, int]:
    """Mean tau over the groups that have one, and their number."""
    taus = []
    for group in groups:
        rows = [i for i in group if np.isfinite(measured[i])]
        if len(rows) >= 3:
            tau = kendall_tau(predicted[rows], measured[rows])
            if np.isfinite(tau):
                taus.append(tau)
    return (float(np.mean(taus)) if taus else float("nan")), len(taus)


def comparison_reliability(
    batch: RunBatch, estimate: Estimate, throughput: Floats, groups: Sequence[Sequence[int]]
) -> list[Reliability]:
    """For each tenth from 0.5 to 1: P(more throughput per GPU), over all pairs of a group's plans.

    Errors of a pair are those of `autotune.scoring.joint_uncertainty`: the cell's part moves both, each has its own.
    `throughput` is measured, shape `(num_runs,)`; runs without it are left out. Runs that repeat another are one plan,
    measured as their mean: to count each pair of them anew would count one statement many times.
    """
    residual = batch.batch.residual
    if residual is None:
        return []
    situation, osl = run_situation(batch.runs), np.array([r.mean_osl for r in batch.runs])
    first_s, outputs = estimate.ttft_s - estimate.kv_wait_s, np.maximum(osl - 1.0, 0.0)
    share = first_s / (first_s + outputs * estimate.tpot_s)
    predicted = np.log(estimate.output_tokens_per_s / estimate.gpus)
    stated, true = [], []
    for group in groups:
        rows, measured = _plans(batch.runs, group, throughput)
        if rows.size < 2:
            continue
        first, second = np.triu_indices(rows.size, 1)
        one, two = rows[first], rows[second]
        gap = predicted[one] - predicted[two]
        p = normal_cdf(np.abs(gap) / gap_log_sd(residual, situation, share, one, two))
        stated.append(p)
        true.append((gap > 0.0) == (measured[first] > measured[second]))
    return in_tenths(stated, true)


def _plans(runs: Sequence[Run], group: Sequence[int], throughput: Floats) -> tuple[Ints, Floats]:
    """The first run of each of a group's plans, and the mean throughput of all of that plan's runs."""
    plans: dict[tuple[Layout, str, float], list[int]] = {}
    for i in group:
        if np.isfinite(throughput[i]):
            plans.setdefault((runs[i].entry.layout, runs[i].engine_version, runs[i].concurrency), []).append(i)
    first = np.array([repeats[0] for repeats in plans.values()], dtype=np.int64)
    return first, np.array([throughput[repeats].mean() for repeats in plans.values()])
