"""Tomorrow's load by the same time of past days, and how sure that is.

The logarithm of a step's load is the mean of past days, moved by one figure on weekends, plus an error of the whole day
and one of the step. Both spreads are pooled over the steps, as a week gives seven figures for each of them; that the
mean is of few days counts too. Normal quantiles are widened as Student's t is, by the Cornish-Fisher expansion to the
second order.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from autotune.planning.loads import BIN_S, DayLoads
from costmodel.plan.columns import Floats

ASSUMED_LOG_SD = 0.15
"""Where one day alone is known: a day's load is taken to differ from the next by so much, and a step's as much."""
LEAST_OF_KIND = 2
"""Weekend days and weekdays that a log has to hold for their loads to be told apart."""
LEAST_PER_S = 1.0 / BIN_S
"""A step in which nothing came is taken as one request in its fullest minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Load of each step of a day. Arrays have shape `(steps,)`; requests per second in the fullest minute."""

    median_per_s: Floats
    day_log_sd: float
    """Of what all steps of a day have in common."""
    step_log_sd: float
    """Of what each has for itself."""
    days: int
    """That it rests on."""
    assumed: bool
    """Whether the spreads are assumed, as of one day there is none."""
    weekend_factor: float | None = None
    """Load of a weekend day by that of a weekday; None: the log does not tell them apart."""

    @property
    def log_sd(self) -> float:
        """Of one step's load."""
        return float(np.hypot(self.day_log_sd, self.step_log_sd))

    def quantile(self, share: float) -> Floats:
        """The load that a step does not exceed with probability `share`."""
        return self.median_per_s * np.exp(_student(NormalDist().inv_cdf(share), self._freedom) * self.log_sd)

    def draws(self, count: int, random: np.random.Generator) -> Floats:
        """Days as they may come, shape `(count, steps)`."""
        wider = np.sqrt(self._freedom / random.chisquare(self._freedom, (count, 1))) if not self.assumed else 1.0
        whole = random.standard_normal((count, 1)) * self.day_log_sd
        each = random.standard_normal((count, self.median_per_s.size)) * self.step_log_sd
        return np.asarray(self.median_per_s * np.exp(wider * (whole + each)))

    @property
    def _freedom(self) -> float:
        return np.inf if self.assumed else float(self.days - (1 if self.weekend_factor is None else 2))


def forecast_day(loads: DayLoads, *, log_sd: float | None = None) -> Forecast:
    """The day that follows the days of a log.

    Args:
        loads: of past days.
        log_sd: relative error of a step's load; None: what past days say, or `ASSUMED_LOG_SD` twice where there is one.
    """
    logs = np.log(np.maximum(loads.peak_per_s, LEAST_PER_S))
    days = int((~np.isnan(logs)).any(axis=1).sum())
    weekend = loads.weekend()
    shift = _weekend_shift(logs, weekend[:-1])
    logs = logs - (shift or 0.0) * weekend[:-1, None]
    factor = None if shift is None else float(np.exp(shift))
    median = np.exp(np.nanmean(logs, axis=0) + (shift or 0.0) * weekend[-1])
    if log_sd is not None or days < 2:
        each = ASSUMED_LOG_SD if log_sd is None else log_sd / np.sqrt(2.0)
        return Forecast(
            median_per_s=median, day_log_sd=each, step_log_sd=each, days=days, assumed=True, weekend_factor=factor
        )
    rest = logs - np.nanmean(logs, axis=0)
    held = ~np.isnan(rest)
    by_day = np.array([row[seen].mean() if seen.any() else np.nan for row, seen in zip(rest, held, strict=True)])
    each = rest - by_day[:, None]
    repeated = held.sum(axis=0) > 1
    freedom = max(float(held[:, repeated].sum() - repeated.sum() - (days - 1)), 1.0)
    step_var = float(np.nansum(each[:, repeated] ** 2)) / freedom
    # the mean of a day's steps still holds their own errors
    steps = max(float(held.sum() / days), 1.0)
    day_var = max(float(by_day[held.any(axis=1)].var(ddof=1 if shift is None else 2)) - step_var / steps, 0.0)
    alike = days if shift is None else int((weekend[:-1] == weekend[-1])[held.any(axis=1)].sum())
    of_mean = 1.0 + 1.0 / alike
    return Forecast(
        median_per_s=median,
        day_log_sd=float(np.sqrt(day_var * of_mean)),
        step_log_sd=float(np.sqrt(step_var * of_mean)),
        days=days,
        assumed=False,
        weekend_factor=factor,
    )


def _weekend_shift(logs: Floats, weekend: NDArray[np.bool_]) -> float | None:
    """By how much the logarithm of a weekend day's load differs from a weekday's; None: too few days of a kind."""
    with_load = ~np.isnan(logs).all(axis=1)
    kinds = [with_load & weekend, with_load & ~weekend]
    if min(kind.sum() for kind in kinds) < LEAST_OF_KIND:
        return None
    rest = logs - np.nanmean(logs, axis=0)
    of_weekend, of_weekday = (np.nanmean(rest[kind]) for kind in kinds)
    return float(of_weekend - of_weekday)


def _student(z: float, freedom: float) -> float:
    """A quantile of Student's t by that of the normal distribution (Abramowitz and Stegun 26.7.5)."""
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    return z + first / freedom + second / freedom**2
