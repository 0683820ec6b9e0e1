"""Plans as what a day scales: the load that one replica takes within the limits, at every time of the day.

Two say how much that is, and the lesser counts: the closed form that `tune` ranks by, for the lengths of each time of
day, and a simulation of one replica that serves requests of the log, which knows of bursts and of percentiles. Of a
disaggregated plan each pool has its own figure (`worker_pairs`), and what is simulated is a few workers of both that
suit each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from autotune.comparison.best import SHORTLIST, at_capacity, capacity_study, drawn_capacities
from autotune.comparison.replicas_in_transition import fleet_of
from autotune.comparison.switching import drains_s, load_s
from autotune.planning.day_program import REPLICA, Kinds, ReplicaKind
from autotune.planning.forecast import LEAST_PER_S
from autotune.planning.loads import DayLoads
from autotune.planning.worker_pairs import WorkerPair, across_nodes, few_that_suit, fewest, worker_pairs, worker_rates
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
from costmodel.simulation.forecast import Forecast
from costmodel.simulation.pools import PoolsModel
from costmodel.simulation.requests import Requests, arrivals

SIMULATED_REQUESTS, MOST_SIMULATED = 1000, 12_000
FILLED_TIMES = 3.0
"""Times that a request takes in which requests fill a replica and do not count, and then in which others come."""
HALVINGS = 5
"""Of the rate at which a simulated replica's limits break: to 1 part in 32."""
SEED = 23
WARM_UP_FRAC = 0.2
LEAST_SHARE = 1e-3
LOOKED_AT = 6
"""Plans that are simulated before the ones that take turns are chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledPlan:
    """One plan that may run in a day."""

    result: PlanResult
    """On the whole cluster; of a disaggregated plan a few workers that take about the same."""
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
    study = across_nodes(study)
    profiles, mix = loads.mixes()
    means = on_means(study)
    whole = with_traffic(means, _whole(profiles), load="mean")
    asked = capacity_study(replace(in_place(whole, pools=True), baseline=None))
    found = [plan for plan in _ranked(asked) if plan.metrics["requests_per_s"] > 0.0]
    pairs = worker_pairs(asked, load_per_s) if asked.axes.disaggregated != "off" else []
    if not found and not pairs:
        raise InputError.single("STUDY", "no plan keeps the limits on such traffic at any load")
    held = [_held(load_per_s, _each_per_s(plan), _gpus(plan)) for plan in found] + [pair.held for pair in pairs]
    chosen = _cheapest_together(_on_cluster(held, study.cluster.gpus), max(wanted, LOOKED_AT))
    every: list[PlanResult | WorkerPair] = [*found, *pairs]
    plans = [one.few() if isinstance(one, WorkerPair) else one for one in (every[i] for i in chosen)]
    drawn = drawn_capacities(asked, plans)
    requests = sampled_requests(loads, whole.workload.prefix_cache_hit_frac, whole.workload.arrival_cv)
    scaled = [
        _scaled(means, study, plan, profiles, mix, requests, load_per_s, capacities=drawn[row])
        for row, plan in enumerate(plans)
    ]
    held = [_held(load_per_s, [k.capacity_per_s for k in s.kinds], [k.gpus for k in s.kinds]) for s in scaled]
    return tuple(scaled[i] for i in _cheapest_together(_on_cluster(held, study.cluster.gpus), wanted))


def _held(load_per_s: Floats, each_per_s: Sequence[Floats | float], gpus: Sequence[int]) -> Floats:
    """GPUs that a load takes in each step."""
    taken = [
        fewest(load_per_s, np.maximum(each, LEAST_PER_S)) * own for each, own in zip(each_per_s, gpus, strict=True)
    ]
    return np.asarray(sum(taken, np.zeros_like(load_per_s)))


def _on_cluster(held: Sequence[Floats], most: int) -> Floats:
    """GPUs of each plan and step, beyond all others where the cluster has not got them, shape `(plans, steps)`."""
    together = np.array(held)
    return np.where(together > most, together * 1e6, together)


def _ranked(asked: Study) -> tuple[PlanResult, ...]:
    """The plans of one kind of replica that keep the limits at some load, best first, under every kind of request."""
    if asked.axes.disaggregated == "only":
        return ()
    one_kind = replace(asked.axes, disaggregated="off")
    rough = tune(replace(asked, axes=one_kind, workload=replace(asked.workload, points=()))).ranked
    ranked, _ = rank(asked, score(asked, [p.candidate for p in rough[:SHORTLIST]]) if rough else [])
    return tuple(ranked)


def _gpus(plan: PlanResult) -> tuple[int, ...]:
    """GPUs of one replica, or of one worker of each pool."""
    return tuple(layout.pp * layout.width for layout in _layouts(plan))


def _layouts(plan: PlanResult) -> tuple[Layout, ...]:
    """Of its replicas, or of both pools."""
    return (plan.layout,) if plan.pools is None else (plan.pools.prefill.layout, plan.pools.decode.layout)


def _each_per_s(plan: PlanResult) -> tuple[float, ...]:
    """Requests per second that one replica, or one worker of each pool, takes at the plan's load."""
    if plan.pools is None:
        return (plan.metrics["requests_per_s"] / plan.layout.replicas,)
    return tuple(pool.requests_per_s / pool.layout.replicas for pool in (plan.pools.prefill, plan.pools.decode))


