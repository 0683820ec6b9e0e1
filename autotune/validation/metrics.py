"""Error figures of predictions, and how well they order runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.estimate.normal import Z90
from costmodel.plan.columns import Floats


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
