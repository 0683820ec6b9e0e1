"""A request log as traffic that a plan is simulated under."""

from __future__ import annotations

from autotune.simulation import Traffic, recorded_requests
from autotune.study import Study
from autotune.traffic.read import read_traffic
from costmodel.errors import InputError

LEAST_REQUESTS = 2
"""Of fewer there is no rate."""


def traffic_of_log(study: Study, source: str) -> Traffic:
    """The requests of a log, at their own times; where it does not say what was cached, the study does.

    Raises:
        InputError: the log cannot be read or is not to be decided on, or it holds no requests with times.
    """
    log = read_traffic(source)
    if log.refusal is not None:
        raise InputError.single(source, log.refusal)
    held = log.columns
    if held is None:
        raise InputError.single(source, "must be a log of requests: of metrics only distributions are known")
    lasted_s = float(held.times_s[-1] - held.times_s[0]) if held.times_s.size else 0.0
    if held.times_s.size < LEAST_REQUESTS or lasted_s <= 0.0:
        raise InputError.single(source, f"must hold {LEAST_REQUESTS} requests at different times or more")
    requests = recorded_requests(
        held.times_s,
        held.prompt.astype("int64"),
        held.output.astype("int64"),
        None if held.cached is None else held.cached.astype("int64"),
        study.workload.prefix_cache_hit_frac,
    )
    return Traffic(
        requests=requests,
        rate_per_s=held.times_s.size / lasted_s,
        concurrency=None,
        counted_from=0,
        recorded=True,
    )
