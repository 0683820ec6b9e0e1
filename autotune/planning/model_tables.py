"""What a model takes on every number of GPUs: tables that single studies of it make.

A plan on more GPUs is more replicas of the same kind. So one replica of every size is searched as `tune` searches a
cluster of that size, and a number of GPUs takes as many of the best size as fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.comparison.best import at_capacity, capacity_study
from autotune.planning.replica_capacity import on_means, one_replica, replica_rate_per_s, study_sample
from autotune.scoring.best_knobs import score
from autotune.simulation.percentile_limits import percentile_limits
from autotune.simulation.simulate_plan import PlanSimulation
from autotune.study import Study, cluster_of, in_place, on_cluster
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
    capacity_per_s: float
    """Requests per second within the limits."""


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
    """The best replica of each of `SIZES` within so many GPUs, and the load that it takes within the limits.

    Where single requests have limits, a simulated replica has the last word.
    """
    sizes = tuple(size for size in SIZES if size <= min(most_gpus, study.cluster.gpus))
    own = _of_sizes(study, sizes)
    plans = score(own, [c for c in study_space(own).candidates if c.layout.replicas == 1])
    kept = [plan for plan in plans if plan.feasible]
    found = []
    for size in sizes:
        best = max((p for p in kept if p.layout.gpus == size), key=lambda p: p.metrics["requests_per_s"], default=None)
        if best is None:
            continue
        rate = best.metrics["requests_per_s"]
        if percentile_limits(study):
            rate = replica_rate_per_s(_simulation(own, best), study, study_sample(study), rate)
        if rate > 0.0:
            found.append(ReplicaOffer(gpus=size, result=best, capacity_per_s=rate))
    return tuple(found)


def offer_capacity_per_s(study: Study, offer: ReplicaOffer) -> float:
    """What a replica takes under the limits of another study of the same model and cluster."""
    own = _of_sizes(study, (offer.gpus,))
    found = at_capacity(on_cluster(own, cluster_of(own, None, offer.gpus)), offer.result)
    if found is None:
        return 0.0
    rate = found.metrics["requests_per_s"]
    if percentile_limits(study):
        rate = replica_rate_per_s(_simulation(own, found), study, study_sample(study), rate)
    return rate


def offer_simulation(study: Study, offer: ReplicaOffer) -> PlanSimulation:
    """A simulation of one replica."""
    return _simulation(_of_sizes(study, (offer.gpus,)), offer.result)


def _of_sizes(study: Study, sizes: tuple[int, ...]) -> Study:
    """The study that asks for the most requests per second, with limits on means, on clusters of these sizes."""
    asked = capacity_study(replace(in_place(on_means(study)), baseline=None))
    return replace(asked, axes=replace(asked.axes, gpu_counts=sizes))


def _simulation(own: Study, plan: PlanResult) -> PlanSimulation:
    return one_replica(on_cluster(own, cluster_of(own, None, plan.layout.gpus)), plan)


def table_of(offers: Sequence[ReplicaOffer], *, units: int, unit_gpus: int) -> ModelTable:
    """For every number of units the replica of which as many as fit take most; fewer GPUs where that is as much."""
    gpus = np.arange(units + 1) * unit_gpus
    if not offers:
        nothing = np.zeros(units + 1, dtype=np.int64)
        return ModelTable(offers=(), capacity_per_s=np.zeros(units + 1), offer=nothing + NO_PLAN, replicas=nothing)
    fit = np.stack([gpus // offer.gpus for offer in offers])
    taken = fit * np.array([offer.capacity_per_s for offer in offers])[:, None]
    best = taken.argmax(axis=0)
    at = np.arange(units + 1)
    return ModelTable(
        offers=tuple(offers),
        capacity_per_s=taken[best, at],
        offer=np.where(taken[best, at] > 0.0, best, NO_PLAN),
        replicas=fit[best, at],
    )
