"""The task that planners exist for: the most throughput under a TPOT limit, judged by what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.estimate.normal import p_below
from costmodel.plan.columns import Floats

FORGIVEN = 1.10
"""The lenient figure forgives a limit broken by up to a tenth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SloScore:
    """Means over groups. Regret is 1 - throughput of the pick over the best that keeps the limit."""

    groups: int
    strict_regret: float
    """A broken limit counts as a total loss."""
    lenient_regret: float
    over_by_a_tenth: float
    """Share of picks over the limit by more than 10 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SloRuns:
    """Columns over runs, shape `(num_runs,)`."""

    tpot_s: Floats
    """Measured; NaN where it was not."""
    throughput: Floats
    """Measured tokens/s per GPU."""
    predicted_tpot_s: Floats
    predicted_throughput: Floats
    tpot_log_sd: Floats


def slo_task(runs: SloRuns, groups: Sequence[Sequence[int]]) -> dict[str, SloScore]:
    """Score three ways to pick: by expected throughput, by the estimate alone, and at random.

    In each group the limit is the median measured TPOT. `expected` takes the highest P(meets the limit) x
    predicted throughput; `point` the highest predicted throughput among those predicted to meet it (the
    lowest predicted TPOT where none is); `random` is the mean over all runs of the group.
    """
    outcomes: dict[str, list[tuple[float, float, float]]] = {"expected": [], "point": [], "random": []}
    for group in groups:
        rows = np.array([i for i in group if np.isfinite(runs.tpot_s[i])], dtype=np.int64)
        if rows.size < 2:
            continue
        measured = runs.tpot_s[rows]
        limit = float(np.median(measured))
        keeps = measured <= limit
        best = float(runs.throughput[rows][keeps].max())
        results = [_outcome(t / limit, x / best) for t, x in zip(measured, runs.throughput[rows], strict=True)]
        predicted = runs.predicted_tpot_s[rows]
        speed = runs.predicted_throughput[rows]
        expected = p_below(limit, predicted, runs.tpot_log_sd[rows]) * speed
        outcomes["expected"].append(results[int(expected.argmax())])
        allowed = np.where(predicted <= limit, speed, -predicted)
        outcomes["point"].append(results[int(allowed.argmax())])
        outcomes["random"].append(tuple(np.mean(results, axis=0).tolist()))
    return {name: _score(found) for name, found in outcomes.items() if found}


LIMITS = (0.7, 0.85, 1.0, 1.2, 1.4)
"""Shares of a group's median measured TPOT that statements on meeting a limit are made about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Statements made with about one probability, and how many were true."""

    p_from: float
    p_to: float
    statements: int
    mean_p: float
    share_true: float


def reliability(runs: SloRuns, groups: Sequence[Sequence[int]]) -> list[Reliability]:
    """For each tenth from 0.5 to 1: P(meets a TPOT limit), or P(breaks it) where that is likelier."""
    stated, true = [], []
    for group in groups:
        rows = np.array([i for i in group if np.isfinite(runs.tpot_s[i])], dtype=np.int64)
        for share in LIMITS if rows.size > 1 else ():
            limit = float(np.median(runs.tpot_s[rows])) * share
            p = p_below(limit, runs.predicted_tpot_s[rows], runs.tpot_log_sd[rows])
            met = runs.tpot_s[rows] <= limit
            stated.append(np.where(p >= 0.5, p, 1.0 - p))
            true.append(np.where(p >= 0.5, met, ~met))
    return in_tenths(stated, true)


def in_tenths(stated: Sequence[Floats], true: Sequence[NDArray[np.bool_]]) -> list[Reliability]:
    """Statements by the probability they were made with, none of which is below 0.5."""
    if not stated:
        return []
    p_all, true_all = np.concatenate(stated), np.concatenate(true)
    out = []
    for low in (0.5, 0.6, 0.7, 0.8, 0.9):
        inside = (p_all >= low) & (p_all < low + 0.1 if low < 0.9 else p_all <= 1.0)
        if inside.any():
            out.append(
                Reliability(
                    p_from=low,
                    p_to=round(low + 0.1, 1),
                    statements=int(inside.sum()),
                    mean_p=float(p_all[inside].mean()),
                    share_true=float(true_all[inside].mean()),
                )
            )
    return out


def _outcome(over: float, gain: float) -> tuple[float, float, float]:
    """Strict regret, lenient regret, over by a tenth, of one pick."""
    loss = max(1.0 - gain, 0.0)
    strict = loss if over <= 1.0 else 1.0
    lenient = loss if over <= FORGIVEN else 1.0
    return strict, lenient, float(over > FORGIVEN)


def _score(found: list[tuple[float, float, float]]) -> SloScore:
    strict, lenient, over = np.mean(found, axis=0)
    return SloScore(
        groups=len(found), strict_regret=float(strict), lenient_regret=float(lenient), over_by_a_tenth=float(over)
    )
