"""Small days, and what the best schedule of each is by trying all of them."""

from __future__ import annotations

from itertools import product

import numpy as np

from autotune.planning.day_program import DayRules, Kinds, ReplicaKind, Schedule, change_gpu_s, fits, needed_replicas
from costmodel.plan.columns import Floats

Case = tuple[list[Kinds], Floats, DayRules]


def random_case(seed: int, *, pools: bool = False) -> Case:
    """A day of few steps, two plans, few replicas; with and without a cluster that is too small.

    With `pools` the second plan is disaggregated, and the mix of prompts and outputs moves from step to step.
    """
    random = np.random.default_rng(seed)
    steps = int(random.integers(2, 5))
    kinds = [
        ReplicaKind(
            gpus=int(random.integers(1, 4)),
            start_s=float(random.choice([0.0, 300.0, 1500.0])),
            drain_s=float(random.choice([0.0, 60.0, 600.0])),
            capacity_per_s=random.uniform(0.5, 2.0, steps),
        )
        for _ in range(3 if pools else 2)
    ]
    rules = DayRules(
        gpus=int(random.integers(3, 8)),
        step_s=3600.0,
        min_replicas=int(random.integers(0, 3)),
        change_gpu_s=float(random.choice([0.0, 1800.0, 7200.0])),
        cyclic=bool(random.integers(0, 2)),
    )
    plans: list[Kinds] = [(kinds[0],), tuple(kinds[1:])]
    return plans, random.uniform(0.2, 5.0, steps), rules


def cost(schedule: Schedule, rules: DayRules) -> float:
    """What the program makes least, where there is room for everything."""
    return schedule.gpu_s + schedule.changes * rules.change_gpu_s


def by_trying_all(case: Case) -> tuple[float, float]:
    """The least load without room, summed over steps, and the least cost with no more of it than that.

    Every schedule there is, one entry of a table with an axis for each step.
    """
    plans, load, rules = case
    needed, short = needed_replicas(plans, load, rules)
    states = [
        (i, (*counts, 0)[:2])
        for i, kinds in enumerate(plans)
        if fits(kinds, rules)
        for counts in product(*(range(rules.gpus // kind.gpus + 1) for kind in kinds))
        if sum(n * kind.gpus for n, kind in zip(counts, kinds, strict=True)) <= rules.gpus
    ]
    plan, replicas = np.array([i for i, _ in states]), np.array([counts for _, counts in states])
    gpus = np.array([[*(kind.gpus for kind in kinds), 0][:2] for kinds in plans])
    change = change_gpu_s(plans, rules, plan, replicas)
    total, without = np.zeros(()), np.zeros(())
    for t in range(load.size):
        enough = (replicas >= needed[plan, t]).all(axis=1)
        hold = np.where(enough, (gpus[plan] * replicas).sum(axis=1) * rules.step_s, np.inf)
        total = total[..., None] + (change + hold if t else hold)
        without = without[..., None] + short[plan, t]
    if rules.cyclic:
        total = total + change.T.reshape(len(states), *(1,) * (load.size - 2), len(states))
    least = np.round(without[np.isfinite(total)], 9).min()
    return float(least), float(total[np.round(without, 9) <= least].min())
