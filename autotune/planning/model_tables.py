"""What a model takes on every number of GPUs: tables that single studies of it make.

A plan on more GPUs is more replicas of the same kind. So one replica of every size is searched as `tune` searches a
cluster of that size, and a number of GPUs takes as many of the best size as fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.comparison.best import at_capacity, capacity_study
from autotune.planning.capacities import Capacities
from autotune.planning.replica_capacity import on_means, one_replica, replica_rate_per_s, study_sample
from autotune.scoring.best_knobs import candidate_grid, launch_grid, score, score_launches
from autotune.scoring.highest_rate import highest_rates
from autotune.scoring.knob_grid import KnobGrid
from autotune.scoring.solve_concurrency import most_within_limits
from autotune.simulation.percentile_limits import percentile_limits
from autotune.simulation.simulate_plan import PlanSimulation
from autotune.study import Study, cluster_of, in_place, on_cluster, on_throughput
from autotune.tuning import PlanResult
from autotune.tuning.study_space import study_space
from costmodel.plan.columns import Floats, Ints

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""GPUs of one replica that are looked at."""
NO_PLAN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOffer:
    """The best replica of one size."""

    gpus: int
    result: PlanResult
    """At the most requests in flight within the limits."""
    capacities: Capacities
    """Of requests that come as the study says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """A model on the GPUs of one type. Arrays have shape `(units + 1,)`."""

    offers: tuple[ReplicaOffer, ...]
    capacity_per_s: Floats
    offer: Ints
    """Which replica serves with so many units; `NO_PLAN` where nothing fits."""
    replicas: Ints


def model_table(study: Study, *, units: int, unit_gpus: int) -> ModelTable:
    """The table of one model.

    The study is about the model on all GPUs of the type; the table goes up to `units` of `unit_gpus` each.
    """
    return table_of(replica_offers(study, most_gpus=units * unit_gpus), units=units, unit_gpus=unit_gpus)


def replica_offers(study: Study, *, most_gpus: int) -> tuple[ReplicaOffer, ...]:
    """The best replica of each of `SIZES` within so many GPUs, and the load that so many take within the limits.

    Where requests come at a rate, that is the highest at which `tune` says that every limit is kept. Where single
    requests have limits, a simulated replica has the last word.
    """
    study = on_throughput(study)
    sizes = tuple(size for size in SIZES if size <= min(most_gpus, study.cluster.gpus))
    own = _of_sizes(study, sizes)
    plans = score(own, [c for c in study_space(own).candidates if c.layout.replicas == 1])
    kept = [plan for plan in plans if plan.feasible]
    best = _best_of_sizes(study, own, kept) if kept else []
    found = _capacities(study, own, best, most_gpus=most_gpus)
    return tuple(
        ReplicaOffer(gpus=one.plan.layout.gpus, result=one.plan, capacities=capacities)
        for one, capacities in zip(best, found, strict=True)
        if capacities.each_per_s[0] > 0.0
    )


def offer_capacities(study: Study, offer: ReplicaOffer, *, most_gpus: int) -> Capacities:
    """What replicas of an offer take under the limits of another study of the same model and cluster."""
    study = on_throughput(study)
    own = _of_sizes(study, (offer.gpus,))
    found = at_capacity(on_cluster(own, cluster_of(own, None, offer.gpus)), offer.result)
    if found is None:
        return replace(offer.capacities, each_per_s=np.zeros_like(offer.capacities.each_per_s))
    knobs = found.knobs
    launched = replace(
        study.search,
        max_num_batched_tokens=(knobs.max_num_batched_tokens,),
        weight_dtype=(knobs.weight_dtype,),
        kv_dtype=(knobs.kv_dtype,),
    )
    fixed = replace(study, search=launched)
    return _capacities(fixed, own, [replace(one, plan=found) for one in _alone(fixed, [found])], most_gpus=most_gpus)[0]


def how_sure(*studies: Study) -> str:
    """What it means that replicas take a load within the limits of these studies, as an assumption."""
    if any(percentile_limits(on_throughput(study)) for study in studies):
        return (
            "replicas are given as much as a simulated one keeps the limits on percentiles at, by the model's best "
            "estimate: how sure that is is not counted (`autotune evaluate` says it)"
        )
    least = " or ".join(f"{p:.0%}" for p in sorted({study.search.min_p_meets for study in studies}))
    return f"replicas are given as much as keeps every limit with a probability of {least} (search.min_p_meets)"


def offer_simulation(study: Study, offer: ReplicaOffer) -> PlanSimulation:
    """A simulation of one replica."""
    return _simulation(_of_sizes(study, (offer.gpus,)), offer.result)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alone:
    """A plan of one replica, and the requests per second that it takes within the limits."""

    plan: PlanResult
    rate_per_s: float
    """Of requests that come as the study says."""
    most_per_s: float
    """Of a fixed number in flight; what random arrivals leave of it is more, the more replicas share them."""


def _best_of_sizes(study: Study, own: Study, plans: Sequence[PlanResult]) -> list[_Alone]:
    """Of every size the replica that takes most of what comes as the study says.

    `own` is the study of the most requests per second, under which `plans` keep the limits.
    """
    alone = _alone(study, sorted(plans, key=lambda plan: plan.layout.gpus))
    launched = score_launches(own, [one.plan for one in alone])
    return [
        replace(one, plan=plan)
        for one, plan in zip(alone, launched, strict=True)
        if plan.feasible and one.rate_per_s > 0.0
    ]


def _alone(study: Study, plans: Sequence[PlanResult]) -> list[_Alone]:
    """The best plan of each size, smallest first, with the knobs that suit what comes as the study says.

    `plans` are at the most requests per second that they serve within the limits, of one replica each, by size.
    """
    most = np.array([plan.metrics["requests_per_s"] for plan in plans])
    size = np.unique([plan.layout.gpus for plan in plans], return_inverse=True)[1]
    if study.workload.request_rate_per_s is None:
        best = [int(np.where(size == place, most, -1.0).argmax()) for place in range(size[-1] + 1)]
        return [_Alone(plan=plans[i], rate_per_s=float(most[i]), most_per_s=float(most[i])) for i in best]
    candidates, gpus = [p.candidate for p in plans], [p.layout.gpus for p in plans]
    closed, owner = candidate_grid(capacity_study(_at_rates(study, gpus)), candidates)
    reached = np.maximum(closed.evaluate(most_within_limits(closed)).requests_per_s, most[owner])
    grid, _ = candidate_grid(_at_rates(study, gpus), candidates)
    rates, rows = highest_rates(grid, size[owner], reached)
    return [
        _Alone(plan=_launch(plans[owner[row]], grid, row), rate_per_s=float(rate), most_per_s=float(reached[row]))
        for rate, row in zip(rates, rows.tolist(), strict=True)
    ]


def _launch(plan: PlanResult, grid: KnobGrid, row: int) -> PlanResult:
    """The plan with the knobs of a row of its own."""
    variant = grid.variants[grid.variant[row]]
    knobs = replace(
        plan.knobs,
        max_num_batched_tokens=round(float(grid.batched_tokens[row])),
        weight_dtype=variant.weight_dtype,
        kv_dtype=variant.kv_dtype,
    )
    return replace(plan, knobs=knobs)


def _capacities(study: Study, own: Study, alone: Sequence[_Alone], *, most_gpus: int) -> list[Capacities]:
    """What replicas of each plan take up to so many GPUs; arguments as `_best_of_sizes` takes and returns them."""
    counts = [np.array([n for n in SIZES if n == 1 or n * one.plan.layout.gpus <= most_gpus]) for one in alone]
    each = [np.full(number.size, one.rate_per_s) for number, one in zip(counts, alone, strict=True)]
    several = [
        (one, place, i)
        for place, one in enumerate(alone)
        if one.rate_per_s < one.most_per_s
        for i in range(1, counts[place].size)
    ]
    if several:
        replicas = np.array([counts[place][i] for _, place, i in several])
        plans = [
            replace(one.plan, layout=replace(one.plan.layout, replicas=int(n)))
            for (one, *_), n in zip(several, replicas, strict=True)
        ]
        most = replicas * np.array([one.most_per_s for one, *_ in several])
        least = replicas * np.array([one.rate_per_s for one, *_ in several])
        grid = launch_grid(_at_rates(study, [plan.layout.gpus for plan in plans]), plans)
        rates, _ = highest_rates(grid, np.arange(len(plans)), most, least)
        for (_, place, i), rate in zip(several, rates / replicas, strict=True):
            each[place][i] = rate
    if percentile_limits(study):
        sample = study_sample(study)
        for one, rates in zip(alone, each, strict=True):
            simulated = replica_rate_per_s(
                _simulation(own, one.plan), study, sample, one.most_per_s, request_s=one.plan.metrics["e2e_s"]
            )
            np.minimum(rates, simulated, out=rates)
    return [Capacities.of(number, rates) for number, rates in zip(counts, each, strict=True)]


def _at_rates(study: Study, sizes: Sequence[int]) -> Study:
    """The study as `tune` scores it at its request rate, with limits on means, on clusters of these sizes."""
    asked = replace(in_place(on_means(study)), baseline=None)
    return replace(asked, axes=replace(asked.axes, gpu_counts=tuple(dict.fromkeys(sizes))))


def _of_sizes(study: Study, sizes: tuple[int, ...]) -> Study:
    """The study that asks for the most requests per second, with limits on means, on clusters of these sizes."""
    return capacity_study(_at_rates(study, sizes))


def _simulation(own: Study, plan: PlanResult) -> PlanSimulation:
    return one_replica(on_cluster(own, cluster_of(own, None, plan.layout.gpus)), plan)


def table_of(offers: Sequence[ReplicaOffer], *, units: int, unit_gpus: int) -> ModelTable:
    """For every number of units the replica of which as many as fit take most; fewer GPUs where that is as much."""
    gpus = np.arange(units + 1) * unit_gpus
    if not offers:
        nothing = np.zeros(units + 1, dtype=np.int64)
        return ModelTable(offers=(), capacity_per_s=np.zeros(units + 1), offer=nothing + NO_PLAN, replicas=nothing)
    fit = np.stack([gpus // offer.gpus for offer in offers])
    taken = np.stack([offer.capacities.together(count) for offer, count in zip(offers, fit, strict=True)])
    best = taken.argmax(axis=0)
    at = np.arange(units + 1)
    return ModelTable(
        offers=tuple(offers),
        capacity_per_s=taken[best, at],
        offer=np.where(taken[best, at] > 0.0, best, NO_PLAN),
        replicas=fit[best, at],
    )
