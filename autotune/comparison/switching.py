"""The switch itself: what restarts, what is loaded from where, what serves meanwhile, and when it has paid.

A rolling change, replica by replica: some replicas of the current plan go down, as many as one replica of the
candidate needs GPUs at least; those drain, their GPUs load weights, start and warm up; then the next. Of the numbers at
once that the study allows, the one is taken that turns the fewest requests away: one by one where what remains can
serve the load, more where the current plan cannot serve it anyway. GPUs are counted, not placed: the freed ones are
taken to suit the replicas that start on them.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from autotune.comparison.values import SwitchCost, Wave
from autotune.comparison.worth import gain_over
from autotune.study import Study
from autotune.study.operation import DEFAULT_DOWN_FRAC
from autotune.tuning import PlanResult
from autotune.tuning.candidates import weights
from costmodel.arch.params import weight_bytes
from costmodel.layout import Layout

WEIGHT_KINDS = (
    "attention",
    "dense_ffn",
    "router",
    "experts",
    "shared_experts",
    "norms",
    "embedding",
    "lm_head",
)


def same_launch(current: PlanResult, candidate: PlanResult) -> bool:
    """Whether both are started by the same command: they differ at most in how many requests are let in."""
    mine, other = current.knobs, candidate.knobs
    return (
        current.plan == candidate.plan
        and mine.max_num_batched_tokens == other.max_num_batched_tokens
        and mine.weight_dtype == other.weight_dtype
        and mine.kv_dtype == other.kv_dtype
    )


def weight_bytes_per_gpu(plan: PlanResult) -> float:
    """Weights on the GPU that fills first."""
    memory = plan.breakdown["memory_bytes"]
    return float(sum(memory.get(kind, 0.0) for kind in WEIGHT_KINDS))


def longest_request_s(study: Study, plan: PlanResult) -> float:
    """From arrival to the last token, of the longest prompt with the longest output."""
    return plan.metrics["ttft_longest_s"] + max(study.workload.osl.max - 1, 0) * plan.metrics["tpot_s"]


def load_s(study: Study, plan: PlanResult, *, gpus: int, peers: bool) -> float:
    """Seconds until `gpus` starting GPUs hold their weights. `peers`: whether a replica runs to read them from.

    Storage is read once per node, no more than the whole checkpoint; a peer sends each GPU its own share.
    """
    switch, each = study.switch, weight_bytes_per_gpu(plan)
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
    values: tuple[float, float],
    load_requests_per_s: float,
) -> SwitchCost:
    """What the change takes.

    Args:
        study: with its `switch` table.
        current: the plan that runs.
        candidate: the plan to change to.
        capacities: requests per second that the current plan and the candidate can serve, all replicas.
        values: what both are worth per second (`worth.value_per_s`).
        load_requests_per_s: what arrives meanwhile.
    """
    restart = not same_launch(current, candidate)
    drain = longest_request_s(study, current)
    if study.switch.drain_s is not None:
        drain = min(drain, study.switch.drain_s)
    startup, warmup = study.switch.startup_s[candidate.engine], study.switch.warmup_s
    waves: tuple[Wave, ...] = ()
    if restart:
        most = _most_down(study, current.layout.replicas)
        tried = [_waves(study, current, candidate, capacities, drain, down) for down in range(1, most + 1)]
        waves = min(tried, key=lambda w: _without_room(w, load_requests_per_s))
    # what the current plan turns away anyway is not lost by the change
    served = min(load_requests_per_s, capacities[0])
    idle = _idle_gpu_s(current, candidate, waves)
    price = study.cluster.gpu.price_per_hour
    each = weight_bytes_per_gpu(candidate)
    gpus = round(candidate.metrics["gpus"]) if restart else 0
    first = waves[0].replicas_started if waves else 0
    cost = SwitchCost(
        restart=restart,
        gpus_restarted=gpus,
        weight_bytes=each * gpus,
        weight_bytes_per_gpu=each,
        weights_from=study.switch.weights_from,
        load_s=load_s(study, candidate, gpus=first * _replica_gpus(candidate.layout), peers=_served(waves))
        if restart
        else 0.0,
        startup_s=startup if restart else 0.0,
        warmup_s=warmup if restart else 0.0,
        drain_s=drain if restart else 0.0,
        replicas_down_at_once=max((w.replicas_down for w in waves), default=0),
        waves=waves,
        requests_drained=current.knobs.concurrency if restart else 0,
        load_requests_per_s=load_requests_per_s,
        served_requests_per_s=served,
        lost_requests=_without_room(waves, served),
        gpu_s=idle,
        price=None if price is None else idle / 3600.0 * price,
        payback_s=None,
    )
    gain = gain_over(
        current_per_s=values[0],
        candidate_per_s=values[1],
        horizon_s=study.retune.horizon_s,
        duration_s=cost.duration_s,
        loss=cost.loss(values[0]),
    )
    return replace(cost, payback_s=gain.payback_s)


def _served(waves: tuple[Wave, ...]) -> bool:
    """Whether some replica runs while the first ones start."""
    return bool(waves) and waves[0].capacity_requests_per_s > 0.0


def _replica_gpus(layout: Layout) -> int:
    return layout.pp * layout.width


def _most_down(study: Study, replicas: int) -> int:
    """Replicas that may be down at once, at least one."""
    given = study.switch.max_replicas_down
    return max(min(int(replicas * DEFAULT_DOWN_FRAC) if given is None else given, replicas), 1)


def _without_room(waves: tuple[Wave, ...], requests_per_s: float) -> float:
    """Of so many requests per second, those beyond the capacity of what serves meanwhile."""
    return sum(max(requests_per_s - w.capacity_requests_per_s, 0.0) * w.duration_s for w in waves)


def _plan_gpus(layout: Layout) -> int:
    return layout.replicas * _replica_gpus(layout)


def _waves(
    study: Study,
    current: PlanResult,
    candidate: PlanResult,
    capacities: tuple[float, float],
    drain_s: float,
    at_once: int,
) -> tuple[Wave, ...]:
    """The change with so many replicas of the current plan down at once."""
    old_size, new_size = _replica_gpus(current.layout), _replica_gpus(candidate.layout)
    old_each = capacities[0] / current.layout.replicas
    new_each = capacities[1] / candidate.layout.replicas
    old, new = current.layout.replicas, 0
    # a candidate on more GPUs than run today starts on those that are added first
    free = max(_plan_gpus(candidate.layout) - _plan_gpus(current.layout), 0)
    started_s = study.switch.startup_s[candidate.engine] + study.switch.warmup_s
    out: list[Wave] = []
    while new < candidate.layout.replicas:
        needed = ceil((new_size - free) / old_size)
        down = min(old, max(at_once, needed)) if needed > 0 else 0
        old -= down
        free += down * old_size
        started = min(free // new_size, candidate.layout.replicas - new)
        free -= started * new_size
        serving = old * old_each + new * new_each
        loading = load_s(study, candidate, gpus=started * new_size, peers=serving > 0.0)
        out.append(
            Wave(
                replicas_down=down,
                replicas_started=started,
                duration_s=(drain_s if down else 0.0) + loading + started_s,
                capacity_requests_per_s=serving,
            )
        )
        new += started
    return tuple(out)


def _idle_gpu_s(current: PlanResult, candidate: PlanResult, waves: tuple[Wave, ...]) -> float:
    """GPU-seconds of GPUs that are part of no serving replica."""
    old, new, total = current.layout.replicas, 0, 0.0
    gpus = max(_plan_gpus(current.layout), _plan_gpus(candidate.layout))
    for wave in waves:
        old -= wave.replicas_down
        serving = old * _replica_gpus(current.layout) + new * _replica_gpus(candidate.layout)
        total += (gpus - serving) * wave.duration_s
        new += wave.replicas_started
    return total
