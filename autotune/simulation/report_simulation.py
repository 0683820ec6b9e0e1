"""What a simulation of one plan shows: percentiles, what limits it, its timeline, where limits break."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from autotune.disaggregated.rescore import rescored
from autotune.scoring.limits import SERVED_WITHIN
from autotune.scoring.plan_result import PlanResult
from autotune.simulation.goodput import capacity_per_s, goodput, is_full, served_per_s
from autotune.simulation.held_back import held_back
from autotune.simulation.percentile_limits import PercentileLimit, mean_limits, percentile_limits, request_bounds
from autotune.simulation.simulate_plan import PlanSimulation, Traffic, at_rate, simulate_plan, study_traffic
from autotune.study import Study, own_option_sentence, started_with
from costmodel.simulation.forecast import LATENCIES, STATISTICS, Likely
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.simulate import Simulated

TIMELINE_POINTS = 120
CDF_POINTS = 101
IN_STEP = (
    "all requests are of one length and stay in step, which moves TTFT and throughput: give isl and osl as ranges "
    "where yours vary"
)
"""Of a closed loop whose requests begin and end together from the first to the last."""
SWEEP_POINTS = 64
"""Rates that the load is looked for among at which a limit breaks, in equal steps up to what a plan serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakingLoad:
    """Where a limit breaks as more requests come."""

    code: str
    limit: float
    unit: str
    rate_per_s: float | None
    """The highest rate at which it was found kept, at most what the plan serves; None: it breaks at any."""


def limits_of_requests(study: Study) -> tuple[PercentileLimit, ...]:
    """The limits that are held against requests: percentiles, and means unless single requests have to keep them."""
    of_shares = (limit for limit in percentile_limits(study) if limit.statistic != "mean")
    return (*of_shares, *(replace(limit, code=limit.key) for limit in mean_limits(study)))


def simulation_document(study: Study, plan: PlanResult, traffic: Traffic, found: PlanSimulation) -> dict[str, Any]:
    """Everything that `autotune simulate` says, as one document; latencies in seconds."""
    forecast, limits = found.forecast, limits_of_requests(study)
    done = forecast.expected
    share = forecast.attainment(**request_bounds(study))
    served = served_per_s(traffic, found)
    # where no queue grows at the rate that comes, that is served, whatever a closed loop does
    full_per_s = max(capacity_per_s(found), served)
    with_times = found.traffic.serve(found.part.paced(forecast.errors.pace), timeline=True)
    full, good = is_full(traffic, served), min(goodput(study, traffic, forecast, gpus=1).value, served)
    return {
        "study": study.name,
        "plan": plan.plan,
        "feasible": True,
        "knobs": _knobs(study, plan),
        "traffic": {
            "requests": len(done.served.requests),
            "rate_per_s": traffic.rate_per_s,
            "concurrency": traffic.concurrency if traffic.rate_per_s is None else None,
            "arrival_cv": None if traffic.rate_per_s is None or traffic.recorded else study.workload.arrival_cv,
            "recorded": traffic.recorded,
            "served_by": _served_by(found),
            "mean_prompt": float(done.served.requests.prompt.mean()),
            "longest_prompt": study.workload.longest_prompt,
            "longest_prompt_quantile": 0.99 if study.workload.points else 1.0,
            "prefix_cache_hit_frac": float(
                done.served.requests.cached.sum() / max(done.served.requests.prompt.sum(), 1)
            ),
        },
        "latencies": {
            name: {statistic: asdict(forecast.latency(name, statistic)) for statistic in STATISTICS}
            for name in LATENCIES
        },
        "limits": [
            {
                "code": limit.code,
                "limit": limit.limit,
                "unit": limit.unit,
                **_scaled(figure := limit.figure(forecast), limit.factor),
                "kept": limit.kept(figure),
                "p_kept": limit.p_kept(figure),
            }
            for limit in limits
        ],
        "full": full,
        "kept": not full and all(limit.kept(limit.figure(forecast)) for limit in limits),
        "attainment": asdict(share),
        "request_bounds": request_bounds(study),
        "served_requests_per_s": served,
        "goodput_requests_per_s": good,
        "goodput_requests_per_s_per_gpu": good / plan.metrics["gpus"],
        "utilisation": found.utilisation,
        "preemptions": found.preemptions,
        "limited_by": _limited_by(found, limits, with_times, full=full),
        "breaking_loads": [asdict(x) for x in breaking_loads(study, plan, traffic, found, full_per_s=full_per_s)],
        "cdf": {name: _cdf(found, name) for name in ("ttft", "tpot")},
        "timeline": _timeline(with_times, found.alike),
        "assumptions": [
            *([IN_STEP] if _stays_in_step(traffic, found) else []),
            *study.assumptions,
            *(f"plan: {text}" for text in own_option_sentence(study, plan.own_options)),
        ],
    }


def _stays_in_step(traffic: Traffic, found: PlanSimulation) -> bool:
    """Whether each request of a closed loop takes as long as those beside it, so that they go on as they began."""
    if traffic.rate_per_s is not None or traffic.recorded:
        return False
    servers = 1 if isinstance(found.model, PoolsModel) else found.model.replicas
    lengths = traffic.requests.prompt, traffic.requests.output
    return (traffic.concurrency or 1) > servers and all(int(each.min()) == int(each.max()) for each in lengths)


