"""How sure the ranking is: joint draws of the plans' errors, of which those of one cell share a part.

The calibration gives each cell's error as a linear function of a few features with a covariance, which all its
plans share, and each plan an error of its own (`costmodel.calibration.residual`). Drawing both, with one set of
draws for all plans, gives the probability that one plan is better than another although neither is known well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.scoring.knob_grid import weights
from autotune.scoring.objective import COST, FEWEST_GPUS, expected, looked_at
from autotune.scoring.plan_result import PlanResult
from autotune.study import Study
from costmodel.calibration.residual import (
    FEATURES,
    REACH_SD,
    Residual,
    TargetResidual,
    features,
    full_covariance,
    residual_columns,
)
from costmodel.estimate.error_model import TARGET_CORRELATION
from costmodel.hardware import Gpu
from costmodel.plan.columns import Floats

DRAWS = 1000
SEED = 20
TOLD_APART = 0.9
"""A plan that the best beats with less than this probability cannot be told apart from it."""
P10 = 1.2815515655446004
"""Quantile of the normal distribution at 0.9."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """What is known of one plan beside its estimate."""

    p_better_than_baseline: float | None
    p_best_is_better: float
    """Probability that the first plan of the ranking beats this one."""
    among_best: bool
    """Whether it cannot be told apart from the first plan."""


def confidence(study: Study, plans: Sequence[PlanResult], baseline: PlanResult | None) -> dict[str, Confidence]:
    """For ranked plans, best first; the baseline may be among them or not."""
    if not plans:
        return {}
    together = [*plans, *([] if baseline is None else [baseline])]
    drawn = _draw(study, together)
    first = drawn[0]
    out = {}
    for i, plan in enumerate(plans):
        beaten = 0.0 if i == 0 else float((first > drawn[i]).mean())
        better = None
        if baseline is not None:
            better = 0.5 if plan.plan == baseline.plan else float((drawn[i] > drawn[-1]).mean())
        out[plan.plan] = Confidence(
            p_better_than_baseline=better, p_best_is_better=beaten, among_best=beaten < TOLD_APART
        )
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Joint draws of plans' figures. Arrays have shape `(len(plans), DRAWS)`."""

    ttft_s: Floats
    ttft_longest_s: Floats
    tpot_s: Floats
    throughput_factor: Floats
    """Of every throughput: requests and tokens per second."""
    ttft_factor: Floats
    """Of the time to the first token, the wait for KV room left alone."""
    tpot_factor: Floats


def _draw(study: Study, plans: Sequence[PlanResult]) -> Floats:
    """Draws of the objective, larger is better, shape `(len(plans), DRAWS)`."""
    drawn = joint_draws(study, plans)
    metric = study.objective.metric
    if metric == "ttft_s":
        return -drawn.ttft_s
    if metric == "tpot_s":
        return -drawn.tpot_s
    own = {name: np.array([p.metrics[name] for p in plans])[:, None] for name in {*looked_at(study), metric}}
    if study.workload.request_rate_per_s is not None and study.objective.direction == "maximize":
        # what comes is served by each that can, so that the time a request takes decides between equals
        took = drawn.ttft_s + max(study.workload.osl.mean - 1.0, 0.0) * drawn.tpot_s
        return np.asarray(own[metric] * (1.0 - 1e-6 * took / took.max()))
    if metric == COST:
        return -own[COST] / drawn.throughput_factor
    moved = {name: value if name == FEWEST_GPUS else value * drawn.throughput_factor for name, value in own.items()}
    sign = -1.0 if study.objective.direction == "minimize" else 1.0
    return sign * expected(study, moved, np.ones(1), np.ones(1))


def joint_draws(study: Study, plans: Sequence[PlanResult]) -> Draws:
    """What the plans may really do: one set of draws of the error that a cell's plans share, one more for each plan.

    In a closed loop throughput follows from TTFT and TPOT (Little).
    """
    random = np.random.default_rng(SEED)
    phi, beyond = _features(study, plans)
    shared = {t: random.standard_normal((len(FEATURES), DRAWS)) for t in ("tpot", "ttft")}
    own = {t: random.standard_normal((len(plans), DRAWS)) for t in ("tpot", "ttft")}
    rest = np.sqrt(1.0 - TARGET_CORRELATION**2)
    for drawn in (shared, own):
        drawn["ttft"] = TARGET_CORRELATION * drawn["tpot"] + rest * drawn["ttft"]
    error = {t: np.empty((len(plans), DRAWS)) for t in ("tpot", "ttft")}
    for residual, rows in _cells(study, plans):
        for name in ("tpot", "ttft"):
            target: TargetResidual = getattr(residual, name)
            root = _root(target.covariance[0])
            spread = np.sqrt(target.own_variance(phi[:, rows]) + (REACH_SD[name] * beyond[rows]) ** 2)
            error[name][rows] = phi[:, rows].T @ (root @ shared[name]) + spread[:, None] * own[name][rows]
    # residuals leave the wait for KV room alone (`costmodel.estimate.error_model`)
    wait = np.array([p.breakdown["ttft_parts_s"].get("kv_wait", 0.0) for p in plans])[:, None]
    factor = {name: np.exp(value) for name, value in error.items()}
    ttft = (np.array([p.metrics["ttft_s"] for p in plans])[:, None] - wait) * factor["ttft"] + wait
    tpot = np.array([p.metrics["tpot_s"] for p in plans])[:, None] * factor["tpot"]
    longest = np.array([p.metrics["ttft_longest_s"] - p.metrics["ttft_s"] for p in plans])[:, None]
    outputs = max(study.workload.osl.mean - 1.0, 0.0)
    total = np.array([p.metrics["ttft_s"] + outputs * p.metrics["tpot_s"] for p in plans])[:, None]
    return Draws(
        ttft_s=ttft,
        ttft_longest_s=ttft + longest * factor["ttft"],
        tpot_s=tpot,
        throughput_factor=np.asarray(total / (ttft + outputs * tpot)),
        ttft_factor=factor["ttft"],
        tpot_factor=factor["tpot"],
    )


def _features(study: Study, plans: Sequence[PlanResult]) -> tuple[Floats, Floats]:
    layouts = [p.layout for p in plans]
    return features(
        np.array([p.knobs.concurrency / p.layout.replicas for p in plans]),
        np.array([float(x.width * x.pp) for x in layouts]),
        np.array([study.workload.isl.mean]),
        np.array([study.workload.osl.mean]),
        np.array([float(x.moe_ep > 1) for x in layouts]),
        np.array([float(x.attn_dp) for x in layouts]),
    )


def _cells(study: Study, plans: Sequence[PlanResult]) -> list[tuple[Residual, list[int]]]:
    groups: dict[tuple[str, str | None, str | None], list[int]] = {}
    for i, p in enumerate(plans):
        groups.setdefault((p.engine, p.knobs.weight_dtype, p.gpu), []).append(i)
    types: dict[str | None, Gpu] = {None: study.cluster.gpu, **{c.gpu.name: c.gpu for c in study.axes.gpu_types}}
    profile = study.calibration
    own = None if profile is None else profile.values()
    return [
        (
            residual_columns(
                [
                    (
                        weights(study.arch, dtype),
                        types[gpu].name,
                        types[gpu].generation,
                        engine,
                        study.engine_version,
                    )
                ],
                own,
            ),
            rows,
        )
        for (engine, dtype, gpu), rows in groups.items()
    ]


def _root(triangle: Floats) -> Floats:
    """Square root of a covariance given as its lower triangle; rounding may leave it barely indefinite."""
    values, vectors = np.linalg.eigh(full_covariance(triangle))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
