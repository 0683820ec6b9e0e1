"""The schedule of a day with the fewest GPU-hours, exactly: dynamic programming over (step, plan, replicas).

In every step a plan runs with as many replicas as its load needs or more; of a disaggregated plan the workers of both
pools are counted, each for itself. A replica that is added starts before the step in which it is needed, one that is
taken away drains: both hold their GPUs and serve nothing. What starts has to fit beside what runs: another plan, and
more workers of one pool beside those of the other that are about to go. A change of any kind counts as `change_gpu_s`
more, so that it is made only where it saves as much.

Of one plan only some numbers are looked at: those that some step needs, and the most workers of a pool that fit beside
what a step needs of the other. No schedule is better for another number. Take a stretch of steps with one number of
workers of a pool that no step in it needs. Fewer cost less in it, unless there are more before and after it: then the
cost is linear in the number, up to the one that a neighbour has or to one that no longer fits. It does not fit beside
the most workers of the other pool within the stretch, which have fewer before and after them (more of both would fit
neither there), so that their number is one that is needed.

Of schedules that take as many GPU-hours, to a GPU-second of the day, the one with most room is taken. Where all
numbers along such a line cost the same, that is the largest, which is one of those that are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.plan.columns import Floats, Ints

SHORT_GPU_S = 1e12
"""What a step weighs in which a cluster is too small, per share of the load without room: nothing outweighs it."""

TIE_GPU_S = 1.0
"""What a day weighs, at most, for how full its replicas are: what fewer GPU-hours outweigh."""
FULLEST = 8
"""Power of the share of its room that a step's load takes: steps that are full weigh most, as limits break there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaKind:
    """What is scaled: a replica of a plan, or a worker of one of its pools."""

    gpus: int
    start_s: float
    """From its start until it counts as capacity."""
    drain_s: float
    """From when it takes no more requests until its GPUs are free."""
    capacity_per_s: Floats
    """Requests per second within the limits that one takes in each step, shape `(steps,)`."""


REPLICA = "replica"
"""The role of what prefills and decodes; those of pools are `ROLES`."""
Kinds = tuple[ReplicaKind, ...]
"""What a plan is made of: one kind of replica, or a prefill and a decode worker, through both of which requests go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRules:
    """What a schedule has to keep."""

    gpus: int
    """Of the cluster."""
    step_s: float
    min_replicas: int
    """Of each pool, where there are two."""
    change_gpu_s: float
    """GPU-seconds that a change has to save."""
    cyclic: bool
    """Whether the day is followed by another like it, so that it ends as it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The plan and the replicas of each step. Arrays have shape `(steps,)`, but for `replicas`."""

    plan: Ints
    """Index of the plan."""
    replicas: Ints
    """Of each kind of the plan, shape `(steps, 2)`; where it has one kind, the second is 0."""
    room_per_s: Floats
    """Requests per second that the replicas take."""
    short_frac: Floats
    """Share of the load that finds no room, as the cluster is too small; 0 where there is room for all."""
    gpu_s: float
    """GPU-seconds, those that start and drain counted in."""
    changes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Kinds of several plans, shape `(plans, 2)`: the second of a plan without pools has no GPU and takes any load."""

    gpus: Ints
    start_s: Floats
    drain_s: Floats
    capacity_per_s: Floats
    """Shape `(plans, 2, steps)`."""

    @classmethod
    def of(cls, plans: Sequence[Kinds]) -> _Table:
        steps = plans[0][0].capacity_per_s.size
        nothing = ReplicaKind(gpus=0, start_s=0.0, drain_s=0.0, capacity_per_s=np.full(steps, np.inf))
        both = [(*kinds, nothing)[:2] for kinds in plans]
        gpus, start, drain, capacity = (
            np.array([[getattr(kind, name) for kind in kinds] for kinds in both])
            for name in ("gpus", "start_s", "drain_s", "capacity_per_s")
        )
        return cls(gpus=gpus, start_s=start, drain_s=drain, capacity_per_s=capacity)

    def room_per_s(self, plan: Ints, replicas: Ints) -> Floats:
        """What states take in every step, shape `(states, steps)`."""
        capacity = self.capacity_per_s[plan]
        endless = np.isinf(capacity)
        taken = np.where(endless, np.inf, replicas[:, :, None] * np.where(endless, 0.0, capacity))
        return np.asarray(taken.min(axis=1))


