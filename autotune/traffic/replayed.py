"""The requests of a log, as a plan is simulated under them."""

from __future__ import annotations

from autotune.simulation.draw_requests import recorded_requests
from autotune.traffic.traffic_log import TrafficLog
from costmodel.errors import InputError
from costmodel.simulation.requests import Requests

LEAST_REQUESTS = 2
"""Of fewer there is no rate."""


def requests_of_log(source: str, log: TrafficLog, hit_frac: float) -> Requests:
    """Every request of a log that was not refused; `hit_frac` of a prompt is cached where a line does not say.

    Raises:
        InputError: it holds no requests with times.
    """
    held = log.columns
    if held is None:
        raise InputError.single(source, "must be a log of requests: of metrics only distributions are known")
    lasted_s = float(held.times_s[-1] - held.times_s[0]) if held.times_s.size else 0.0
    if held.times_s.size < LEAST_REQUESTS or lasted_s <= 0.0:
        raise InputError.single(source, f"must hold {LEAST_REQUESTS} requests at different times or more")
    return recorded_requests(
        held.times_s,
        held.prompt.astype("int64"),
        held.output.astype("int64"),
        None if held.cached is None else held.cached.astype("int64"),
        hit_frac,
        log.blocks(),
    )
