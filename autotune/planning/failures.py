"""Years of failures: how much of the time how many replicas serve.

GPUs, hosts and racks fail independently and at random, and are repaired. What happens to the replicas in the meantime
is in `autotune.planning.slots`.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from autotune.planning.place import DOMAINS, Place
from autotune.planning.slots import Slots
from costmodel.plan.columns import Floats

YEAR_S = 365.25 * 86400.0
EVENTS = 40_000
"""Failures that are drawn, about."""
MOST_YEARS = 4000.0
SEED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRates:
    """How often a domain of each kind fails, and how long its repair takes. Seconds."""

    mtbf_s: dict[str, float]
    repair_s: dict[str, float]
    detect_s: float
    start_s: float
    """Of a replica, from its start until it counts as capacity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YearsOfFailures:
    """What came of them."""

    up_frac: Floats
    """Share of the time in which so many replicas serve, shape `(replicas + 1,)`."""
    failures_per_year: float
    """Of all domains."""
    losses_per_year: float
    """Failures that take a serving replica down."""
    down_s: float
    """From a replica's loss until it serves again, mean."""
    years: float
    """That were simulated."""


def expected_failures_per_year(place: Place, rates: FailureRates) -> float:
    """Of all domains of a cluster."""
    return sum(place.domains(domain) * YEAR_S / (rates.mtbf_s[domain] + rates.repair_s[domain]) for domain in DOMAINS)


def years_of_failures(place: Place, rates: FailureRates, *, events: int = EVENTS) -> YearsOfFailures:
    """Simulate about so many failures."""
    per_year = expected_failures_per_year(place, rates)
    years = min(events / max(per_year, 1e-9), MOST_YEARS)
    end_s = years * YEAR_S
    cluster = Slots(place, detect_s=rates.detect_s, start_s=rates.start_s)
    starting: list[tuple[float, int]] = []
    failures = 0
    for at, repaired, domain, number in _events(place, rates, end_s):
        while starting and starting[0][0] < at:
            cluster.serve(*heappop(starting))
        failures += not repaired
        for start in (cluster.repair if repaired else cluster.fail)(at, domain, number):
            heappush(starting, start)
    while starting and starting[0][0] < end_s:
        cluster.serve(*heappop(starting))
    cluster.advance(end_s)
    return YearsOfFailures(
        up_frac=np.array(cluster.spent_s) / end_s,
        failures_per_year=failures / years,
        losses_per_year=cluster.losses / years,
        down_s=cluster.down_s / max(cluster.returns, 1),
        years=years,
    )


def _events(place: Place, rates: FailureRates, end_s: float) -> list[tuple[float, bool, str, int]]:
    """When which domain fails, or is repaired: gaps are exponential and begin when the last repair is done."""
    random = np.random.default_rng(SEED)
    events: list[tuple[float, bool, str, int]] = []
    for domain in DOMAINS:
        mean, repair = rates.mtbf_s[domain], rates.repair_s[domain]
        count = place.domains(domain)
        at = random.exponential(mean, count)
        alive = np.flatnonzero(at < end_s)
        while alive.size:
            for number, fails in zip(alive.tolist(), at[alive].tolist(), strict=True):
                events += [(fails, False, domain, number), (fails + repair, True, domain, number)]
            at[alive] += repair + random.exponential(mean, alive.size)
            alive = alive[at[alive] < end_s]
    return sorted(event for event in events if event[0] < end_s)
