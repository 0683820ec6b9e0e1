"""What plans are ranked by, and how they stand, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autotune.metrics import COST, GPUS, PER_GPU
from autotune.scoring.dominance import nondominated, skyband
from autotune.scoring.joint_uncertainty import Draws
from autotune.scoring.limits import JOINT_PROBABILITY, LimitCheck, study_limits
from autotune.scoring.objective import Standing, expected, ranking_value
from autotune.scoring.solve_concurrency import bounds
from autotune.study import Study
from costmodel.estimate.error_model import Latencies
from tests.tuning.brute import question


def of(objective: dict[str, str], **figures: float) -> float:
    """What can be expected of a plan that keeps its limits with a probability of a quarter."""
    prices = {"gpus": 8, "gpu": "h100_sxm", "gpus_per_node": 4, "price_per_gpu_hour": 2.0}
    study: Study = question(objective=objective, cluster=prices)
    columns = {name: np.array([value]) for name, value in figures.items()}
    return float(expected(study, columns, np.array([0.25]))[0])


def test_what_can_be_expected() -> None:
    """A throughput counts by the probability, a cost against it, a latency as it is; GPUs as many, then by use."""
    assert of({"maximize": PER_GPU}, **{PER_GPU: 80.0}) == 20.0
    assert of({"minimize": COST}, **{COST: 3.0}) == 12.0
    assert of({"minimize": "tpot_s"}, tpot_s=0.5) == 0.5
    assert of({"minimize": GPUS}, **{GPUS: 16.0, PER_GPU: 12.0}) == 16.0 - 3.0 / 4.0


def test_the_first_of_each_owner() -> None:
    """Of plans that keep every limit the larger gain, before any that breaks one; among those the one least off."""
    worst = np.array([[0.0, 0.2, 0.3], [0.0, 0.0, 0.1]])
    table = Standing(worst=worst, broken=worst, gain=np.array([[5.0, 9.0, 1.0], [7.0, 2.0, 8.0]]))
    assert table.first_of_each(np.array([0, 1, 2])).tolist() == [3, 4, 5]
    assert table.first_of_each(np.array([0, 0, 0])).tolist() == [3]


def test_plans_stand_by_the_limit_that_they_break_most() -> None:
    """Off by 0.2 of the TPOT and 0.1 of the TTFT: by 0.2. The chance to keep them counts where all else is kept."""
    search = {"max_num_batched_tokens": [1024], "min_p_meets": 0.5}
    study = question(constraints={"tpot_ms": 20, "ttft_ms": 400}, search=search)
    limits = study_limits(study)
    over = {"tpot_ms": [4.0, -1.0, -1.0], "ttft_ms": [40.0, -1.0, -1.0], JOINT_PROBABILITY: [0.25, 0.25, -0.1]}
    excess = np.array([over.get(limit.code, [-0.5] * 3) for limit in limits])
    check = LimitCheck(values=np.zeros_like(excess), excess=excess, p_meets=np.array([0.25, 0.25, 0.6]))
    service: Any = SimpleNamespace(**{PER_GPU: np.full(3, 8.0), "e2e_s": np.full(3, 2.0)})
    standing = Standing.of(study, limits, check, service, np.full(3, np.nan))
    assert standing.worst == pytest.approx([0.2, 0.5, 0.0])
    assert standing.gain == pytest.approx([2.0, 2.0, 4.8])


def test_noise_does_not_decide_between_plans_that_serve_one_rate() -> None:
    """Of plans that serve 2,475 tokens/s but for noise the quicker is first; 1 % less is behind, however quick."""
    study = question(
        objective={"maximize": PER_GPU},
        workload={"isl": 3000, "osl": 300, "request_rate_per_s": 6},
    )

    def value(tokens: float, p: float, e2e_s: float) -> float:
        metrics = {PER_GPU: tokens, "e2e_s": e2e_s}
        return ranking_value(study, SimpleNamespace(metrics=metrics, p_meets=p))

    for tokens in (2475.0, 2475.0000000000005, 2474.9999999999995):
        for p in (1.0, 0.9999999999999978, 0.9999):
            assert value(tokens, p, 4.29) > value(2475.0, 1.0, 4.47)
            assert value(tokens * 0.99, p, 0.1) < value(2475.0, 1.0, 4.47)
    values = [value(2475.0, float(p), 4.0) for p in np.linspace(0.001, 1.0, 5000)]
    assert values == sorted(values)
    thousand = value(1000.0, 1.0, 4.29)
    assert value(999.9999999999999, 1.0, 4.29) == pytest.approx(thousand, rel=1e-12)


def test_points_that_no_other_is_better_than() -> None:
    """As good in one figure and better in the other is better; equal points are both kept, or one in a band."""
    points = np.array([[1.0, 2.0], [1.0, 1.0], [0.0, 3.0], [0.0, 3.0]])
    assert nondominated(points).tolist() == [True, False, True, True]
    falling = np.array([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]])
    owner = np.array([0, 1, 2])
    for owners in (1, 2, 3):
        assert skyband(falling, owner, owners).tolist() == [k < owners for k in range(3)]


def test_errors_of_throughput_move_a_cost_the_other_way() -> None:
    """Half of the tokens at the same price are twice as dear; TPOT is drawn by itself."""
    one = np.ones(1)
    loop = Latencies(first_s=one, wait_s=0.0 * one, longest_extra_s=0.0 * one, tpot_s=one, outputs=1.0)
    drawn = Draws.of(loop, np.array([2.0]), np.array([2.0]))
    assert drawn.throughput_factor[0] == pytest.approx(0.5)
    assert drawn.metric(COST, np.array([3.0]))[0] == pytest.approx(6.0)
    assert drawn.metric(PER_GPU, np.array([3.0]))[0] == pytest.approx(1.5)
    assert drawn.metric("tpot_s", np.array([9.0]))[0] == pytest.approx(2.0)


def test_a_range_of_requests_in_flight_is_shared_out_whole() -> None:
    """From 10 to 25 over four replicas: at least three each, at most six."""
    study = question(search={"max_num_batched_tokens": [1024], "concurrency": {"min": 10, "max": 25}})
    low, high = bounds(study, np.array([4.0]))
    assert (low.tolist(), high.tolist()) == ([3.0], [6.0])
