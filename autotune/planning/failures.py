"""Where replicas lie, how many a loss takes down at worst, and years of failures: how much of the time how many serve.

A cluster is a row of slots, each as large as a replica; slots lie one after the other on the GPUs, so that no replica
is spread over more hosts than it needs where its size and that of a host divide each other. Replicas take slots in
turn on every rack, and on every host of a rack, so that a loss takes as few of them as can be.

GPUs, hosts and racks fail independently and at random, and are repaired. A replica that loses a GPU starts anew in a
slot that is whole and free, once the loss is noticed; where there is none it waits for the repair of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from costmodel.plan.columns import Floats, Ints

DOMAINS = ("gpu", "node", "rack")
YEAR_S = 365.25 * 86400.0
EVENTS = 40_000
"""Failures that are drawn, about."""
MOST_YEARS = 4000.0
SEED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A cluster and the replicas on it."""

    gpus: int
    """Of the cluster."""
    replica_gpus: int
    replicas: int
    """That run."""
    node_gpus: int
    rack_gpus: int

    @property
    def slots(self) -> int:
        """Replicas that the cluster has room for."""
        return self.gpus // self.replica_gpus

    def running(self) -> tuple[int, ...]:
        """Slots of the replicas that run, ascending: those of the first replicas are among those of more."""
        return tuple(sorted(sorted(range(self.slots), key=self._turn)[: self.replicas]))

    def _turn(self, slot: int) -> tuple[int, ...]:
        """By how many slots begin before it on its host, by its host's place in the rack, then by the rack."""
        first = slot * self.replica_gpus
        rack, in_rack = divmod(first, self.rack_gpus)
        node, in_node = divmod(in_rack, self.node_gpus)
        return in_node // self.replica_gpus, node, rack, slot

    @property
    def spare_slots(self) -> int:
        """That hold none."""
        return self.slots - self.replicas

    def domain_gpus(self, domain: str) -> int:
        """GPUs of a failure domain."""
        return {"gpu": 1, "node": self.node_gpus, "rack": self.rack_gpus}[domain]

    def domains(self, domain: str) -> int:
        """How many of a kind the cluster has; the last may be smaller."""
        return -(-self.gpus // self.domain_gpus(domain))

    def slots_of(self, domain: str, number: int) -> range:
        """Slots that a failure domain touches."""
        size = self.domain_gpus(domain)
        first, last = number * size, min((number + 1) * size, self.gpus) - 1
        return range(min(first // self.replica_gpus, self.slots), min(last // self.replica_gpus + 1, self.slots))

    def domains_of(self, slot: int, domain: str) -> range:
        """Failure domains that a slot lies in."""
        size = self.domain_gpus(domain)
        return range(slot * self.replica_gpus // size, ((slot + 1) * self.replica_gpus - 1) // size + 1)


def worst_loss(place: Place, domain: str, count: int) -> int:
    """Replicas that are down at most when `count` failure domains are lost at once, exactly.

    Domains that share no replica are chosen by their size. Else domains in their order touch slots in theirs, so that
    what one adds depends on the last one chosen before it alone, and the best choice is found from left to right.
    """
    running = np.zeros(place.slots + 1, dtype=np.int64)
    running[np.array(place.running(), dtype=np.int64) + 1] = 1
    before = np.cumsum(running)
    touched = [place.slots_of(domain, i) for i in range(place.domains(domain))]
    # in numbers of replicas; only domains with one that runs
    ends = [(int(before[r.start]), int(before[r.stop])) for r in touched if before[r.start] < before[r.stop]]
    if not ends:
        return 0
    starts, stops = (np.array(column, dtype=np.int64) for column in zip(*dict.fromkeys(ends), strict=True))
    if (stops[:-1] <= starts[1:]).all():
        return int(np.sort(stops - starts)[-count:].sum())
    most: Ints = stops - starts
    for _ in range(min(count, starts.size) - 1):
        added = stops[None, :] - np.maximum(starts[None, :], stops[:, None])
        reached = np.where(np.tri(starts.size, k=-1, dtype=bool).T, most[:, None] + added, -1)
        most = np.maximum(most, reached.max(axis=0))
    return int(most.max())


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRates:
    """How often a domain of each kind fails, and how long its repair takes. Seconds."""

    mtbf_s: dict[str, float]
    repair_s: dict[str, float]
    detect_s: float
    start_s: float
    """Of a replica, from its start until it counts as capacity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YearsOfFailures:
    """What came of them."""

    up_frac: Floats
    """Share of the time in which so many replicas serve, shape `(replicas + 1,)`."""
    failures_per_year: float
    """Of all domains."""
    losses_per_year: float
    """Failures that take a serving replica down."""
    down_s: float
    """From a replica's loss until it serves again, mean."""
    years: float
    """That were simulated."""


def expected_failures_per_year(place: Place, rates: FailureRates) -> float:
    """Of all domains of a cluster."""
    return sum(place.domains(domain) * YEAR_S / (rates.mtbf_s[domain] + rates.repair_s[domain]) for domain in DOMAINS)


def years_of_failures(place: Place, rates: FailureRates, *, events: int = EVENTS) -> YearsOfFailures:
    """Simulate about so many failures."""
    per_year = expected_failures_per_year(place, rates)
    years = min(events / max(per_year, 1e-9), MOST_YEARS)
    end_s = years * YEAR_S
    cluster = _Cluster(place, rates)
    coming = [(at, 0, domain, number) for at, domain, number in _failures(place, rates, end_s)]
    heapify(coming)
    failures = 0
    while coming:
        at, kind, domain, number = heappop(coming)
        if at >= end_s:
            break
        if kind == 0:
            failures += 1
            heappush(coming, (at + rates.repair_s[domain], 1, domain, number))
            started = cluster.fail(at, domain, number)
        elif kind == 1:
            started = cluster.repair(at, domain, number)
        else:
            cluster.serve(at, number)
            started = []
        for when, slot in started:
            heappush(coming, (when, 2, "", slot))
    cluster.advance(end_s)
    return YearsOfFailures(
        up_frac=cluster.spent_s / end_s,
        failures_per_year=failures / years,
        losses_per_year=cluster.losses / years,
        down_s=cluster.down_s / max(cluster.returns, 1),
        years=years,
    )


def _failures(place: Place, rates: FailureRates, end_s: float) -> list[tuple[float, str, int]]:
    """When which domain fails: gaps are exponential and begin when the last repair is done."""
    random = np.random.default_rng(SEED)
    out: list[tuple[float, str, int]] = []
    for domain in DOMAINS:
        mean, repair = rates.mtbf_s[domain], rates.repair_s[domain]
        count = place.domains(domain)
        at = random.exponential(mean, count)
        alive = np.flatnonzero(at < end_s)
        while alive.size:
            out += [(float(t), domain, int(i)) for t, i in zip(at[alive], alive, strict=True)]
            at[alive] += repair + random.exponential(mean, alive.size)
            alive = alive[at[alive] < end_s]
    return out


class _Cluster:
    """Slots, what is broken under them, and what runs in them."""

    def __init__(self, place: Place, rates: FailureRates) -> None:
        self.place, self.rates = place, rates
        self.broken = [0] * place.slots
        """Failed domains under each slot."""
        self.serving = set(place.running())
        self.free = sorted(set(range(place.slots)) - self.serving)
        """Slots that may be free and whole, a heap; whether they are is looked at when one is taken."""
        self.starting: dict[int, float] = {}
        """Slot -> when it serves."""
        self.waiting: list[float] = []
        """When each replica without a slot was lost."""
        self.lost_at: dict[int, float] = {}
        self.now_s = 0.0
        self.spent_s = np.zeros(place.replicas + 1)
        self.losses, self.returns, self.down_s = 0, 0, 0.0

    def advance(self, at_s: float) -> None:
        """Time passes."""
        self.spent_s[len(self.serving)] += at_s - self.now_s
        self.now_s = at_s

    def fail(self, at_s: float, domain: str, number: int) -> list[tuple[float, int]]:
        """A domain is lost; returns what starts: when it serves, and where."""
        self.advance(at_s)
        hit = 0
        for slot in self.place.slots_of(domain, number):
            self.broken[slot] += 1
            if slot in self.serving:
                self.serving.discard(slot)
                self.waiting.append(at_s)
                hit += 1
            elif slot in self.starting:
                del self.starting[slot]
                self.waiting.append(self.lost_at.pop(slot))
        self.losses += hit > 0
        return self._start(at_s + self.rates.detect_s)

    def repair(self, at_s: float, domain: str, number: int) -> list[tuple[float, int]]:
        """A domain is whole again; returns as `fail`."""
        self.advance(at_s)
        for slot in self.place.slots_of(domain, number):
            self.broken[slot] -= 1
            heappush(self.free, slot)
        return self._start(at_s)

    def serve(self, at_s: float, slot: int) -> None:
        """A replica is up, unless its slot was lost meanwhile."""
        if self.starting.get(slot) != at_s:
            return
        self.advance(at_s)
        del self.starting[slot]
        self.serving.add(slot)
        self.down_s += at_s - self.lost_at.pop(slot)
        self.returns += 1

    def _start(self, from_s: float) -> list[tuple[float, int]]:
        """Replicas that wait take slots that are whole and free."""
        out = []
        while self.waiting and self.free:
            slot = heappop(self.free)
            if not self.broken[slot] and slot not in self.serving and slot not in self.starting:
                self.lost_at[slot] = self.waiting.pop(0)
                self.starting[slot] = from_s + self.rates.start_s
                out.append((self.starting[slot], slot))
        return out
