"""Two plans by the requests of a log, served one by one: how many keep the limits, counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.scoring.joint_uncertainty import drawn_in_range, joint_draws
from autotune.scoring.plan_result import Launch, PlanResult
from autotune.simulation.goodput import goodput
from autotune.simulation.percentile_limits import request_bounds
from autotune.simulation.queue_growth import queue_grows
from autotune.simulation.simulate_plan import Traffic, recorded_traffic, simulate_plan
from autotune.study import Study
from costmodel.plan.columns import Floats
from costmodel.simulation.forecast import LATENCIES, Likely
from costmodel.simulation.requests import Requests

SHOWN = ("p50", "p95", "p99")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRequests:
    """What the requests of a log meet at one plan."""

    requests: int
    """Of the log."""
    sampled: str
    """What of them was simulated; empty: all."""
    within_limits_frac: Likely
    """Share that keeps every limit of a single request at once."""
    within_limits_per_s: Likely
    latencies_s: dict[str, dict[str, float]]
    """Latency -> statistic -> seconds, as expected."""


class ServedLog:
    """The requests of a log, and what they meet at plans, each of which serves them once."""

    def __init__(self, requests: Requests, *, request_s: float = 0.0) -> None:
        """`request_s`: seconds that requests take, by which the windows of a long log are chosen, of a plan that will
        be asked for: plans that take no longer have the same windows."""
        self.whole = recorded_traffic(requests)
        self._request_s, self._sampled = request_s, self.whole.sampled(request_s)
        self._met: dict[Launch, SimulatedRequests] = {}

    def met(self, study: Study, plans: Sequence[PlanResult]) -> list[SimulatedRequests]:
        """What the requests meet at plans, all under the same windows; the study's limits are those of every call."""
        longest = max(plan.metrics["e2e_s"] for plan in plans)
        if longest > self._request_s:
            before, self._request_s = self._sampled, longest
            self._sampled = self.whole.sampled(longest)
            if self._sampled.warm_up_s != before.warm_up_s:
                self._met.clear()
        for plan in plans:
            if plan.launch not in self._met:
                self._met[plan.launch] = _simulated(study, plan, self._sampled, self.whole)
        return [self._met[plan.launch] for plan in plans]


def simulated_requests(
    study: Study, log: ServedLog, plans: Sequence[PlanResult]
) -> tuple[tuple[SimulatedRequests, ...], Floats] | None:
    """Serve a log by plans of one kind of replica each: what its requests meet, and requests per second in the limits.

    The second are draws of the calibration's errors, shape `(len(plans), draws)`, as those of `served_within_limits`.
    None where the study limits no latency: then every request that is served is within the limits.
    """
    if not any(bound is not None for bound in request_bounds(study).values()):
        return None
    found = log.met(study, plans)
    values, low, high = (
        np.array([[getattr(one.within_limits_per_s, end)] for one in found]) for end in ("value", "low", "high")
    )
    drawn = joint_draws(study, plans).throughput_factor
    served = np.clip(drawn_in_range(values, low, high, drawn), 0.0, np.maximum(high, log.whole.rate_per_s or 0.0))
    return tuple(found), served


def _simulated(study: Study, plan: PlanResult, traffic: Traffic, whole: Traffic) -> SimulatedRequests:
    done = simulate_plan(study, plan, traffic)
    if traffic.sample is not None and queue_grows(done.expected):
        return _simulated(study, plan, whole, whole)
    return SimulatedRequests(
        requests=len(whole.requests),
        sampled="" if traffic.sample is None else traffic.sample.words(),
        within_limits_frac=done.forecast.attainment(**request_bounds(study)),
        within_limits_per_s=goodput(study, traffic, done.forecast, gpus=1),
        latencies_s={name: {s: done.forecast.latency(name, s).value for s in SHOWN} for name in LATENCIES},
    )
