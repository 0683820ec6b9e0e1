"""`autotune survive`: the replicas that keep the limits with a GPU, a host or a rack lost, and what a loss does.

Three ways lead there, and the cheapest is taken: more replicas of the kind that is cheapest without failures, smaller
ones of which a loss takes a smaller share, or larger ones that have more headroom than they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from autotune.comparison.replicas_in_transition import fleet_of
from autotune.comparison.switching import load_s
from autotune.planning.capacities import TIGHT, Capacities
from autotune.planning.failures import YEAR_S, FailureRates, YearsOfFailures, years_of_failures
from autotune.planning.model_tables import ReplicaOffer, offer_capacities, offer_simulation, replica_offers
from autotune.planning.place import DOMAINS, Place, worst_loss
from autotune.planning.replica_loss import LossEvent, LossRun, run_loss
from autotune.simulation.draw_requests import study_requests
from autotune.study import Study
from costmodel.errors import InputError
from costmodel.simulation.requests import Requests
from costmodel.simulation.served import Served

AS_IT_IS, MORE, SMALLER, HEADROOM = "as it is", "more replicas", "smaller replicas", "headroom"
STRETCH_S = 1200.0
LOSS_AT = 0.4
"""Share of the simulated stretch after which replicas are lost."""
MOST_REQUESTS = 12_000
AFTER_S = 300.0
"""Requests that come so long after the loss are what its percentiles are of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One kind of replica, and how many of it a service needs."""

    way: str
    """One of `AS_IT_IS`, `MORE`, `SMALLER`, `HEADROOM`."""
    offer: ReplicaOffer
    degraded: Capacities
    """What replicas take within the limits that hold while something is lost."""
    replicas_without: int
    """As many as the load needs while nothing fails."""
    replicas: int
    """As many as survive."""
    lost: int
    """Replicas that the loss takes down at worst."""
    fits: bool
    """Whether the cluster has room for them."""

    @property
    def gpus(self) -> int:
        """In use."""
        return self.replicas * self.offer.gpus

    @property
    def gpus_without(self) -> int:
        """In use where nothing has to be survived."""
        return self.replicas_without * self.offer.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Years:
    """A number of replicas over years of failures."""

    replicas: int
    years: YearsOfFailures
    availability: float
    """Share of the time in which the whole load is served within the limits."""
    availability_degraded: float
    """The same of the level that has to be kept with so much lost."""
    goodput_per_year: float
    """Requests served within the limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakLoss:
    """The loss in the middle of the fullest stretch of the traffic."""

    event: LossEvent
    run: LossRun
    length_s: float
    shown: tuple[float, float]
    """Arrivals between which requests count in the percentiles."""

    def counted(self, served: Served) -> Served:
        """The requests that the percentiles are of."""
        at = served.requests.arrival_s
        index = np.flatnonzero((at >= self.shown[0]) & (at < self.shown[1]))
        return Served(
            requests=served.requests.take(index),
            first_token_s=served.first_token_s[index],
            finish_s=served.finish_s[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """The answer."""

    study: Study
    load_per_s: float
    ways: tuple[Way, ...]
    """Cheapest first, those that do not fit last."""
    plain: Way
    """The kind that is cheapest where nothing has to be survived, with as many replicas as the load needs then."""
    best: Way | None
    """None: the cluster has no room for any."""
    place: Place | None
    """Of the best."""
    start_s: float
    """Of one of its replicas."""
    years: Years | None
    """Of the best."""
    years_plain: Years | None
    """Of the replicas that are enough while nothing fails; None where the cluster has no room for them."""
    peak: PeakLoss | None
    """None where the loss leaves nothing."""


def survive(study: Study) -> Survival:
    """The fewest GPUs that survive what the study's `resilience` says.

    Raises:
        InputError: the study gives no load, or no plan keeps the limits at any.
    """
    load = study.workload.request_rate_per_s
    if load is None:
        message = "is required: how many replicas have to be left follows from the load"
        raise InputError.single("$.workload.request_rate_per_s", message)
    offers = replica_offers(study, most_gpus=study.cluster.gpus)
    if not offers:
        raise InputError.single("STUDY", "no plan keeps the limits at any load")
    ways = survivors(study, offers, load)
    cheapest = min(ways, key=lambda w: (w.gpus_without, w.offer.gpus))
    fits = cheapest.gpus_without <= study.cluster.gpus
    plain = replace(cheapest, way=AS_IT_IS, replicas=cheapest.replicas_without, lost=0, fits=fits)
    best = next((way for way in ways if way.fits), None)
    shown = best or plain
    start_s = replica_start_s(study, shown.offer)
    return Survival(
        study=study,
        load_per_s=load,
        ways=tuple(ways),
        plain=plain,
        best=best,
        place=None if best is None else placed(study, best.offer, best.replicas),
        start_s=start_s,
        years=None if best is None else _years(study, best, best.replicas, load),
        years_plain=_years(study, plain, plain.replicas, load) if plain.fits else None,
        peak=None if best is None else _peak(study, best, load, start_s),
    )


def survivors(study: Study, offers: Sequence[ReplicaOffer], load_per_s: float) -> list[Way]:
    """How many of each kind of replica survive, cheapest first."""
    asked = study.resilience
    stretched = with_degraded_limits(study)
    found = []
    for offer in offers:
        degraded = offer.capacities
        if asked.degraded_latency_factor > 1.0:
            degraded = offer_capacities(stretched, offer, most_gpus=study.cluster.gpus).at_least(degraded)
        without = offer.capacities.fewest(load_per_s)
        needed = degraded.fewest(asked.degraded_load_frac * load_per_s)
        replicas, lost = without, 0
        while True:
            lost = worst_loss(placed(study, offer, replicas), asked.survive, asked.k)
            if replicas - lost >= needed:
                break
            replicas += needed - (replicas - lost)
        found.append((offer, degraded, without, replicas, lost))
    plain_gpus = min((without * offer.gpus, offer.gpus) for offer, _, without, _, _ in found)[1]
    ways = [
        Way(
            way=_way(offer.gpus, plain_gpus, more=replicas > without),
            offer=offer,
            degraded=degraded,
            replicas_without=without,
            replicas=replicas,
            lost=lost,
            fits=replicas * offer.gpus <= study.cluster.gpus,
        )
        for offer, degraded, without, replicas, lost in found
    ]
    return sorted(ways, key=lambda w: (not w.fits, w.gpus, w.lost / w.replicas, w.offer.gpus))


def with_degraded_limits(study: Study) -> Study:
    """The study with the limits on latencies that hold while something is lost."""
    factor, given = study.resilience.degraded_latency_factor, study.constraints
    fields = [f for f in type(given).__dataclass_fields__ if f.startswith(("ttft", "tpot", "e2e")) and f.endswith("_s")]
    larger = {f: bound * factor for f in fields if (bound := getattr(given, f)) is not None}
    return replace(study, constraints=replace(given, **larger))


def placed(study: Study, offer: ReplicaOffer, replicas: int) -> Place:
    """Replicas on the cluster, or on one that is large enough."""
    node = study.cluster.gpus_per_node
    return Place(
        gpus=max(study.cluster.gpus, replicas * offer.gpus),
        replica_gpus=offer.gpus,
        replicas=replicas,
        node_gpus=node,
        rack_gpus=node * study.resilience.nodes_per_rack,
    )


def replica_start_s(study: Study, offer: ReplicaOffer) -> float:
    """From a replica's start until it counts as capacity: weights, start-up, warm-up."""
    starting = fleet_of(study, offer.result)[:1]
    own = study.switch
    return load_s(study, offer.result, starting, peers=True) + own.startup_s[offer.result.engine] + own.warmup_s


def _way(gpus: int, plain_gpus: int, *, more: bool) -> str:
    if gpus == plain_gpus:
        return MORE if more else AS_IT_IS
    return SMALLER if gpus < plain_gpus else HEADROOM


def _years(study: Study, way: Way, replicas: int, load_per_s: float) -> Years:
    asked = study.resilience
    rates = FailureRates(
        mtbf_s={d: getattr(asked, f"{d}_mtbf_s") for d in DOMAINS},
        repair_s={d: getattr(asked, f"{d}_repair_s") for d in DOMAINS},
        detect_s=asked.detect_s,
        start_s=replica_start_s(study, way.offer),
    )
    years = years_of_failures(placed(study, way.offer, replicas), rates)
    up = np.arange(replicas + 1)
    whole, kept = way.offer.capacities.together(up), way.degraded.together(up)
    return Years(
        replicas=replicas,
        years=years,
        availability=float(years.up_frac[whole >= load_per_s * TIGHT].sum()),
        availability_degraded=float(years.up_frac[kept >= asked.degraded_load_frac * load_per_s * TIGHT].sum()),
        goodput_per_year=float(years.up_frac @ np.minimum(whole, load_per_s)) * YEAR_S,
    )


def _peak(study: Study, way: Way, load_per_s: float, start_s: float) -> PeakLoss | None:
    """The worst loss in the middle of the fullest stretch; where a slot is spare, what was lost comes back.

    None: everything is lost, or no request comes while it matters.
    """
    if way.lost >= way.replicas:
        return None
    length = min(STRETCH_S, MOST_REQUESTS / load_per_s)
    requests = peak_requests(study, load_per_s, length)
    length = min(length, float(requests.arrival_s[-1]))
    at = LOSS_AT * length
    spare = placed(study, way.offer, way.replicas).spare_slots
    event = LossEvent(
        at_s=at,
        lost=way.lost,
        detect_s=study.resilience.detect_s,
        back_s=study.resilience.detect_s + start_s if spare >= way.lost else inf,
    )
    run = run_loss(offer_simulation(study, way.offer), requests, way.replicas, event)
    found = PeakLoss(event=event, run=run, length_s=length, shown=(at - 0.2 * at, min(at + AFTER_S, length)))
    return found if len(found.counted(run.without).requests) else None


def peak_requests(study: Study, load_per_s: float, length_s: float) -> Requests:
    """The fullest stretch of the study's log, from 0 s; drawn at the load where it has none."""
    recorded = study.workload.recorded
    if recorded is None:
        return study_requests(study, count=max(int(load_per_s * length_s), 2), rate_per_s=load_per_s)
    ends = np.searchsorted(recorded.arrival_s, recorded.arrival_s + length_s)
    first = int((ends - np.arange(len(recorded))).argmax())
    held = recorded.take(np.arange(first, int(ends[first])))
    return replace(held, arrival_s=held.arrival_s - held.arrival_s[0])
