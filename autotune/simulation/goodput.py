"""What a plan serves: its capacity, what of the traffic it takes, and how much of that keeps every limit at once."""

from __future__ import annotations

from dataclasses import replace

from autotune.simulation.percentile_limits import request_bounds
from autotune.simulation.queue_growth import queue_grows
from autotune.simulation.simulate_plan import PlanSimulation, Traffic
from autotune.study import Study
from costmodel.simulation.forecast import Likely
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.requests import Requests
from costmodel.simulation.simulate import ServerModel, Simulated


def goodput(study: Study, traffic: Traffic, found: PlanSimulation, *, gpus: int) -> Likely:
    """Requests per second and GPU that keep all of `request_bounds`, of those that come.

    In an open loop they come at the traffic's mean rate whatever the plan does, in a closed loop as it serves them.
    """
    share = found.forecast.attainment(**request_bounds(study))
    runs = (found.forecast.expected, found.forecast.slow, found.forecast.quick)
    rates = [_sent_per_s(run) if traffic.rate_per_s is None else traffic.rate_per_s for run in runs]
    value, low, high = (
        rate * part / gpus for rate, part in zip(rates, (share.value, share.low, share.high), strict=True)
    )
    return Likely(value=value, low=low, high=high)


def served_per_s(traffic: Traffic, found: PlanSimulation, *, full_per_s: float | None = None) -> float:
    """Requests per second that end while they come, or wait.

    In an open loop those that come, but no more than the plan serves with all its room taken: how long that lasts, and
    how requests came before, changes nothing of it. A log is served at its own rate unless its queue grows.

    Args:
        full_per_s: `capacity_per_s`, where it is known already.
    """
    done = found.forecast.expected
    if traffic.rate_per_s is None:
        return _sent_per_s(done)
    if traffic.recorded and not queue_grows(done):
        return traffic.rate_per_s
    return min(traffic.rate_per_s, capacity_per_s(found) if full_per_s is None else full_per_s)


def is_full(traffic: Traffic, served_per_s: float) -> bool:
    """Whether more requests come than a plan serves; those of a closed loop come as it serves them.

    A queue that grows while a few thousand requests come does not say so, nor one that does not grow yet: the servers
    have first to fill, and batches of one length can end in lock step until the queue presses.
    """
    return traffic.rate_per_s is not None and served_per_s < traffic.rate_per_s


def capacity_per_s(found: PlanSimulation) -> float:
    """Requests per second that a plan serves of such lengths with all its room taken; of two pools the slower one's."""
    model = found.model.paced(found.forecast.errors.pace)
    alike = 1
    if isinstance(model, ServerModel):  # its replicas serve alike
        alike, model = model.replicas, replace(model, replicas=1)
    loop = found.traffic.in_closed_loop(_room(model, found.traffic.requests))
    return alike * _sent_per_s(loop.serve(model))


def _sent_per_s(done: Simulated) -> float:
    """Requests of a closed loop that are sent per second, each as another one ends, which need not count."""
    arrival_s = done.served.requests.arrival_s
    lasted_s = float(arrival_s[-1] - arrival_s[0])
    return (arrival_s.size - 1) / lasted_s if lasted_s > 0.0 else 0.0


def _room(model: ServerModel | PoolsModel, requests: Requests) -> int:
    """Requests that take all seats, or all of the cache."""
    sides = (model.prefill, model.decode) if isinstance(model, PoolsModel) else (model,)
    of_cache = [side.limits.kv_tokens / float(requests.prompt.mean()) for side in sides]
    of_rank = [max(int(min(side.limits.max_num_seqs, most)), 1) for side, most in zip(sides, of_cache, strict=True)]
    return sum(own * side.table.ranks * side.replicas for side, own in zip(sides, of_rank, strict=True))
