"""Schedules of a day: the best by dynamic programming is the best by trying all."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.planning.day_program import DayRules, ReplicaKind, best_schedule, needed_replicas
from tests.planning.helpers import by_trying_all, cost, random_case


@pytest.mark.parametrize("seed", range(60))
def test_no_schedule_is_better(seed: int) -> None:
    """Over all plans and numbers of replicas in each step, none leaves less load without room or costs less."""
    kinds, load, rules = case = random_case(seed)
    found = best_schedule(kinds, load, rules)
    _, short = needed_replicas(kinds, load, rules)
    without = float(short[found.kind, np.arange(load.size)].sum())
    least, cheapest = by_trying_all(case)
    assert without == pytest.approx(least, abs=1e-6)
    assert cost(found, rules) == pytest.approx(cheapest, rel=1e-9)


def steady(capacity: float, gpus: int, *, start_s: float = 600.0) -> ReplicaKind:
    """A plan that takes as much at every one of four times."""
    return ReplicaKind(gpus=gpus, start_s=start_s, drain_s=60.0, capacity_per_s=np.full(4, capacity))


def rules(*, gpus: int = 64, change_gpu_s: float = 0.0) -> DayRules:
    """A day that is followed by another."""
    return DayRules(gpus=gpus, step_s=3600.0, min_replicas=1, change_gpu_s=change_gpu_s, cyclic=True)


def test_by_hand() -> None:
    """Four hours at 1, 3, 3, 1 of one plan: GPU-hours of the replicas, two starts of 10 min, two drains of 1 min."""
    found = best_schedule([steady(1.0, 2)], np.array([1.0, 3.0, 3.0, 1.0]), rules())
    assert found.replicas.tolist() == [1, 3, 3, 1]
    assert found.changes == 2
    assert found.gpu_s == pytest.approx(2 * (8 * 3600 + 2 * 600 + 2 * 60))


def test_a_change_that_saves_too_little_is_not_made() -> None:
    """With 8 GPU-hours asked of each change the number that is enough all day stays."""
    found = best_schedule([steady(1.0, 2)], np.array([1.0, 3.0, 3.0, 1.0]), rules(change_gpu_s=8 * 3600.0))
    assert (found.changes, found.replicas.tolist()) == (0, [3, 3, 3, 3])


def test_another_plan_at_night() -> None:
    """Where both fit, a small replica serves the quiet hours and a large one the others; else one serves all."""
    kinds, load = [steady(1.0, 2), steady(8.0, 8)], np.array([0.9, 8.0, 8.0, 0.9])
    assert best_schedule(kinds, load, rules()).kind.tolist() == [0, 1, 1, 0]
    assert best_schedule(kinds, load, rules(gpus=8)).kind.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_more_load_takes_no_fewer_gpu_hours(seed: int) -> None:
    """The cost of a day is monotone in its load, as long as there is room."""
    kinds, load, _ = random_case(seed)
    asked = DayRules(gpus=1000, step_s=3600.0, min_replicas=0, change_gpu_s=900.0, cyclic=True)
    less, more = (best_schedule(kinds, load * factor, asked) for factor in (1.0, 1.3))
    assert cost(less, asked) <= cost(more, asked) + 1e-6


def test_a_cluster_that_is_too_small_says_by_how_much() -> None:
    """Of a load of 5 on two replicas of 1 three fifths find no room."""
    found = best_schedule([steady(1.0, 2)], np.array([1.0, 5.0, 1.0, 1.0]), rules(gpus=4))
    assert found.short_frac.tolist() == pytest.approx([0.0, 0.6, 0.0, 0.0])
