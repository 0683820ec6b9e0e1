"""Goodput: requests per second that keep every limit of a single request at once."""

from __future__ import annotations

import numpy as np

from autotune.simulation.percentile_limits import request_bounds
from autotune.simulation.simulate_plan import PlanSimulation, Traffic
from autotune.study import Study
from costmodel.simulation.forecast import Likely
from costmodel.simulation.simulate import Simulated


def goodput(study: Study, traffic: Traffic, found: PlanSimulation, *, gpus: int) -> Likely:
    """Requests per second and GPU that keep all of `request_bounds`, of those that come.

    In an open loop they come at the traffic's mean rate whatever the plan does, in a closed loop as it serves them.
    """
    share = found.forecast.attainment(**request_bounds(study))
    runs = (found.forecast.expected, found.forecast.slow, found.forecast.quick)
    rates = [served_per_s(traffic, run) if traffic.rate_per_s is None else traffic.rate_per_s for run in runs]
    value, low, high = (
        rate * part / gpus for rate, part in zip(rates, (share.value, share.low, share.high), strict=True)
    )
    return Likely(value=value, low=low, high=high)


def served_per_s(traffic: Traffic, done: Simulated) -> float:
    """Requests that end per second, while they come: from the first arrival that counts to the last."""
    arrival_s, finish_s = done.served.requests.arrival_s, done.served.finish_s
    begin, end = float(arrival_s[0]), float(arrival_s[-1])
    if end <= begin:
        return 0.0
    if traffic.rate_per_s is None:  # each is sent as another one ends, which need not count
        return (arrival_s.size - 1) / (end - begin)
    return np.count_nonzero((finish_s > begin) & (finish_s <= end)) / (end - begin)
