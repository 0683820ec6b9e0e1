"""Small days, and what the best schedule of each is by trying all of them."""

from __future__ import annotations

from itertools import product

import numpy as np

from autotune.planning.day_program import DayRules, ReplicaKind, Schedule, needed_replicas, schedule_of
from costmodel.plan.columns import Floats

Case = tuple[list[ReplicaKind], Floats, DayRules]


def random_case(seed: int) -> Case:
    """A day of few steps, two plans, few replicas; with and without a cluster that is too small."""
    random = np.random.default_rng(seed)
    steps = int(random.integers(2, 5))
    kinds = [
        ReplicaKind(
            gpus=int(random.integers(1, 4)),
            start_s=float(random.choice([0.0, 300.0, 1500.0])),
            drain_s=float(random.choice([0.0, 60.0, 600.0])),
            capacity_per_s=random.uniform(0.5, 2.0, steps),
        )
        for _ in range(2)
    ]
    rules = DayRules(
        gpus=int(random.integers(3, 8)),
        step_s=3600.0,
        min_replicas=int(random.integers(0, 3)),
        change_gpu_s=float(random.choice([0.0, 1800.0, 7200.0])),
        cyclic=bool(random.integers(0, 2)),
    )
    return kinds, random.uniform(0.2, 5.0, steps), rules


def cost(schedule: Schedule, rules: DayRules) -> float:
    """What the program makes least, where there is room for everything."""
    return schedule.gpu_s + schedule.changes * rules.change_gpu_s


def by_trying_all(case: Case) -> tuple[float, float]:
    """The least load without room, summed over steps, and the least cost with no more of it than that."""
    kinds, load, rules = case
    needed, short = needed_replicas(kinds, load, rules)
    states = [(i, n) for i, kind in enumerate(kinds) for n in range(rules.gpus // kind.gpus + 1)]
    best = (np.inf, np.inf)
    for path in product(states, repeat=load.size):
        if any(n < needed[i, t] for t, (i, n) in enumerate(path)):
            continue
        found = schedule_of(kinds, load, rules, *(np.array(column) for column in zip(*path, strict=True)))
        without = round(float(sum(short[i, t] for t, (i, _) in enumerate(path))), 9)
        if np.isfinite(found.gpu_s):
            best = min(best, (without, cost(found, rules)))
    return best
