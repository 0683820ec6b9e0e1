"""Statements "this run has more throughput than that one", and how many of them are true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.validation.slo import Reliability, in_tenths
from costmodel.calibration.residual import Residual, TargetResidual, full_covariance
from costmodel.estimate.error_model import TARGET_CORRELATION
from costmodel.estimate.normal import normal_cdf
from costmodel.estimate.result import Estimate
from costmodel.measured.learn_profile import run_features
from costmodel.measured.runs import Run, RunBatch
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errors:
    """How the error of log throughput splits, per run: by feature (shared in a cell), and the run's own."""

    by_feature: Floats
    """Shape `(num_runs, num_features)`: the run's loading on its cell's function."""
    covariance: Floats
    """Shape `(num_runs, num_features, num_features)`, the same within a cell."""
    own_variance: Floats


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
    parts = _split(batch, residual, estimate)
    predicted = np.log(estimate.output_tokens_per_s / estimate.gpus)
    said, true = [], []
    for group in groups:
        rows, measured = _plans(batch.runs, group, throughput)
        if rows.size < 2:
            continue
        first, second = np.triu_indices(rows.size, 1)
        one, two = rows[first], rows[second]
        gap = predicted[one] - predicted[two]
        variance = np.sum([_pair_variance(part, one, two) for part in parts], axis=0)
        p = normal_cdf(np.abs(gap) / np.sqrt(variance))
        said.append(p)
        true.append((gap > 0.0) == (measured[first] > measured[second]))
    return in_tenths(said, true)


def _plans(runs: Sequence[Run], group: Sequence[int], throughput: Floats) -> tuple[Ints, Floats]:
    """The first run of each of a group's plans, and the mean throughput of all of that plan's runs."""
    plans: dict[tuple[Layout, str, float], list[int]] = {}
    for i in group:
        if np.isfinite(throughput[i]):
            plans.setdefault((runs[i].entry.layout, runs[i].engine_version, runs[i].concurrency), []).append(i)
    first = np.array([repeats[0] for repeats in plans.values()], dtype=np.int64)
    return first, np.array([throughput[repeats].mean() for repeats in plans.values()])


def _split(batch: RunBatch, residual: Residual, estimate: Estimate) -> tuple[_Errors, ...]:
    """Two independent errors: TPOT's with the part of TTFT's that moves with it, and the rest of TTFT's."""
    phi = run_features(batch.runs)
    outputs = np.maximum(np.array([r.mean_osl for r in batch.runs]) - 1.0, 0.0)
    ttft_s = estimate.ttft_s - estimate.kv_wait_s
    share = ttft_s / (ttft_s + outputs * estimate.tpot_s)
    alone = np.sqrt(1.0 - TARGET_CORRELATION**2)
    size = len(batch.runs)
    return (
        _errors(residual.tpot, phi, 1.0 - share, size),
        _errors(residual.ttft, phi, share * alone, size),
        _errors(residual.ttft, phi, share * TARGET_CORRELATION, size),
    )


def _errors(target: TargetResidual, phi: Floats, weight: Floats, size: int) -> _Errors:
    full = full_covariance(target.covariance)
    return _Errors(
        by_feature=(phi * weight).T,
        covariance=np.broadcast_to(full, (size, *full.shape[1:])),
        own_variance=np.broadcast_to(target.own_variance(phi), (size,)) * weight**2,
    )


def _pair_variance(errors: _Errors, one: Ints, two: Ints) -> Floats:
    apart = errors.by_feature[one] - errors.by_feature[two]
    shared = np.einsum("pi,pij,pj->p", apart, errors.covariance[one], apart)
    return np.asarray(np.maximum(shared, 0.0) + errors.own_variance[one] + errors.own_variance[two])
