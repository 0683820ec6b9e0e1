"""The schedule of a day with the fewest GPU-hours, exactly: dynamic programming over (step, plan, replicas).

In every step a plan runs with as many replicas as its load needs or more. A replica that is added starts before the
step in which it is needed, one that is taken away drains: both hold their GPUs and serve nothing. Another plan starts
beside the one that runs, so that both have to fit on the cluster. A change of any kind counts as `change_gpu_s` more,
so that it is made only where it saves as much.

Of one plan only numbers of replicas that some step needs are looked at. No schedule is better for another number: in
a stretch of steps with the same plan and number that no step in it needs, fewer replicas cost less in the stretch, and
what changes at its ends can only be paid for by a stretch beside it with more, whose number is then as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.plan.columns import Floats, Ints

SHORT_GPU_S = 1e12
"""What a step weighs in which a cluster is too small, per share of the load without room: nothing outweighs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaKind:
    """A plan as what is scaled: one of its replicas."""

    gpus: int
    start_s: float
    """From its start until it counts as capacity."""
    drain_s: float
    """From when it takes no more requests until its GPUs are free."""
    capacity_per_s: Floats
    """Requests per second within the limits that one replica takes in each step, shape `(steps,)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRules:
    """What a schedule has to keep."""

    gpus: int
    """Of the cluster."""
    step_s: float
    min_replicas: int
    change_gpu_s: float
    """GPU-seconds that a change has to save."""
    cyclic: bool
    """Whether the day is followed by another like it, so that it ends as it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The plan and the replicas of each step. Arrays have shape `(steps,)`."""

    kind: Ints
    """Index of the plan."""
    replicas: Ints
    short_frac: Floats
    """Share of the load that finds no room, as the cluster is too small; 0 where there is room for all."""
    gpu_s: float
    """GPU-seconds, those that start and drain counted in."""
    changes: int


def needed_replicas(kinds: Sequence[ReplicaKind], load_per_s: Floats, rules: DayRules) -> tuple[Ints, Floats]:
    """Replicas that each plan needs in each step, and the share of the load without room, shape `(kinds, steps)`."""
    needed = np.empty((len(kinds), load_per_s.size), dtype=np.int64)
    short = np.zeros((len(kinds), load_per_s.size))
    for row, kind in enumerate(kinds):
        with np.errstate(divide="ignore"):
            wanted = np.ceil(load_per_s / kind.capacity_per_s - 1e-9)
        most = rules.gpus // kind.gpus
        needed[row] = np.clip(wanted, min(rules.min_replicas, most), most)
        short[row] = np.maximum(1.0 - needed[row] * kind.capacity_per_s / load_per_s, 0.0)
        short[row][wanted <= most] = 0.0
    return needed, short


def change_gpu_s(kinds: Sequence[ReplicaKind], rules: DayRules, kind: Ints, replicas: Ints) -> Floats:
    """GPU-seconds of a change from one state to another, shape `(states, states)`; infinite where both do not fit."""
    gpus, start, drain = (np.array([getattr(k, name) for k in kinds]) for name in ("gpus", "start_s", "drain_s"))
    same = kind[:, None] == kind[None, :]
    more = replicas[None, :] - np.where(same, replicas[:, None], 0)
    fewer = replicas[:, None] - np.where(same, replicas[None, :], 0)
    started = np.maximum(more, 0) * (gpus * start)[kind][None, :]
    drained = np.maximum(fewer, 0) * (gpus * drain)[kind][:, None]
    held = gpus[kind] * replicas
    both = held[:, None] + held[None, :]
    moved = ~same | (more != 0)
    out = started + drained + np.where(moved, rules.change_gpu_s, 0.0)
    return np.where(~same & (both > rules.gpus), np.inf, out)


def best_schedule(kinds: Sequence[ReplicaKind], load_per_s: Floats, rules: DayRules) -> Schedule:
    """The schedule with the fewest GPU-hours, of those that leave the least load without room.

    Args:
        kinds: at least one that fits on the cluster.
        load_per_s: that every step has to have room for, shape `(steps,)`, positive.
        rules: of the day.
    """
    kinds_that_fit = [i for i, k in enumerate(kinds) if k.gpus <= rules.gpus]
    needed, short = needed_replicas(kinds, load_per_s, rules)
    levels = [np.unique(needed[i]) for i in kinds_that_fit]
    kind = np.concatenate([np.full(level.size, i) for i, level in zip(kinds_that_fit, levels, strict=True)])
    replicas = np.concatenate(levels)
    held = np.array([k.gpus for k in kinds])[kind] * replicas * rules.step_s
    hold = np.where(replicas[None, :] >= needed[kind].T, held + SHORT_GPU_S * short[kind].T, np.inf)
    change = change_gpu_s(kinds, rules, kind, replicas)
    path = _cyclic_path(hold, change) if rules.cyclic else _path(hold, change, np.zeros(kind.size))
    return schedule_of(kinds, load_per_s, rules, kind[path], replicas[path])


def schedule_of(
    kinds: Sequence[ReplicaKind], load_per_s: Floats, rules: DayRules, kind: Ints, replicas: Ints
) -> Schedule:
    """What a choice of plan and replicas for each step comes to."""
    change = change_gpu_s(kinds, rules, kind, replicas)
    steps = np.arange(kind.size)
    before = np.roll(steps, 1) if rules.cyclic else np.maximum(steps - 1, 0)
    changed = (kind[before] != kind) | (replicas[before] != replicas)
    paid = np.where(changed, change[before, steps] - rules.change_gpu_s, 0.0)
    room = replicas * np.stack([k.capacity_per_s for k in kinds])[kind, steps]
    held = np.array([k.gpus for k in kinds])[kind] * replicas * rules.step_s
    return Schedule(
        kind=kind,
        replicas=replicas,
        short_frac=np.where(room >= load_per_s * (1.0 - 1e-9), 0.0, 1.0 - room / load_per_s),
        gpu_s=float(held.sum() + paid.sum()),
        changes=int(changed.sum()),
    )


def _path(hold: Floats, change: Floats, entry: Floats) -> Ints:
    """States of the cheapest way through all steps; `entry` is the cost of each state before the first."""
    steps, states = hold.shape
    cost = entry + hold[0]
    came = np.empty((steps, states), dtype=np.int64)
    for t in range(1, steps):
        ways = cost[:, None] + change
        came[t] = ways.argmin(axis=0)
        cost = ways[came[t], np.arange(states)] + hold[t]
    return _traced(came, int(cost.argmin()))


def _cyclic_path(hold: Floats, change: Floats) -> Ints:
    """States of the cheapest way that ends where it begins."""
    steps, states = hold.shape
    costs = np.full(states, np.inf)
    for first in np.flatnonzero(np.isfinite(hold[0])).tolist():
        cost = np.full(states, np.inf)
        cost[first] = hold[0, first]
        for t in range(1, steps):
            cost = (cost[:, None] + change).min(axis=0) + hold[t]
        costs[first] = (cost + change[:, first]).min()
    first = int(costs.argmin())
    entry = np.full(states, np.inf)
    entry[first] = 0.0
    cost = entry + hold[0]
    came = np.empty((steps, states), dtype=np.int64)
    for t in range(1, steps):
        ways = cost[:, None] + change
        came[t] = ways.argmin(axis=0)
        cost = ways[came[t], np.arange(states)] + hold[t]
    return _traced(came, int((cost + change[:, first]).argmin()))


def _traced(came: Ints, last: int) -> Ints:
    path = [last]
    for row in came[:0:-1]:
        path.append(int(row[path[-1]]))
    return np.array(path[::-1], dtype=np.int64)
