"""Plans as what a day scales: the load that one replica takes within the limits, at every time of the day.

Two say how much that is, and the lesser counts: the closed form that `tune` ranks by, for the lengths of each time of
day, and a simulation of one replica that serves requests of the log, which knows of bursts and of percentiles. Of a
disaggregated plan each pool has its own figure, and what is simulated is a few workers of both that suit each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.comparison.best import POOLED_SHORTLIST, SHORTLIST, at_capacity, capacity_study
from autotune.comparison.capacity import drawn_capacities
from autotune.comparison.replicas_in_transition import fleet_of
from autotune.comparison.robustness import rescored_each
from autotune.comparison.switching import drains_s, load_s
from autotune.planning.day_program import REPLICA, Kinds, ReplicaKind
from autotune.planning.loads import DayLoads
from autotune.scoring.best_knobs import score
from autotune.scoring.plan_order import rank
from autotune.simulation.draw_requests import recorded_requests, study_requests
from autotune.simulation.report_simulation import limits_of_requests
from autotune.simulation.simulate_plan import PlanSimulation, Traffic, simulate_plan
from autotune.space.pool_plan import ROLES
from autotune.study import Study, in_place
from autotune.traffic.profile import WorkloadProfile
from autotune.traffic.workload import with_traffic
from autotune.tuning import PlanResult, tune
from costmodel.errors import InputError
from costmodel.plan.columns import Floats, Ints
from costmodel.plan.layout import Layout
from costmodel.simulation.forecast import forecast
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.requests import Requests, arrivals

SIMULATED_REQUESTS = 1000
HALVINGS = 5
"""Of the rate at which a simulated replica's limits break: to 1 part in 32."""
SEED = 23
WARM_UP_FRAC = 0.2
MOST_WORKERS = 4
"""Of each pool, in the simulation of a few that suit each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledPlan:
    """One plan that may run in a day."""

    result: PlanResult
    """On the whole cluster."""
    kinds: Kinds
    """What is scaled of it: its replicas, or the workers of its prefill and of its decode pool."""
    simulated_frac: float
    """What a simulated replica takes within the limits, over what the closed form says; at most 1 counts."""
    capacity_log_sd: float
    """How sure the capacity is: spread of its logarithm over the calibration's errors."""
    simulation: PlanSimulation
    """Of one of its replicas, or of one worker of each pool."""

    @property
    def roles(self) -> tuple[str, ...]:
        """Of the kinds: `replica`, or those of the pools."""
        return (REPLICA,) if self.result.pools is None else ROLES

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Of one of each kind."""
        return tuple(replace(layout, replicas=1) for layout in _layouts(self.result))


def scaled_plans(study: Study, loads: DayLoads, *, wanted: int, load_per_s: Floats) -> tuple[ScaledPlan, ...]:
    """The plans that are worth scaling through a day, the best alone first.

    The first takes the fewest GPU-hours if it runs all day; each further one is what saves most beside those before,
    if a change cost nothing, or else what is next best alone: the closed form has not the last word.

    The study's cluster is the most that may run; at most `wanted` plans; `load_per_s`: of each step, shape `(steps,)`.

    Raises:
        InputError: no plan keeps the limits at any load.
    """
    profiles, mix = loads.mixes()
    means = on_means(study)
    whole = with_traffic(means, _whole(profiles), load="mean")
    asked = capacity_study(replace(in_place(whole, pools=True), baseline=None))
    found = [plan for plan in _ranked(asked) if plan.metrics["requests_per_s"] > 0.0]
    if not found:
        raise InputError.single("STUDY", "no plan keeps the limits on such traffic at any load")
    held = np.array(
        [
            sum(
                np.ceil(load_per_s / each - 1e-9) * layout.pp * layout.width
                for each, layout in zip(_each_per_s(plan), _layouts(plan), strict=True)
            )
            for plan in found
        ]
    )
    chosen = _cheapest_together(np.where(held > study.cluster.gpus, held * 1e6, held), wanted)
    plans = [found[i] for i in chosen]
    drawn = drawn_capacities(asked, plans)
    requests = sampled_requests(loads, whole.workload.prefix_cache_hit_frac, whole.workload.arrival_cv)
    return tuple(
        _scaled(means, study, plan, profiles, mix, requests, capacities=drawn[row]) for row, plan in enumerate(plans)
    )


def _ranked(asked: Study) -> tuple[PlanResult, ...]:
    """The plans that keep the limits at some load, best first, as looked at with every kind of request."""
    rough = tune(replace(asked, workload=replace(asked.workload, points=()))).ranked
    whole = [p.candidate for p in rough if p.pools is None][:SHORTLIST]
    pooled = _shapes([p for p in rough if p.pools is not None])[:POOLED_SHORTLIST]
    ranked, _ = rank(asked, [*(score(asked, whole) if whole else []), *rescored_each(asked, pooled)])
    return tuple(ranked)


def _shapes(plans: Sequence[PlanResult]) -> list[PlanResult]:
    """The first plan of each kind of workers: what scales has no split of the GPUs of its own."""
    first: dict[object, PlanResult] = {}
    for plan in plans:
        first.setdefault((plan.engine, *(replace(layout, replicas=1) for layout in _layouts(plan))), plan)
    return list(first.values())


def _layouts(plan: PlanResult) -> tuple[Layout, ...]:
    """Of its replicas, or of both pools."""
    return (plan.layout,) if plan.pools is None else (plan.pools.prefill.layout, plan.pools.decode.layout)


def _each_per_s(plan: PlanResult) -> tuple[float, ...]:
    """Requests per second that one replica, or one worker of each pool, takes within the limits."""
    if plan.pools is None:
        return (plan.metrics["requests_per_s"] / plan.layout.replicas,)
    return tuple(pool.requests_per_s / pool.layout.replicas for pool in (plan.pools.prefill, plan.pools.decode))


def on_means(study: Study) -> Study:
    """The study with `Constraints.on_means`."""
    return replace(study, constraints=study.constraints.on_means())


def sampled_requests(loads: DayLoads, hit_frac: float, arrival_cv: float) -> Requests:
    """Requests of the log in random order, one per second: lengths as recorded, gaps as the study has them."""
    held, random = loads.requests, np.random.default_rng(SEED)
    index = random.integers(0, held.times_s.size, SIMULATED_REQUESTS)
    cached = None if held.cached is None else held.cached[index].astype(np.int64)
    times = arrivals(SIMULATED_REQUESTS, 1.0, arrival_cv, random)
    return recorded_requests(
        times, held.prompt[index].astype(np.int64), held.output[index].astype(np.int64), cached, hit_frac
    )


def _whole(profiles: Sequence[WorkloadProfile]) -> WorkloadProfile:
    """The kind of traffic that holds most requests stands for the day where one is looked for."""
    return max(profiles, key=lambda profile: profile.num_requests)


def _cheapest_together(held: Floats, wanted: int) -> list[int]:
    """Rows of GPUs held in each step, chosen one after the other to make the sum of the least of each step small."""
    chosen = [int(held.sum(axis=1).argmin())]
    alone = held.sum(axis=1)
    while len(chosen) < min(wanted, alone.size):
        least = held[chosen].min(axis=0)
        saved = np.maximum(least[None, :] - held, 0.0).sum(axis=1)
        others = [i for i in range(alone.size) if i not in chosen]
        chosen.append(min(others, key=lambda i: (-saved[i], alone[i])))
    return chosen


def _scaled(  # noqa: PLR0913  # what replicas are counted for
    study: Study,
    limited: Study,
    plan: PlanResult,
    profiles: Sequence[WorkloadProfile],
    mix: Ints,
    requests: Requests,
    *,
    capacities: Floats,
) -> ScaledPlan:
    """One plan with its capacity at every kind of traffic. `study` has limits on means, `limited` those on requests."""
    whole = with_traffic(study, _whole(profiles), load="mean")
    simulation, closed = one_replica(whole, plan), _each_per_s(plan)
    few = np.array(_few_that_suit(closed))
    most = float((few * closed).min())
    share = replica_rate_per_s(_of_workers(simulation, few), limited, requests, most) / most
    at = [at_capacity(with_traffic(study, profile, load="mean"), plan) for profile in profiles]
    each = np.array([np.zeros(few.size) if p is None else _each_per_s(p) for p in at])
    fleet, drain = fleet_of(study, plan), drains_s(whole, plan)
    started_s = study.switch.startup_s[plan.engine] + study.switch.warmup_s
    kinds = []
    for side, role in enumerate(ROLES if plan.pools else ("",)):
        one = next(replica for replica in fleet if replica.role == role)
        kinds.append(
            ReplicaKind(
                gpus=one.gpus,
                start_s=load_s(study, plan, (one,), peers=True) + started_s,
                drain_s=drain[role],
                capacity_per_s=(each[:, side] * min(share, 1.0))[mix],
            )
        )
    positive = capacities[capacities > 0.0]
    return ScaledPlan(
        result=plan,
        kinds=tuple(kinds),
        simulated_frac=share,
        capacity_log_sd=float(np.log(positive).std()) if positive.size else 0.0,
        simulation=simulation,
    )


def _few_that_suit(each_per_s: Sequence[float]) -> tuple[int, ...]:
    """As few workers of both pools as take about the same; of one kind of replica one."""
    if len(each_per_s) == 1:
        return (1,)
    prefill, decode = each_per_s
    pairs = [(p, d) for p in range(1, MOST_WORKERS + 1) for d in range(1, MOST_WORKERS + 1)]
    return min(
        pairs, key=lambda pair: (round(abs(float(np.log(pair[0] * prefill / (pair[1] * decode)))), 2), sum(pair))
    )


def one_replica(study: Study, plan: PlanResult) -> PlanSimulation:
    """A simulation of the plan, cut down to one replica or worker, with one request: for its model and its errors."""
    one = np.ones(1, dtype=np.int64)
    nothing = Requests(arrival_s=np.zeros(1), prompt=one, cached=one * 0, output=one)
    traffic = Traffic(requests=nothing, rate_per_s=1.0, concurrency=None, counted_from=0, recorded=True)
    return _of_workers(simulate_plan(study, plan, traffic, with_range=False), (1, 1))


def _of_workers(simulation: PlanSimulation, counts: Sequence[int] | Ints) -> PlanSimulation:
    """The same with so many replicas, or workers of each pool."""
    model = simulation.model
    if not isinstance(model, PoolsModel):
        return replace(simulation, model=replace(model, replicas=int(counts[0])))
    prefill, decode = (replace(s, replicas=int(n)) for s, n in zip((model.prefill, model.decode), counts, strict=True))
    return replace(simulation, model=replace(model, prefill=prefill, decode=decode))


def replica_rate_per_s(simulation: PlanSimulation, study: Study, requests: Requests, most_per_s: float) -> float:
    """The highest rate up to one at which a simulated replica keeps every limit on requests.

    Args:
        simulation: of `one_replica`.
        study: with the limits.
        requests: arriving at one per second.
        most_per_s: what the closed form says, which is not exceeded.
    """
    limits = limits_of_requests(study)
    count = int(WARM_UP_FRAC * len(requests))
    errors, model = replace(simulation.forecast.errors, pace_log_sd=0.0), simulation.model

    def kept(rate: float) -> bool:
        sooner = replace(requests, arrival_s=requests.arrival_s / rate)
        traffic = Traffic(requests=sooner, rate_per_s=rate, concurrency=None, counted_from=count, recorded=True)
        if isinstance(model, PoolsModel):
            found = forecast(model, errors, traffic.serve)
        else:
            found = forecast(model, errors, traffic.serve)
        return all(limit.kept(limit.figure(found)) for limit in limits)

    if not limits or kept(most_per_s):
        return most_per_s
    low, high = 0.0, most_per_s
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low


def study_sample(study: Study) -> Requests:
    """Requests as the study describes them, or of its log in random order, arriving at one per second."""
    recorded = study.workload.recorded
    drawn = study_requests(study, count=SIMULATED_REQUESTS, rate_per_s=1.0)
    if recorded is None:
        return drawn
    index = np.random.default_rng(SEED).integers(0, len(recorded), SIMULATED_REQUESTS)
    return replace(recorded.take(index), arrival_s=drawn.arrival_s)
