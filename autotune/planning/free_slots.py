"""Slots that are free, those first that keep replicas spread."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from autotune.planning.place import Place

FULL = 1 << 62
"""Above every rank."""


class FreeSlots:
    """Free slots of a cluster, and how full its hosts are.

    A slot counts to the host and the rack that its first GPU is in.
    """

    def __init__(self, place: Place, taken: Iterable[int]) -> None:
        rack_nodes = place.rack_gpus // place.node_gpus
        hosts = np.arange(place.slots) * place.replica_gpus // place.node_gpus
        held = np.fromiter(taken, dtype=np.int64)
        on_host = np.bincount(hosts[held], minlength=place.domains("rack") * rack_nodes).reshape(-1, rack_nodes)
        self._replica = place.slots + 1
        """What a replica adds to its host's rank: more than all in a rack add to those of theirs."""
        by_rack = FULL + on_host * self._replica + on_host.sum(axis=1, keepdims=True)
        self._rank = by_rack.reshape(-1)
        """Of each host: by its replicas, then by those in its rack; `FULL` more where no slot is free."""
        self._racks = [*by_rack]
        """The same ranks, by rack."""
        self._host: list[int] = hosts.tolist()
        self._rack: list[int] = (hosts // rack_nodes).tolist()
        self._free: list[set[int]] = [set() for _ in self._rank]
        for slot in np.setdiff1d(np.arange(place.slots), held).tolist():
            self.open(slot)

    def open(self, slot: int) -> None:
        """A slot is whole and holds nothing."""
        host = self._host[slot]
        if not self._free[host]:
            self._rank[host] -= FULL
        self._free[host].add(slot)

    def close(self, slot: int) -> None:
        """A slot is free no longer, or was not."""
        host = self._host[slot]
        if slot in self._free[host]:
            self._free[host].remove(slot)
            if not self._free[host]:
                self._rank[host] += FULL

    def take(self, slot: int) -> None:
        """A replica comes to a slot."""
        self.close(slot)
        self._count(slot, 1)

    def leave(self, slot: int) -> None:
        """A replica is gone from its slot, which is free only once it is opened."""
        self._count(slot, -1)

    def fewest(self) -> int | None:
        """A free slot on the host with the fewest replicas, of such in the rack with the fewest; None: none is free."""
        host = int(self._rank.argmin())
        return min(self._free[host]) if self._free[host] else None

    def _count(self, slot: int, replicas: int) -> None:
        """So many more replicas in a slot."""
        self._rank[self._host[slot]] += replicas * self._replica
        self._racks[self._rack[slot]] += replicas
