"""The slots of a cluster while domains fail and are repaired: what is broken, and which replicas serve.

A replica that loses a GPU starts anew once the loss is noticed, in a slot that is whole and none's own: on the host,
then in the rack, that has the fewest replicas. Where there is none it waits. Once its own slot is whole it goes back
there; it starts there while it serves where it is, so that nothing is lost by it. Hence replicas lie as placed
whenever nothing is broken, and a loss takes no more of them than it would have at first.
"""

from __future__ import annotations

from autotune.planning.free_slots import FreeSlots
from autotune.planning.place import Place


class Slots:
    """What is broken under the slots of a cluster, and for how long how many replicas have served.

    A replica is named by its own slot, in which it was placed.
    """

    def __init__(self, place: Place, *, detect_s: float, start_s: float) -> None:
        self.place = place
        self.detect_s, self.start_s = detect_s, start_s
        self.broken = [0] * place.slots
        """Failed domains under each slot."""
        self.slot_of = {own: own for own in place.running()}
        """Replica -> where it is; those that wait are nowhere."""
        self.replica_in = dict(self.slot_of)
        """Slot -> replica."""
        self.own = frozenset(self.slot_of)
        self.free = FreeSlots(place, self.own)
        """Slots that are whole, hold none and are none's own."""
        self.starting: dict[int, float] = {}
        """Replica -> when it serves."""
        self.waiting: dict[int, None] = {}
        """Replicas without a slot, the first lost first."""
        self.lost_at: dict[int, float] = {}
        """Replica that does not serve -> since when."""
        self.now_s = 0.0
        self.spent_s = [0.0] * (place.replicas + 1)
        self.losses, self.returns, self.down_s = 0, 0, 0.0

    def advance(self, at_s: float) -> None:
        """Time passes."""
        self.spent_s[self.place.replicas - len(self.lost_at)] += at_s - self.now_s
        self.now_s = at_s

    def fail(self, at_s: float, domain: str, number: int) -> list[tuple[float, int]]:
        """A domain is lost; returns which replicas start, and when each serves."""
        self.advance(at_s)
        serving = self.place.replicas - len(self.lost_at)
        for slot in self.place.slots_of(domain, number):
            self.broken[slot] += 1
            self.free.close(slot)
            if slot in self.replica_in:
                replica = self._leave(slot)
                self.starting.pop(replica, None)
                self.lost_at.setdefault(replica, at_s)
                self.waiting[replica] = None
        self.losses += self.place.replicas - len(self.lost_at) < serving
        return self._start(at_s + self.detect_s)

    def repair(self, at_s: float, domain: str, number: int) -> list[tuple[float, int]]:
        """A domain is whole again; returns as `fail`."""
        self.advance(at_s)
        started = []
        for slot in self.place.slots_of(domain, number):
            self.broken[slot] -= 1
            if self.broken[slot]:
                continue
            if slot not in self.own:
                self.free.open(slot)
            elif slot in self.waiting:
                started.append(self._begin(slot, slot, at_s))
            else:
                left = self.slot_of[slot]
                self._leave(left)
                self.free.open(left)
                self._come(slot, slot)
        return started + self._start(at_s)

    def serve(self, at_s: float, replica: int) -> None:
        """A replica is up, unless it was lost meanwhile."""
        if self.starting.get(replica) != at_s:
            return
        self.advance(at_s)
        del self.starting[replica]
        self.down_s += at_s - self.lost_at.pop(replica)
        self.returns += 1

    def _start(self, from_s: float) -> list[tuple[float, int]]:
        """Replicas that wait take slots that are free."""
        started = []
        while self.waiting:
            slot = self.free.fewest()
            if slot is None:
                break
            started.append(self._begin(next(iter(self.waiting)), slot, from_s))
        return started

    def _begin(self, replica: int, slot: int, from_s: float) -> tuple[float, int]:
        """A replica that waits starts in a slot."""
        del self.waiting[replica]
        self._come(replica, slot)
        self.starting[replica] = from_s + self.start_s
        return self.starting[replica], replica

    def _come(self, replica: int, slot: int) -> None:
        self.free.take(slot)
        self.slot_of[replica], self.replica_in[slot] = slot, replica

    def _leave(self, slot: int) -> int:
        replica = self.replica_in.pop(slot)
        del self.slot_of[replica]
        self.free.leave(slot)
        return replica