def _served_by(found: PlanSimulation) -> str:
    """Which part of the plan was simulated; empty: all of it."""
    part, model = found.part, found.model
    if isinstance(part, PoolsModel) and isinstance(model, PoolsModel) and found.alike > 1.0:
        sides = ((part.prefill, model.prefill), (part.decode, model.decode))
        prefill, decode = (f"{few.replicas} of {all_of_them.replicas}" for few, all_of_them in sides)
        return f"{prefill} prefill and {decode} decode workers"
    return f"{part.replicas} of {model.replicas} replicas" if found.alike > 1.0 else ""


def _knobs(study: Study, plan: PlanResult) -> dict[str, Any]:
    """What the plan was run with; of pools the token budget of the prefill pool and the seats of the decode pool."""
    own = started_with(study, plan.own_options).engine_options
    seats = own.max_num_seqs if plan.pools is None else plan.pools.decode.max_num_seqs
    knobs = plan.knobs
    return {
        "max_num_batched_tokens": knobs.max_num_batched_tokens,
        "max_num_seqs": seats,
        "weight_dtype": knobs.weight_dtype,
        "kv_dtype": knobs.kv_dtype,
    }


def breaking_loads(
    study: Study, plan: PlanResult, traffic: Traffic, found: PlanSimulation, *, full_per_s: float
) -> list[BreakingLoad]:
    """For each limit the highest rate at which it is kept, between none and what the plan serves.

    At more a limit only seems to be kept, until the servers have filled: no queue has formed yet. What was `found` at
    the traffic's own rate counts too: where batches end in lock step, more can be served quicker than less. Of sessions
    caches find the less the more of them there are, so that a plan serves more where fewer come.
    Steps are as long at each rate as with the requests that are in flight at it, whatever rate is asked about: one
    launch has one breaking load.
    """
    sessions, rate_per_s = study.workload.sessions is not None, traffic.rate_per_s
    most = max(full_per_s, rate_per_s or 0.0) if sessions else full_per_s
    rates = [most * k / SWEEP_POINTS for k in range(SWEEP_POINTS + 1)]

    @cache
    def at(place: int) -> tuple[PlanSimulation, bool]:
        own = at_rate(study, rates[place])
        asked = study_traffic(own)
        simulation = simulate_plan(own, rescored(own, plan), asked, with_range=False)
        return simulation, sessions and is_full(asked, served_per_s(asked, simulation))

    def kept(limit: PercentileLimit, simulation: PlanSimulation, full: bool) -> bool:
        return limit.kept(limit.figure(simulation.forecast)) and not full

    known = found, sessions and is_full(traffic, served_per_s(traffic, found))
    out = []
    for limit in limits_of_requests(study):
        low, high, at_least = 0, SWEEP_POINTS + 1, 0.0
        if rate_per_s is not None and rate_per_s <= most:
            if kept(limit, *known):
                low, at_least = bisect_right(rates, rate_per_s) - 1, rate_per_s
            else:
                high = bisect_left(rates, rate_per_s)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if kept(limit, *at(middle)) else (low, middle)
        highest = max(rates[low], at_least)
        out.append(BreakingLoad(code=limit.code, limit=limit.limit, unit=limit.unit, rate_per_s=highest or None))
    return out


def _scaled(likely: Likely, factor: float) -> dict[str, float]:
    return {"value": likely.value * factor, "likely_low": likely.low * factor, "likely_high": likely.high * factor}


def _limited_by(found: PlanSimulation, limits: Sequence[PercentileLimit], with_times: Simulated, *, full: bool) -> str:
    """What limits the plan under this traffic, in one sentence; `with_times` has the timeline of its requests."""
    if full:
        return "The plan is full: more requests come than it serves, and the queue in front of it grows."
    if found.preemptions:
        there = f" on {part}" if (part := _served_by(found)) else ""
        return f"KV cache runs out: {found.preemptions:,} requests were thrown out and computed again{there}."
    if waiting := held_back(found, with_times):
        return waiting
    broken = [limit for limit in limits if not limit.kept(limit.figure(found.forecast))]
    if any(limit.code == SERVED_WITHIN for limit in broken):
        return "No request is within the limits although the plan serves all that comes."
    if broken:
        return f"{broken[0].title} breaks its limit although the plan serves all that comes."
    return "Nothing limits it yet: the plan serves all that comes, and every limit has room."


def _cdf(found: PlanSimulation, name: str) -> list[list[float]]:
    """Share of requests and the seconds that it takes at most."""
    served, first = found.forecast.expected.served, found.forecast.errors.first
    values = served.ttft_s * first if name == "ttft" else served.tpot_s[served.requests.output > 1]
    if values.size == 0:
        return []
    shares = np.linspace(0.0, 1.0, CDF_POINTS)
    return [[float(s), float(v)] for s, v in zip(shares, np.quantile(values, shares), strict=True)]


def _timeline(done: Simulated, alike: float) -> list[dict[str, float]]:
    """Requests that decode and that wait, and cache tokens held, over all replicas, at equal distances in time.

    The plan is `alike` times the part that was simulated.
    """
    if not done.timeline:
        return []
    end = max(float(events[-1, 0]) for events in done.timeline if events.size)
    times = np.linspace(0.0, end, TIMELINE_POINTS)
    total = np.zeros((TIMELINE_POINTS, 3))
    for events in done.timeline:
        if events.size:
            at = np.searchsorted(events[:, 0], times, side="right") - 1
            total += alike * np.where(at[:, None] >= 0, events[np.maximum(at, 0), 1:], 0.0)
    return [
        {"time_s": float(t), "decoding": float(a), "waiting": float(b), "kv_tokens": float(c)}
        for t, (a, b, c) in zip(times, total, strict=True)
    ]