def _capacities(study: Study, plan: PlanResult, load_per_s: Floats) -> Floats:
    """What one takes at the most that keeps a study's limits, shape `(kinds, steps)`; 0 where no load does.

    Workers of pools are counted at the loads of both with which the fewest of them take what comes in each step.
    """
    if plan.pools is not None:
        return worker_rates(capacity_study(study), plan, load_per_s)
    found = at_capacity(study, plan)
    return np.full((1, load_per_s.size), 0.0 if found is None else _each_per_s(found)[0])


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
    load_per_s: Floats,
    *,
    capacities: Floats,
) -> ScaledPlan:
    """One plan with its capacity at every kind of traffic. `study` has limits on means, `limited` those on requests."""
    whole = with_traffic(study, _whole(profiles), load="mean")
    simulation, closed = one_replica(whole, plan), _each_per_s(plan)
    few = np.array(few_that_suit(closed))
    most = float((few * closed).min())
    taken_s = plan.metrics["e2e_s"]
    simulated = replica_rate_per_s(_of_workers(simulation, few), limited, requests, most, request_s=taken_s) / most
    share = min(simulated, 1.0)
    each = np.zeros((few.size, mix.size))
    for row, profile in enumerate(profiles):
        steps = np.flatnonzero(mix == row)
        own = with_traffic(study, profile, load="mean")
        each[:, steps] = share * _capacities(own, plan, load_per_s[steps] / max(share, LEAST_SHARE))
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
                capacity_per_s=each[side],
            )
        )
    positive = capacities[capacities > 0.0]
    return ScaledPlan(
        result=plan,
        kinds=tuple(kinds),
        simulated_frac=simulated,
        capacity_log_sd=float(np.log(positive).std()) if positive.size else 0.0,
        simulation=simulation,
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


def replica_rate_per_s(
    simulation: PlanSimulation, study: Study, requests: Requests, most_per_s: float, *, request_s: float
) -> float:
    """The highest rate up to one at which a simulated replica keeps every limit on requests.

    Args:
        simulation: of `one_replica`.
        study: with the limits.
        requests: arriving at one per second, over and over where they are too few to fill it.
        most_per_s: what the closed form says, which is not exceeded.
        request_s: what a request takes at that rate.
    """
    limits = limits_of_requests(study)
    filling = min(ceil(FILLED_TIMES * most_per_s * request_s), MOST_SIMULATED // 2)
    requests = _repeated(requests, 2 * filling)
    count = max(int(WARM_UP_FRAC * len(requests)), filling)
    errors, model = replace(simulation.forecast.errors, pace_log_sd=0.0), simulation.model

    def kept(rate: float) -> bool:
        sooner = replace(requests, arrival_s=requests.arrival_s / rate)
        traffic = Traffic(requests=sooner, rate_per_s=rate, concurrency=None, counted_from=count, recorded=True)
        run = traffic.serve(model.paced(errors.pace))
        found = Forecast(expected=run, quick=run, slow=run, base=run, errors=errors)
        return all(limit.kept(limit.figure(found)) for limit in limits)

    if not limits or kept(most_per_s):
        return most_per_s
    low, high = 0.0, most_per_s
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low


def _repeated(requests: Requests, least: int) -> Requests:
    """Requests that come at one per second, one time after the other, until there are so many."""
    times, place = np.divmod(np.arange(max(least, len(requests))), len(requests))
    return replace(requests.take(place), arrival_s=requests.arrival_s[place] + times * (requests.arrival_s[-1] + 1.0))


def study_sample(study: Study) -> Requests:
    """Requests as the study describes them, or of its log in random order, arriving at one per second."""
    recorded = study.workload.recorded
    drawn = study_requests(study, count=SIMULATED_REQUESTS, rate_per_s=1.0)
    if recorded is None:
        return drawn
    index = np.random.default_rng(SEED).integers(0, len(recorded), SIMULATED_REQUESTS)
    return replace(recorded.take(index), arrival_s=drawn.arrival_s)
