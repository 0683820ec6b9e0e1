"""What workers of pools take: independent of the cluster's size, and the fewest GPUs by trying every pair of loads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autotune.comparison.best import capacity_study
from autotune.disaggregated.operating_points import served_together
from autotune.disaggregated.pairs import ranking_key
from autotune.disaggregated.search import pool_sides
from autotune.disaggregated.splits import barred
from autotune.planning.worker_pairs import across_nodes, few_that_suit, fewest, worker_pairs, worker_rates
from autotune.study import Study
from tests.tuning.brute import question

LOADS = np.array([0.4, 2.5, 4.5, 11.0, 37.0])


def asked(gpus: int, **tables: object) -> Study:
    """Llama-70B on H100 within 1 s and 40 ms, for the most that workers take."""
    study = question(
        "llama-3.1-70b",
        engine="vllm",
        cluster={"gpus": gpus, "gpu": "h100_sxm", "gpus_per_node": 8},
        workload={"isl": 1000, "osl": 200},
        constraints={"ttft_ms": 1000, "tpot_ms": 40},
        search={"disaggregated": "only", "max_num_batched_tokens": [2048, 8192]},
        **tables,
    )
    return capacity_study(study)


def test_what_workers_take_does_not_depend_on_the_cluster() -> None:
    """Every pair of a small cluster is one of a larger one, with the same knobs, and takes as much there."""
    small, *larger = ({pair.shape: pair for pair in worker_pairs(asked(gpus), LOADS)} for gpus in (6, 16, 40))
    assert len(small) > 1
    for found in larger:
        assert small.keys() < found.keys()
        for shape, pair in small.items():
            assert found[shape].each_per_s == pytest.approx(pair.each_per_s, rel=1e-12)
            assert found[shape].held == pytest.approx(pair.held)
        least = [np.array([p.held for p in pairs.values()]).min(axis=0) for pairs in (small, found)]
        assert np.all(least[1] <= least[0])
    here, there = (worker_rates(asked(gpus), next(iter(small.values())).few(), LOADS) for gpus in (6, 40))
    assert here == pytest.approx(there, rel=1e-12)


def test_no_loads_of_two_workers_take_fewer_gpus() -> None:
    """Of all pairs of points, none left out, those that keep the limits take no fewer GPUs at any load."""
    study = asked(12)
    found = {pair.shape: pair.held for pair in worker_pairs(study, LOADS)}
    (side,) = pool_sides(across_nodes(study))
    first, second = side.prefill, side.decode
    i, j = (index.ravel() for index in np.indices((first.row.size, second.row.size)))
    clusters = (first.rows.cluster, first.columns.take(i)), (second.rows.cluster, second.columns.take(j))
    kept = np.isfinite(ranking_key(study, *served_together(study, *clusters[0], *clusters[1]), feasible=True))
    kept &= ~barred(first, np.arange(first.row.size), second, np.arange(second.row.size)).ravel()
    rate = first.columns.requests_per_s[i], second.columns.requests_per_s[j]
    for load, step in zip(LOADS.tolist(), range(LOADS.size), strict=True):
        held = fewest(load, rate[0]) * first.gpus[i] + fewest(load, rate[1]) * second.gpus[j]
        fits = kept & (first.gpus[i] + second.gpus[j] <= 12)
        assert held[fits].min() == min(own[step] for own in found.values())


def test_workers_in_each_step_take_what_comes() -> None:
    """Of one plan each load is taken by the fewest GPUs that the closed form found, and workers have room beyond it."""
    study = asked(16)
    pair = min(worker_pairs(study, LOADS), key=lambda p: (float(p.held.sum()), p.gpu_s))
    each = worker_rates(study, pair.few(), LOADS)
    workers = fewest(LOADS, each)
    assert np.all((workers * each).min(axis=0) >= LOADS * (1.0 - 1e-9))
    assert np.all(workers.T @ np.array(pair.gpus) <= pair.held + 1e-9)


def test_limits_that_no_load_keeps() -> None:
    """Where first tokens are asked for sooner than prompts run there are no pairs, and workers take nothing."""
    tight = asked(8)
    tight = replace(tight, constraints=replace(tight.constraints, ttft_s=1e-3))
    assert worker_pairs(tight, LOADS) == []
    plan = worker_pairs(asked(8), LOADS)[0].few()
    assert not worker_rates(tight, plan, LOADS).any()


def test_few_that_suit_by_hand() -> None:
    """One prefill worker of 4 suits two decode workers of 2; one kind of replica stands alone."""
    assert few_that_suit((4.0, 2.0)) == (1, 2)
    assert few_that_suit((3.0,)) == (1,)
