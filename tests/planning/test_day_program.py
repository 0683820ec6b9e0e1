"""Schedules of a day: the best by dynamic programming is the best by trying all."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.planning.day_program import (
    DayRules,
    Kinds,
    ReplicaKind,
    best_schedule,
    change_gpu_s,
    fixed_schedule,
    needed_replicas,
)
from tests.planning.helpers import by_trying_all, cost, random_case


@pytest.mark.parametrize("pools", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_no_schedule_is_better(seed: int, pools: bool) -> None:
    """Over all plans and numbers of replicas in each step, none leaves less load without room or costs less."""
    plans, load, rules = case = random_case(seed, pools=pools)
    found = best_schedule(plans, load, rules)
    _, short = needed_replicas(plans, load, rules)
    without = float(short[found.plan, np.arange(load.size)].sum())
    least, cheapest = by_trying_all(case)
    assert without == pytest.approx(least, abs=1e-6)
    assert cost(found, rules) == pytest.approx(cheapest, rel=1e-9)


def steady(capacity: float, gpus: int, *, start_s: float = 600.0) -> Kinds:
    """A plan that takes as much at every one of four times."""
    return (ReplicaKind(gpus=gpus, start_s=start_s, drain_s=60.0, capacity_per_s=np.full(4, capacity)),)


def rules(*, gpus: int = 64, change_gpu_s: float = 0.0) -> DayRules:
    """A day that is followed by another."""
    return DayRules(gpus=gpus, step_s=3600.0, min_replicas=1, change_gpu_s=change_gpu_s, cyclic=True)


def test_by_hand() -> None:
    """Four hours at 1, 3, 3, 1 of one plan: GPU-hours of the replicas, two starts of 10 min, two drains of 1 min."""
    found = best_schedule([steady(1.0, 2)], np.array([1.0, 3.0, 3.0, 1.0]), rules())
    assert found.replicas[:, 0].tolist() == [1, 3, 3, 1]
    assert found.changes == 2
    assert found.gpu_s == pytest.approx(2 * (8 * 3600 + 2 * 600 + 2 * 60))


def test_a_change_that_saves_too_little_is_not_made() -> None:
    """With 8 GPU-hours asked of each change the number that is enough all day stays."""
    found = best_schedule([steady(1.0, 2)], np.array([1.0, 3.0, 3.0, 1.0]), rules(change_gpu_s=8 * 3600.0))
    assert (found.changes, found.replicas[:, 0].tolist()) == (0, [3, 3, 3, 3])


def test_another_plan_at_night() -> None:
    """Where both fit, a small replica serves the quiet hours and a large one the others; else one serves all."""
    kinds, load = [steady(1.0, 2), steady(8.0, 8)], np.array([0.9, 8.0, 8.0, 0.9])
    assert best_schedule(kinds, load, rules()).plan.tolist() == [0, 1, 1, 0]
    assert best_schedule(kinds, load, rules(gpus=8)).plan.tolist() == [1, 1, 1, 1]


def test_of_equal_gpu_hours_the_roomiest() -> None:
    """Whichever comes first: two replicas of 0.6 and one of 4 hold as many GPUs; a GPU-hour outweighs any room."""
    tight, wide, load = steady(0.6, 2), steady(4.0, 4), np.full(4, 1.0)
    for kinds, best in (([tight, wide], 1), ([wide, tight], 0)):
        for found in (best_schedule(kinds, load, rules()), fixed_schedule(kinds, load, rules())):
            assert found.plan.tolist() == [best] * 4
            assert found.room_per_s.tolist() == [4.0] * 4
    cheaper = [steady(1.01, 3), wide]
    assert best_schedule(cheaper, load, rules()).plan.tolist() == [0] * 4
    assert fixed_schedule(cheaper, load, rules()).plan.tolist() == [0] * 4


@pytest.mark.parametrize("seed", range(20))
def test_more_load_takes_no_fewer_gpu_hours(seed: int) -> None:
    """The cost of a day is monotone in its load, as long as there is room."""
    kinds, load, _ = random_case(seed, pools=seed % 2 == 0)
    asked = DayRules(gpus=1000, step_s=3600.0, min_replicas=0, change_gpu_s=900.0, cyclic=True)
    less, more = (best_schedule(kinds, load * factor, asked) for factor in (1.0, 1.3))
    assert cost(less, asked) <= cost(more, asked) + 1e-6


def test_a_cluster_that_is_too_small_says_by_how_much() -> None:
    """Of a load of 5 on two replicas of 1 three fifths find no room."""
    found = best_schedule([steady(1.0, 2)], np.array([1.0, 5.0, 1.0, 1.0]), rules(gpus=4))
    assert found.short_frac.tolist() == pytest.approx([0.0, 0.6, 0.0, 0.0])


def test_the_ratio_of_pools_by_hand() -> None:
    """Long prompts by day take prefill workers, long outputs at night decode workers; what goes on does not restart.

    Prefill 2, 2, 1, 1 and decode 1, 1, 3, 3 of two GPUs each: 28 worker-hours, one worker started and one drained in
    the pool of prompts, two and two in that of outputs.
    """
    prefill, decode = (
        ReplicaKind(gpus=2, start_s=600.0, drain_s=60.0, capacity_per_s=np.array(capacity))
        for capacity in ([1.0, 1.0, 2.0, 2.0], [2.0, 2.0, 0.7, 0.7])
    )
    load = np.full(4, 2.0)
    found = best_schedule([(prefill, decode)], load, rules())
    assert found.replicas.tolist() == [[2, 1], [2, 1], [1, 3], [1, 3]]
    assert found.gpu_s == pytest.approx(2 * (14 * 3600 + 3 * 600 + 3 * 60))
    assert found.room_per_s == pytest.approx(load)
    assert fixed_schedule([(prefill, decode)], load, rules()).replicas[0].tolist() == [2, 3]


def test_workers_that_start_fit_beside_those_that_go() -> None:
    """On eight GPUs 2 + 1 workers cannot become 1 + 3 at once, and a cluster of ten can do it."""
    prefill, decode = (
        ReplicaKind(gpus=2, start_s=0.0, drain_s=0.0, capacity_per_s=np.array(capacity))
        for capacity in ([1.0, 2.0], [2.0, 0.7])
    )
    changes = [
        change_gpu_s([(prefill, decode)], rules(gpus=gpus), np.zeros(2, dtype=int), np.array([[2, 1], [1, 3]]))[0, 1]
        for gpus in (8, 10)
    ]
    assert changes == [np.inf, 0.0]