def fits(kinds: Kinds, rules: DayRules) -> bool:
    """Whether the cluster holds one replica of a plan, or one worker of each pool."""
    return sum(kind.gpus for kind in kinds) <= rules.gpus


def fullest(kinds: Kinds, rules: DayRules) -> tuple[Ints, Floats]:
    """Every way to fill the cluster with a plan that fits, shape `(ways, 2)`, and what it takes, `(ways, steps)`."""
    first, *others = kinds
    rest = others[0].gpus if others else 0
    least = min(rules.min_replicas, rules.gpus // (first.gpus + rest))
    most = (rules.gpus - least * rest) // first.gpus
    if not others:
        counts = np.array([[most, 0]])
    else:
        prefill = np.arange(least, most + 1)
        counts = np.stack([prefill, (rules.gpus - prefill * first.gpus) // rest], axis=1)
    return counts, _Table.of([kinds]).room_per_s(np.zeros(len(counts), dtype=np.int64), counts)


def needed_replicas(plans: Sequence[Kinds], load_per_s: Floats, rules: DayRules) -> tuple[Ints, Floats]:
    """Replicas that each plan needs, `(plans, steps, 2)`, and the share of the load without room, `(plans, steps)`."""
    needed = np.zeros((len(plans), load_per_s.size, 2), dtype=np.int64)
    short = np.zeros((len(plans), load_per_s.size))
    for row, kinds in enumerate(plans):
        _, room = fullest(kinds, rules)
        most = room.max(axis=0)
        short[row] = np.where(most < load_per_s * (1.0 - 1e-9), 1.0 - most / load_per_s, 0.0)
        least = min(rules.min_replicas, rules.gpus // sum(kind.gpus for kind in kinds))
        for side, kind in enumerate(kinds):
            taken = np.minimum(load_per_s, most) / np.maximum(kind.capacity_per_s, 1e-300)
            needed[row, :, side] = np.maximum(np.ceil(taken - 1e-9), least)
    return needed, short


def change_gpu_s(plans: Sequence[Kinds], rules: DayRules, plan: Ints, replicas: Ints) -> Floats:
    """GPU-seconds of a change from one state to another, shape `(states, states)`; infinite where both do not fit."""
    table = _Table.of(plans)
    gpus = table.gpus[plan]
    started, drained = (gpus * seconds[plan] for seconds in (table.start_s, table.drain_s))
    same = plan[:, None] == plan[None, :]
    out, both = np.zeros(same.shape), np.zeros(same.shape, dtype=np.int64)
    moved = ~same
    for side in (0, 1):
        count = replicas[:, side]
        more = count[None, :] - np.where(same, count[:, None], 0)
        fewer = count[:, None] - np.where(same, count[None, :], 0)
        out += np.maximum(more, 0) * started[:, side][None, :] + np.maximum(fewer, 0) * drained[:, side][:, None]
        both += (count * gpus[:, side])[:, None] + np.maximum(more, 0) * gpus[:, side][None, :]
        moved |= more != 0
    return np.where(both > rules.gpus, np.inf, out + np.where(moved, rules.change_gpu_s, 0.0))


def states_of(plans: Sequence[Kinds], needed: Ints, rules: DayRules) -> tuple[Ints, Ints]:
    """Every state that a best schedule may hold (see the head of this file): its plan, and its replicas."""
    found = []
    for i, kinds in enumerate(plans):
        if not fits(kinds, rules):
            continue
        levels = [np.unique(needed[i, :, side]) for side in (0, 1)]
        if len(kinds) > 1:
            beside = [
                (rules.gpus - levels[1 - side] * kinds[1 - side].gpus) // kinds[side].gpus for side in (0, 1)
            ]  # fmt: skip
            levels = [
                np.unique([*own, *more[(more >= own.min()) & (more <= own.max())]])
                for own, more in zip(levels, beside, strict=True)
            ]
        counts = np.stack(np.meshgrid(*levels, indexing="ij"), axis=-1).reshape(-1, 2)
        held = counts @ np.array([*(kind.gpus for kind in kinds), 0][:2])
        counts = counts[held <= rules.gpus]
        found.append((np.full(len(counts), i), counts))
    plan, replicas = zip(*found, strict=True)
    return np.concatenate(plan), np.concatenate(replicas)


def best_schedule(plans: Sequence[Kinds], load_per_s: Floats, rules: DayRules) -> Schedule:
    """The schedule with the fewest GPU-hours, of those that leave the least load without room; of several the roomiest.

    `load_per_s`, shape `(steps,)`, is what every step has to have room for; at least one plan must fit on the cluster.
    """
    needed, short = needed_replicas(plans, load_per_s, rules)
    plan, replicas = states_of(plans, needed, rules)
    held = (_Table.of(plans).gpus[plan] * replicas).sum(axis=1) * rules.step_s
    enough = (replicas[:, None, :] >= needed[plan]).all(axis=2)
    full = TIE_GPU_S * _full_frac(_Table.of(plans).room_per_s(plan, replicas), load_per_s) / load_per_s.size
    hold = np.where(enough, held[:, None] + full + SHORT_GPU_S * short[plan], np.inf).T
    change = change_gpu_s(plans, rules, plan, replicas)
    path = _cyclic_path(hold, change) if rules.cyclic else _path(hold, change, np.zeros(plan.size))[0]
    return schedule_of(plans, load_per_s, rules, plan[path], replicas[path])


def _full_frac(room_per_s: Floats, load_per_s: Floats) -> Floats:
    """How full states are with a load in each step, 0 to 1; shape `(states, steps)`, as the first argument."""
    return np.asarray((load_per_s / np.maximum(room_per_s, load_per_s)) ** FULLEST)


def fixed_schedule(plans: Sequence[Kinds], load_per_s: Floats, rules: DayRules) -> Schedule:
    """The plan and the replicas that hold the fewest GPUs, of those that leave the least load without room, all day.

    Of several the one with most room.
    """
    needed, _ = needed_replicas(plans, load_per_s, rules)
    plan, replicas = states_of(plans, needed, rules)
    table = _Table.of(plans)
    room = table.room_per_s(plan, replicas)
    without = np.maximum(1.0 - room / load_per_s, 0.0).max(axis=1)
    held = (table.gpus[plan] * replicas).sum(axis=1)
    best = int(np.lexsort((_full_frac(room, load_per_s).sum(axis=1), held, np.round(without, 9)))[0])
    every = np.full(load_per_s.size, best)
    return schedule_of(plans, load_per_s, rules, plan[every], replicas[every])


def schedule_of(
    plans: Sequence[Kinds], load_per_s: Floats, rules: DayRules, plan: Ints, replicas: Ints
) -> Schedule:  # fmt: skip
    """What a choice of plan and replicas for each step comes to."""
    table = _Table.of(plans)
    change = change_gpu_s(plans, rules, plan, replicas)
    steps = np.arange(plan.size)
    before = np.roll(steps, 1) if rules.cyclic else np.maximum(steps - 1, 0)
    changed = (plan[before] != plan) | (replicas[before] != replicas).any(axis=1)
    paid = np.where(changed, change[before, steps] - rules.change_gpu_s, 0.0)
    room = table.room_per_s(plan, replicas)[steps, steps]
    held = (table.gpus[plan] * replicas).sum(axis=1) * rules.step_s
    return Schedule(
        plan=plan,
        replicas=replicas,
        room_per_s=room,
        short_frac=np.where(room >= load_per_s * (1.0 - 1e-9), 0.0, 1.0 - room / load_per_s),
        gpu_s=float(held.sum() + paid.sum()),
        changes=int(changed.sum()),
    )


def _path(hold: Floats, change: Floats, entry: Floats, leave: Floats | float = 0.0) -> tuple[Ints, float]:
    """States of the cheapest way through all steps, and its cost; with those before the first and after the last."""
    steps, states = hold.shape
    cost = entry + hold[0]
    came = np.empty((steps, states), dtype=np.int64)
    for t in range(1, steps):
        ways = cost[:, None] + change
        came[t] = ways.argmin(axis=0)
        cost = ways[came[t], np.arange(states)] + hold[t]
    cost = cost + leave
    path = [int(cost.argmin())]
    for row in came[:0:-1]:
        path.append(int(row[path[-1]]))
    return np.array(path[::-1], dtype=np.int64), float(cost.min())


def _cyclic_path(hold: Floats, change: Floats) -> Ints:
    """States of the cheapest way that ends where it begins; begun at the step that has the fewest states."""
    begin = int(np.isfinite(hold).sum(axis=1).argmin())
    turned = np.roll(hold, -begin, axis=0)
    ways = []
    for first in np.flatnonzero(np.isfinite(turned[0])).tolist():
        entry = np.full(hold.shape[1], np.inf)
        entry[first] = 0.0
        ways.append(_path(turned, change, entry, change[:, first]))
    return np.roll(min(ways, key=lambda way: way[1])[0], begin)
