"""Where replicas lie on a cluster, and how many of them a loss takes down at worst.

A cluster is a row of slots, each as large as a replica; slots lie one after the other on the GPUs, so that no replica
is spread over more hosts than it needs where its size and that of a host divide each other. Replicas take slots in
turn on every rack, and on every host of a rack, so that a loss takes as few of them as can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from costmodel.plan.columns import Ints

DOMAINS = ("gpu", "node", "rack")


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
        if domain == "gpu":
            return 1
        return self.node_gpus if domain == "node" else self.rack_gpus

    def domains(self, domain: str) -> int:
        """How many of a kind the cluster has; the last may be smaller."""
        return -(-self.gpus // self.domain_gpus(domain))

    def slots_of(self, domain: str, number: int) -> range:
        """Slots that a failure domain touches."""
        size = self.domain_gpus(domain)
        first, last = number * size, min((number + 1) * size, self.gpus) - 1
        each, slots = self.replica_gpus, self.slots
        return range(min(first // each, slots), min(last // each + 1, slots))

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
