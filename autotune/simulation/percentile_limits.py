"""Limits on percentiles over requests, and on the share of requests that keep several limits at once.

They are checked by simulation, plan by plan. Limits on means are the closed form's (`autotune.scoring.limits`), but
under a log that is simulated anyway: then they are of its requests too.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isnan, log
from typing import TYPE_CHECKING

import numpy as np

from autotune.metrics import GOODPUT
from autotune.scoring.kept_together import ALL, BOTH, DECODE, FIRST, Kept
from autotune.scoring.limits import ATTAINMENT, SERVED_WITHIN
from autotune.scoring.plan_result import Violation
from autotune.study import Study
from autotune.study.sections import PERCENTILE_FIELDS, REQUEST_LATENCIES
from costmodel.estimate.normal import Z90, normal_cdf

if TYPE_CHECKING:
    from costmodel.simulation.forecast import Forecast, Likely

TITLES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "end to end"}
LEAST_SERVED = 1.0 / 2000.0
"""Share of requests within the limits below which a plan serves none: one of the 2,000 that are simulated at least."""
_LATENCIES = {"ttft": FIRST, "tpot": DECODE, "itl": DECODE, "e2e": BOTH, "": ALL}


@dataclass(frozen=True, slots=True, kw_only=True)
class PercentileLimit:
    """One limit that is checked on simulated requests."""

    code: str
    """Its name in results, and but for a mean in studies: `ttft_p99_ms`, `ttft_mean_ms`, `attainment_frac`."""
    latency: str
    """`ttft`, `tpot`, `itl` or `e2e`; empty: the share of requests that keep `bounds_s`."""
    statistic: str
    bound: float
    """Seconds, or a share."""
    bounds_s: tuple[float | None, float | None, float | None] = (None, None, None)
    """TTFT, TPOT and end to end of one request."""

    @property
    def title(self) -> str:
        """What it is called in a table: `TTFT p99`."""
        if not self.latency:
            return "within limits"
        return f"{TITLES[self.latency]} {self.statistic}"

    @property
    def key(self) -> str:
        """Its name in studies."""
        return f"{self.latency}_ms" if self.statistic == "mean" else self.code

    @property
    def unit(self) -> str:
        """Of its figures in results."""
        return "ms" if self.latency else "of requests"

    @property
    def factor(self) -> float:
        """From SI to `unit`."""
        return 1e3 if self.latency else 1.0

    @property
    def limit(self) -> float:
        """The bound in `unit`."""
        return self.bound * self.factor

    def figure(self, forecast: Forecast) -> Likely:
        """What a simulation says of it, SI."""
        if self.latency:
            return forecast.latency(self.latency, self.statistic)
        ttft_s, tpot_s, e2e_s = self.bounds_s
        return forecast.attainment(ttft_s=ttft_s, tpot_s=tpot_s, e2e_s=e2e_s)

    def sampling_error(self, forecast: Forecast) -> float | None:
        """Half the 80 % interval that sampling a log leaves open of its figure, SI; None: the log was not sampled."""
        if self.latency:
            return forecast.sampling_error(self.latency, self.statistic)
        ttft_s, tpot_s, e2e_s = self.bounds_s
        return forecast.attainment_sampling_error(ttft_s=ttft_s, tpot_s=tpot_s, e2e_s=e2e_s)

    def kept(self, likely: Likely) -> bool:
        """Whether the expected figure keeps it; where no request has one (TPOT of single tokens), it is kept."""
        return not (likely.value > self.bound if self.latency else likely.value < self.bound)

    def p_kept(self, likely: Likely) -> float:
        """Probability that it is kept, given the figure's likely range."""
        return float(normal_cdf(np.array([self._z_and_width(likely)[0]]))[0])

    def surely(self, likely: Likely) -> tuple[str, Kept]:
        """How surely it is kept, and by which latency of `autotune.scoring.kept_together`.

        A share of requests is moved by all errors at once: it is kept together with any other as the less probable.
        """
        z, width = self._z_and_width(likely)
        first = min(likely.first_log / width, 1.0) if width > 0.0 else 0.0
        return _LATENCIES[self.latency], Kept(z=np.array([z]), first=np.array([first]))

    def _z_and_width(self, likely: Likely) -> tuple[float, float]:
        """Standard deviations by which it is kept, and of a latency the half width of the likely range's log there."""
        certain, end = inf if self.kept(likely) else -inf, likely.high if self.latency else likely.low
        if likely.value == end or not likely.value > 0.0:
            return certain, 0.0
        if not self.latency:
            # a share that is the same at both ends of the likely range is sure; between them it is taken as linear,
            # and where no request is left lies below the figure, in the lower half of the range
            lower_half = self.code == SERVED_WITHIN
            spread = max(likely.value - likely.low if lower_half else (likely.high - likely.low) / 2.0, 1e-12)
            return (likely.value - self.bound) / spread * Z90, 0.0
        ends = (likely.value / likely.low, likely.high / likely.value)
        width = log(ends[1] if self.bound >= likely.value else ends[0])
        return (log(self.bound / likely.value) / width * Z90, width) if width > 0.0 else (certain, 0.0)

    def violation(self, likely: Likely) -> Violation | None:
        """How a plan breaks it; None where it keeps it."""
        if self.kept(likely):
            return None
        value = likely.value * self.factor
        return Violation(code=self.code, value=value, limit=self.limit, excess=self.excess(likely), unit=self.unit)

    def excess(self, likely: Likely) -> float:
        """By how much it is broken, in `unit`; at most 0 where it is kept."""
        if isnan(likely.value):
            return 0.0
        return (likely.value - self.bound) * self.factor * (1.0 if self.latency else -1.0)


