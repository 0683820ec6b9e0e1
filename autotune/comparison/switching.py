"""The switch itself: what restarts, what is loaded from where, what serves meanwhile, and when it has paid.

A rolling change, replica by replica: some replicas of the current plan go down, as many as one replica of the
candidate needs GPUs at least; those drain, their GPUs load weights, start and warm up; then the next. Of the numbers at
once that the study allows, the one is taken that turns the fewest requests away: one by one where what remains can
serve the load, more where the current plan cannot serve it anyway. GPUs are counted, not placed: the freed ones are
taken to suit the replicas that start on them. Workers of a pool that both plans have alike go on: where the ratio of
the pools changes, only those beyond it stop and start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf

from autotune.comparison.replicas_in_transition import Fleets, Replica, fleet_of, gpus_of
from autotune.comparison.values import SwitchCost, Wave
from autotune.space.pool_plan import ROLES
from autotune.study import Study
from autotune.study.operation import DEFAULT_DOWN_FRAC
from autotune.tuning import PlanResult
from costmodel.arch import stored_in, weight_bytes


def longest_request_s(study: Study, plan: PlanResult) -> float:
    """From arrival to the last token, of the longest prompt with the longest output."""
    return plan.metrics["ttft_longest_s"] + max(study.workload.osl.max - 1, 0) * plan.metrics["tpot_s"]


def load_s(study: Study, plan: PlanResult, starting: Sequence[Replica], *, peers: bool) -> float:
    """Seconds until replicas of a plan hold their weights. `peers`: whether a replica runs to read them from.

    Storage is read once per node, no more than the whole checkpoint; a peer sends each GPU its own share. Where
    replicas of both pools start together, every GPU is taken to hold as much as the fuller ones.
    """
    switch, gpus = study.switch, sum(r.gpus for r in starting)
    each = max((r.weight_bytes for r in starting), default=0.0)
    if switch.weights_from == "peer" and peers:
        return each / switch.peer_bytes_per_s
    whole = weight_bytes(stored_in(study.arch, plan.knobs.weight_dtype))
    of_node = next(
        (c.gpus_per_node for c in study.axes.gpu_types if c.gpu.name == plan.gpu), study.cluster.gpus_per_node
    )
    per_node = min(each * min(gpus, of_node), max(whole, each))
    return per_node / switch.storage_bytes_per_s


def switch_cost(
    study: Study,
    current: PlanResult,
    candidate: PlanResult,
    *,
    capacities: tuple[float, float],
    load_requests_per_s: float,
) -> SwitchCost:
    """What the change takes.

    `capacities`: requests per second that the current plan and the candidate can serve, all replicas.
    """
    restart = current.launch != candidate.launch
    old, new = (fleet_of(study, p, most) for p, most in zip((current, candidate), capacities, strict=True))
    fleets = Fleets.of(old, new)
    startup, warmup = study.switch.startup_s[candidate.engine], study.switch.warmup_s
    waves: tuple[Wave, ...] = ()
    if restart:
        most, drains = _most_down(study, len(old)), drains_s(study, current)
        tried = [_waves(study, candidate, fleets, drains, down) for down in range(1, most + 1)]
        waves = min(tried, key=lambda w: _without_room(w, load_requests_per_s))
    # what the current plan turns away anyway is not lost by the change
    served = min(load_requests_per_s, capacities[0])
    idle = _idle_gpu_s(fleets, waves)
    types = (study.cluster, *study.axes.gpu_types, *study.axes.other_gpus)
    prices = {c.gpu.name: c.gpu.price_per_hour for c in types}
    costs = [None if (each := prices.get(gpu)) is None else each * s / 3600.0 for gpu, s in idle.items()]
    starting = fleets.new if restart else ()
    first = starting[: waves[0].replicas_started] if waves else ()
    others_run = bool(waves) and waves[0].capacity_requests_per_s > 0.0
    return SwitchCost(
        restart=restart,
        gpus_restarted=sum(r.gpus for r in starting),
        weight_bytes=sum(r.gpus * r.weight_bytes for r in starting),
        weight_bytes_per_gpu=max(r.weight_bytes for r in new),
        weights_from=study.switch.weights_from,
        load_s=load_s(study, candidate, first, peers=others_run) if restart else 0.0,
        startup_s=startup if restart else 0.0,
        warmup_s=warmup if restart else 0.0,
        drain_s=max((drains[r.role] for r in fleets.old), default=0.0) if restart else 0.0,
        replicas_down_at_once=max((w.replicas_down for w in waves), default=0),
        waves=waves,
        requests_drained=round(current.knobs.concurrency * len(fleets.old) / len(old)) if restart else 0,
        load_requests_per_s=load_requests_per_s,
        served_requests_per_s=served,
        lost_requests=_without_room(waves, served),
        gpu_s=sum(idle.values()),
        price=None if None in costs else sum(c for c in costs if c is not None),
    )


def _most_down(study: Study, replicas: int) -> int:
    """Replicas that may be down at once, at least one."""
    given = study.switch.max_replicas_down
    return max(min(int(replicas * DEFAULT_DOWN_FRAC) if given is None else given, replicas), 1)


def _without_room(waves: tuple[Wave, ...], requests_per_s: float) -> float:
    """Of so many requests per second, those beyond the capacity of what serves meanwhile."""
    return sum(max(requests_per_s - w.capacity_requests_per_s, 0.0) * w.duration_s for w in waves)


def drains_s(study: Study, plan: PlanResult) -> dict[str, float]:
    """Seconds in which a replica ends what it has begun, by its pool; of a replica that does both, a whole request."""
    whole, prefill = longest_request_s(study, plan), plan.metrics["ttft_longest_s"]
    most = inf if study.switch.drain_s is None else study.switch.drain_s
    return {role: min(s, most) for role, s in zip(("", *ROLES), (whole, prefill, whole - prefill), strict=True)}


def _waves(
    study: Study, candidate: PlanResult, fleets: Fleets, drains_s: Mapping[str, float], at_once: int
) -> tuple[Wave, ...]:
    """The change with so many replicas of the current plan down at once."""
    old, new = fleets.old, fleets.new
    runs, started = len(old), 0
    # a candidate on more GPUs than run today starts on those that are added first
    free = gpus_of(new) - gpus_of(old)
    started_s = study.switch.startup_s[candidate.engine] + study.switch.warmup_s
    out: list[Wave] = []
    while started < len(new):
        down = 0
        while (runs and not _fits(new[started], free)) or 0 < down < min(at_once, runs + down):
            runs, down = runs - 1, down + 1
            free[old[runs].gpu] += old[runs].gpus
        serving, first = fleets.requests_per_s(runs, started), started
        while started < len(new) and _fits(new[started], free):
            free[new[started].gpu] -= new[started].gpus
            started += 1
        loading = load_s(study, candidate, new[first:started], peers=serving > 0.0)
        drain = max((drains_s[r.role] for r in old[runs : runs + down]), default=0.0)
        out.append(
            Wave(
                replicas_down=down,
                replicas_started=started - first,
                duration_s=drain + loading + started_s,
                capacity_requests_per_s=serving,
            )
        )
    return tuple(out)


def _fits(replica: Replica, free: Counter[str]) -> bool:
    return free[replica.gpu] >= replica.gpus


def _idle_gpu_s(fleets: Fleets, waves: tuple[Wave, ...]) -> dict[str, float]:
    """GPU-seconds, by type, of GPUs that are part of no serving replica."""
    old, new = fleets.old, fleets.new
    runs, started = len(old), 0
    gpus = gpus_of(old) | gpus_of(new)
    total = dict.fromkeys(gpus, 0.0)
    for wave in waves:
        runs -= wave.replicas_down
        serving = gpus_of(old[:runs]) + gpus_of(new[:started])
        for gpu, count in gpus.items():
            total[gpu] += (count - serving[gpu]) * wave.duration_s
        started += wave.replicas_started
    return total
