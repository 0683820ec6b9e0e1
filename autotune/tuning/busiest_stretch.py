"""Plans that break a limit under the busiest stretch of a log already: the rest of the log need not be simulated.

The requests of a stretch find empty servers, and none come behind the last of them: in the whole log they have it no
easier. So as many as break a limit there do so in the whole log at least. Of 625 plans of three engines under a log of
8,819 requests none kept a limit of a share more often than its busiest quarter, eighth or sixteenth part left open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autotune.scoring.plan_result import PlanResult
from autotune.simulation.percentile_limits import PercentileLimit
from autotune.simulation.simulate_plan import Traffic
from autotune.study import Study
from autotune.study.sections import REQUEST_LATENCIES
from autotune.tuning.simulated_limits import Simulating, broken_by
from costmodel.simulation.forecast import Forecast, Likely
from costmodel.simulation.sampled_windows import busiest_window

TIMES_OVER = 2.5
"""Requests of a stretch over those of the whole log that may break its strictest limit."""
SHORT_LOG = 2_000
"""Requests of a log up to which all of it is simulated at once."""
LONGEST_FRAC = 0.5
"""Share of a log from which on a stretch is not worth while."""


def busiest_stretch(traffic: Traffic, limits: Sequence[PercentileLimit]) -> Traffic | None:
    """The part of a log that is simulated first; None: all of it is, or windows are that stand for it."""
    spare = min((spare for limit in limits if (spare := _spare_frac(limit)) is not None), default=1.0)
    frac = TIMES_OVER * spare
    if not traffic.recorded or traffic.sample is not None or len(traffic.requests) < SHORT_LOG or frac > LONGEST_FRAC:
        return None
    return replace(traffic, sample=busiest_window(traffic.requests, int(frac * len(traffic.requests))))


def _spare_frac(limit: PercentileLimit) -> float | None:
    """Share of requests that may break a limit; None: it is none of requests, or none of their shares."""
    if not limit.latency:
        return 1.0 - limit.bound
    return _share(limit) if limit.latency in REQUEST_LATENCIES and limit.statistic != "mean" else None


def _share(limit: PercentileLimit) -> float:
    """Share of requests that may take longer than a percentile."""
    return 1.0 - float(limit.statistic.removeprefix("p")) / 100.0


def broken_in_stretch(
    study: Study, plan: PlanResult, limits: Sequence[PercentileLimit], stretch: Traffic, simulated: Simulating
) -> PlanResult | None:
    """The plan with what it breaks in a log's `busiest_stretch`; None: it may keep every limit in the whole log.

    In the whole log, of which it has no figures, it breaks them by less.
    """
    simulation = simulated(study, plan, stretch)
    sample, forecast = simulation.traffic.sample, simulation.in_proportion
    if sample is None:
        raise ValueError("must be a stretch of a log")
    part = len(sample.requests) / sample.of_requests
    if all(limit.kept(_at_best(limit, forecast, part)) for limit in limits):
        return None
    figures = {limit: limit.figure(forecast) for limit in limits}
    broken = [violation for limit, figure in figures.items() if (violation := limit.violation(figure)) is not None]
    return broken_by(study, plan, broken)


def _at_best(limit: PercentileLimit, forecast: Forecast, part: float) -> Likely:
    """What a limit's figure is over a whole log, at best, by a part of its requests; as good as can be where that tells
    nothing."""
    if not limit.latency:
        value = 1.0 - (1.0 - limit.figure(forecast).value) * part
    elif limit.statistic == "mean":
        value = limit.figure(forecast).value * part
    elif limit.latency in REQUEST_LATENCIES and (spare := _share(limit) / part) < 1.0:
        value = forecast.latency(limit.latency, f"p{100.0 * (1.0 - spare)!r}").value
    else:
        value = 0.0
    return Likely.of(value)