def percentile_limits(study: Study) -> tuple[PercentileLimit, ...]:
    """The study's limits that need a simulation; none: means are all that it asks of."""
    given = study.constraints
    found = [
        PercentileLimit(code=f"{latency}_{statistic}_ms", latency=latency, statistic=statistic, bound=bound)
        for latency, statistic in PERCENTILE_FIELDS
        if (bound := getattr(given, f"{latency}_{statistic}_s")) is not None
    ]
    if given.attainment_frac is not None:
        bounds = (given.ttft_s, given.tpot_s, given.e2e_s)
        share = PercentileLimit(code=ATTAINMENT, latency="", statistic="", bound=given.attainment_frac, bounds_s=bounds)
        found.append(share)
    if study.objective.metric == GOODPUT:
        within = request_bounds(study)
        bounds = (within["ttft_s"], within["tpot_s"], within["e2e_s"])
        any_served = PercentileLimit(code=SERVED_WITHIN, latency="", statistic="", bound=LEAST_SERVED, bounds_s=bounds)
        found.append(any_served)
    return (*found, *mean_limits(study)) if study.means_of_requests else tuple(found)


def mean_limits(study: Study) -> tuple[PercentileLimit, ...]:
    """The study's limits on mean latencies, as they are held against requests; none where single requests keep them."""
    if study.limits_single_requests:
        return ()
    return tuple(
        PercentileLimit(code=f"{name}_mean_ms", latency=name, statistic="mean", bound=bound)
        for name in REQUEST_LATENCIES
        if (bound := getattr(study.constraints, f"{name}_s")) is not None
    )


def is_simulated(study: Study) -> bool:
    """Whether plans have to be simulated to be ranked."""
    return bool(percentile_limits(study))


def request_bounds(study: Study) -> dict[str, float | None]:
    """What a single request is held to, seconds by latency (`ttft_s`, `tpot_s`, `e2e_s`); None: to nothing."""
    fields = bound_fields(study)
    return {
        f"{name}_s": getattr(study.constraints, fields[name]) if name in fields else None for name in REQUEST_LATENCIES
    }


def bound_fields(study: Study) -> dict[str, str]:
    """Latency (`ttft`, `tpot`, `e2e`) -> the field of `Constraints` that single requests are held to, where one is.

    The limit of that name, or else the bound of its highest percentile that is given: of the others nearly all are
    asked to keep that.
    """
    found: dict[str, str] = {}
    for latency in REQUEST_LATENCIES:
        fields = (f"{latency}_s", *(f"{n}_{share}_s" for n, share in reversed(PERCENTILE_FIELDS) if n == latency))
        given = [field for field in fields if getattr(study.constraints, field) is not None]
        if given:
            found[latency] = given[0]
    return found
