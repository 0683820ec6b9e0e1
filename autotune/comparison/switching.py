"""The switch itself: what restarts, what is loaded from where, what serves meanwhile, and when it has paid.

A rolling change, replica by replica: some replicas of the current plan go down, as many as one replica of the
candidate needs GPUs at least; those drain, their GPUs load weights, start and warm up; then the next. Of the numbers at
once that the study allows, the one is taken that turns the fewest requests away: one by one where what remains can
serve the load, more where the current plan cannot serve it anyway. GPUs are counted, not placed: the freed ones are
taken to suit the replicas that start on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autotune.comparison.replicas_in_transition import Fleet, Replica, fleet_of
from autotune.comparison.values import SwitchCost, Wave
from autotune.scoring.knob_grid import weights
from autotune.study import Study
from autotune.study.operation import DEFAULT_DOWN_FRAC
from autotune.tuning import PlanResult
from costmodel.arch import weight_bytes


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
    whole = weight_bytes(weights(study.arch, plan.knobs.weight_dtype))
    per_node = min(each * min(gpus, study.cluster.gpus_per_node), max(whole, each))
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

    Args:
        study: with its `switch` table.
        current: the plan that runs.
        candidate: the plan to change to.
        capacities: requests per second that the current plan and the candidate can serve, all replicas.
        load_requests_per_s: what arrives meanwhile.
    """
    restart = current.launch != candidate.launch
    old, new = fleet_of(study, current), fleet_of(study, candidate)
    drain = longest_request_s(study, current)
    if study.switch.drain_s is not None:
        drain = min(drain, study.switch.drain_s)
    startup, warmup = study.switch.startup_s[candidate.engine], study.switch.warmup_s
    waves: tuple[Wave, ...] = ()
    if restart:
        most = _most_down(study, len(old.replicas))
        tried = [_waves(study, candidate, old, new, capacities, drain, down) for down in range(1, most + 1)]
        waves = min(tried, key=lambda w: _without_room(w, load_requests_per_s))
    # what the current plan turns away anyway is not lost by the change
    served = min(load_requests_per_s, capacities[0])
    idle = _idle_gpu_s(old, new, waves)
    prices = {c.gpu.name: c.gpu.price_per_hour for c in (study.cluster, *study.axes.other_gpus)}
    costs = [None if (each := prices.get(gpu)) is None else each * s / 3600.0 for gpu, s in idle.items()]
    starting = new.replicas if restart else ()
    first = new.replicas[: waves[0].replicas_started] if waves else ()
    return SwitchCost(
        restart=restart,
        gpus_restarted=sum(r.gpus for r in starting),
        weight_bytes=sum(r.gpus * r.weight_bytes for r in starting),
        weight_bytes_per_gpu=max(r.weight_bytes for r in new.replicas),
        weights_from=study.switch.weights_from,
        load_s=load_s(study, candidate, first, peers=_served(waves)) if restart else 0.0,
        startup_s=startup if restart else 0.0,
        warmup_s=warmup if restart else 0.0,
        drain_s=drain if restart else 0.0,
        replicas_down_at_once=max((w.replicas_down for w in waves), default=0),
        waves=waves,
        requests_drained=current.knobs.concurrency if restart else 0,
        load_requests_per_s=load_requests_per_s,
        served_requests_per_s=served,
        lost_requests=_without_room(waves, served),
        gpu_s=sum(idle.values()),
        price=None if None in costs else sum(c for c in costs if c is not None),
    )


def _served(waves: tuple[Wave, ...]) -> bool:
    """Whether some replica runs while the first ones start."""
    return bool(waves) and waves[0].capacity_requests_per_s > 0.0


def _most_down(study: Study, replicas: int) -> int:
    """Replicas that may be down at once, at least one."""
    given = study.switch.max_replicas_down
    return max(min(int(replicas * DEFAULT_DOWN_FRAC) if given is None else given, replicas), 1)


def _without_room(waves: tuple[Wave, ...], requests_per_s: float) -> float:
    """Of so many requests per second, those beyond the capacity of what serves meanwhile."""
    return sum(max(requests_per_s - w.capacity_requests_per_s, 0.0) * w.duration_s for w in waves)


def _waves(
    study: Study,
    candidate: PlanResult,
    old: Fleet,
    new: Fleet,
    capacities: tuple[float, float],
    drain_s: float,
    at_once: int,
) -> tuple[Wave, ...]:
    """The change with so many replicas of the current plan down at once."""
    runs, started = len(old.replicas), 0
    # a candidate on more GPUs than run today starts on those that are added first
    free = new.gpus() - old.gpus()
    started_s = study.switch.startup_s[candidate.engine] + study.switch.warmup_s
    out: list[Wave] = []
    while started < len(new.replicas):
        down = 0
        while (runs and not _fits(new.replicas[started], free)) or 0 < down < min(at_once, runs + down):
            runs, down = runs - 1, down + 1
            free[old.replicas[runs].gpu] += old.replicas[runs].gpus
        serving = old.serving_frac[runs] * capacities[0] + new.serving_frac[started] * capacities[1]
        first = started
        while started < len(new.replicas) and _fits(new.replicas[started], free):
            free[new.replicas[started].gpu] -= new.replicas[started].gpus
            started += 1
        loading = load_s(study, candidate, new.replicas[first:started], peers=serving > 0.0)
        out.append(
            Wave(
                replicas_down=down,
                replicas_started=started - first,
                duration_s=(drain_s if down else 0.0) + loading + started_s,
                capacity_requests_per_s=serving,
            )
        )
    return tuple(out)


def _fits(replica: Replica, free: Counter[str]) -> bool:
    return free[replica.gpu] >= replica.gpus


def _idle_gpu_s(old: Fleet, new: Fleet, waves: tuple[Wave, ...]) -> dict[str, float]:
    """GPU-seconds, by type, of GPUs that are part of no serving replica."""
    runs, started = len(old.replicas), 0
    gpus = old.gpus() | new.gpus()
    total = dict.fromkeys(gpus, 0.0)
    for wave in waves:
        runs -= wave.replicas_down
        serving = old.gpus(runs) + new.gpus(started)
        for gpu, count in gpus.items():
            total[gpu] += (count - serving[gpu]) * wave.duration_s
        started += wave.replicas_started
    return total
