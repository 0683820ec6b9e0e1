"""What random arrivals add to the load that carries a rate, against queues whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.estimate.batch import PlanBatch
from costmodel.estimate.open_loop import KNOTS, arriving_shares, at_random, knots_around
from costmodel.plan.columns import Floats
from tests.costmodel.helpers import entry, load


def _met(served: Floats, knots: Floats, offered_per_s: float) -> tuple[float, float]:
    """Mean number in flight that a request meets, itself counted, and seconds that it waits beyond the last knot."""
    shares, waits_s = arriving_shares(knots, served, np.array([offered_per_s]))
    assert shares.sum() == pytest.approx(1.0)
    return float((shares * knots).sum()), float(waits_s[0])


@pytest.mark.parametrize("utilised", [0.3, 0.7, 0.95, 0.98])
def test_one_server(utilised: float) -> None:
    """Of a server that serves one at a time each request meets 1 / (1 - utilisation), itself counted."""
    knots = knots_around(np.array([1.0]))
    met, waits_s = _met(np.full_like(knots, 2.0), knots, 2.0 * utilised)
    assert met + 2.0 * waits_s == pytest.approx(1.0 / (1.0 - utilised), rel=0.01)


@pytest.mark.parametrize("offered", [0.4, 3.0, 40.0])
def test_no_queue(offered: float) -> None:
    """Where each takes a second whoever is beside it, who comes meets as many others as come in a second."""
    knots = knots_around(np.array([np.ceil(offered)]))
    met, waits_s = _met(knots + 0.0, knots, offered)
    assert met == pytest.approx(1.0 + offered, rel=0.02)
    assert waits_s < 1e-3


def test_more_served_at_every_number_is_never_worse() -> None:
    """Requests meet no more others where a server does better at each number in flight."""
    random = np.random.default_rng(3)
    knots = knots_around(np.array([7.0]))
    for _ in range(200):
        served = np.cumsum(random.uniform(0.0, 1.0, knots.shape), axis=1) + 0.1
        better = served * random.uniform(1.0, 1.5, knots.shape)
        offered = float(random.uniform(0.1, 0.98) * served[0, -1])
        assert (
            sum(_met(np.maximum.accumulate(better, axis=1), knots, offered)) <= sum(_met(served, knots, offered)) + 1e-9
        )


def test_knots_lie_around_the_number_that_carries() -> None:
    """An eighth of it and eight times of it are asked, where there is room for so many steps below."""
    knots = knots_around(np.array([1.0, 64.0, 100.0]))
    assert knots[0, 0] == 1.0
    assert knots[1, 0] == 8.0
    assert knots[1, -1] == 512.0
    assert (knots[2] == knots[1] * np.sqrt(2.0)).sum() == 0
    assert set(knots.ravel()) <= set(KNOTS)


def test_what_is_added_hangs_together() -> None:
    """Two replicas get half of what one would: parts of TTFT add up to it, and end to end is both latencies."""
    batch = PlanBatch.of([entry("llama-3.1-8b", "vllm", "h100", replicas=2)])
    asked, bounds = load(6.0), {"longest_prompt": np.array([2000.0]), "memory_fraction": np.array([0.9])}
    before = batch.evaluate(asked, **bounds)
    knots, rate = knots_around(np.array([3.0])), 0.98 * float(before.requests_per_s[0])
    loads = replace(asked, concurrency=2.0 * knots[0])
    found = batch.take(np.zeros(knots.size, dtype=np.int64)).evaluate(loads, **bounds)
    rows, replicas = np.array([0]), np.array([2.0])
    once, twice, never = (
        at_random(before, rows, found, knots, offered_per_s=rate, replicas=replicas, cv2=cv2) for cv2 in (1.0, 2.0, 0.0)
    )
    assert never.ttft_s[0] == before.ttft_s[0]
    assert once.tpot_s[0] > 1.01 * before.tpot_s[0]
    assert twice.tpot_s[0] - before.tpot_s[0] == pytest.approx(2.0 * (once.tpot_s[0] - before.tpot_s[0]))
    assert once.ttft_parts_s.sum() == pytest.approx(once.ttft_s[0])
    assert once.e2e_s[0] == pytest.approx(once.ttft_s[0] + 499.0 * once.tpot_s[0])
