"""What random arrivals add to the load that carries a rate, against queues whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autotune.engines import policies_by_name
from costmodel.estimate import open_loop
from costmodel.estimate.batch import PlanBatch
from costmodel.estimate.open_loop import (
    KNOTS,
    OWN_PREFILL,
    QUEUE,
    RUNNING_STEP,
    among_prompts,
    arriving_shares,
    at_random,
    came_since,
    evenly,
    knots_around,
    with_spare,
)
from costmodel.estimate.result import Estimate
from costmodel.plan.columns import Floats, Ints
from costmodel.simulation.requests import Requests, arrivals
from costmodel.simulation.server import server_model
from costmodel.simulation.simulate import simulate
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


def alone(estimate: Estimate, rows: Ints, **_: object) -> Estimate:  # noqa: ARG001
    """What requests meet, were no prompts waiting for others (`among_prompts`)."""
    return estimate


def test_what_is_added_hangs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replicas get half of what one would: parts of TTFT add up to it, and end to end is both latencies."""
    monkeypatch.setattr(open_loop, "among_prompts", alone)
    batch = PlanBatch.of([entry("llama-3.1-8b", "vllm", "h100", replicas=2)])
    asked, bounds = load(6.0), {"longest_prompt": np.array([2000.0]), "memory_fraction": np.array([0.9])}
    before = batch.evaluate(asked, **bounds)
    knots, rate = knots_around(np.array([3.0])), 0.98 * before.requests_per_s
    loads = replace(asked, concurrency=2.0 * knots[0])
    found = batch.take(np.zeros(knots.size, dtype=np.int64)).evaluate(loads, **bounds)
    rows, replicas = np.array([0]), np.array([2.0])
    once, twice, never, bursts = (
        at_random(before, rows, found, knots, offered_per_s=rate, replicas=replicas, stages=np.ones(1), cv2=cv2)
        for cv2 in (1.0, 2.0, 0.0, 8.0)
    )
    assert never.ttft_s[0] == before.ttft_s[0]
    told = with_spare(before, rows, found, knots, 0.5 * rate)
    spare = np.exp(told.spare_sd[0] * before.tpot_log_sd[0])
    assert spare == pytest.approx(found.requests_per_s.max() / (0.5 * rate[0]))
    assert once.tpot_s[0] > 1.01 * before.tpot_s[0]
    assert twice.tpot_s[0] - before.tpot_s[0] == pytest.approx(2.0 * (once.tpot_s[0] - before.tpot_s[0]))
    assert bursts.tpot_s[0] - before.tpot_s[0] == pytest.approx(4.0 * (once.tpot_s[0] - before.tpot_s[0]))
    assert once.ttft_parts_s.sum() == pytest.approx(once.ttft_s[0])
    assert once.e2e_s[0] == pytest.approx(once.ttft_s[0] + 499.0 * once.tpot_s[0])


@pytest.mark.parametrize(("cv2", "off"), [(0.25, 0.1), (0.5, 0.02), (1.0, 0.02), (2.0, 0.12)])
def test_came_since(cv2: float, off: float) -> None:
    """As many as gaps of a gamma distribution leave room for: of even ones nobody comes at once, of bursts many do."""
    random = np.random.default_rng(4)
    after = np.cumsum(random.gamma(1.0 / cv2, cv2, (20_000, 40)), axis=1)
    for mean in (0.3, 1.0, 4.0):
        counted = float((after <= mean).sum(axis=1).mean())
        assert came_since(np.array([mean]), np.array([cv2]))[0] == pytest.approx(counted, abs=off)


def test_prompts_behind_a_first_token_by_hand() -> None:
    """Prompts of 0.1 s, 4 per second and replica: those that came in 0.35 s run in a time of which 60 % are free."""
    batch = PlanBatch.of([entry("llama-3.1-8b", "vllm", "h100", replicas=2)])
    before = batch.evaluate(load(6.0), longest_prompt=np.array([2000.0]), memory_fraction=np.array([0.9]))
    seconds, parts = np.zeros_like(before.prefill_s), np.zeros_like(before.ttft_parts_s)
    seconds[0, 0], parts[OWN_PREFILL, 0], parts[RUNNING_STEP, 0], parts[QUEUE, 0] = 0.4, 0.15, 0.1, 0.3
    made = replace(
        before,
        prefill_s=seconds,
        ttft_parts_s=parts,
        prefill_passes_per_request=np.array([0.5]),
        ttft_s=np.array([0.6]),
        tpot_s=np.array([0.02]),
        e2e_s=np.array([2.6]),
    )
    rows, prompts = np.array([0]), {"prompt_s": np.array([0.1]), "passes": np.array([0.5]), "per_s": np.array([4.0])}
    prompts["slowest_s"] = np.array([np.inf])
    after = among_prompts(made, rows, uneven=np.ones(1), **prompts)
    assert after.e2e_s[0] == pytest.approx(2.6 + 0.1 * (4.0 * 0.35) / (1.0 - 4.0 * 0.1))
    assert after.tpot_s[0] == pytest.approx((after.e2e_s[0] - 0.6) / 100.0)
    assert after.ttft_s[0] == 0.6
    # gaps of a variance of three times the squared mean: as M/D/1, by the root of the share of time
    bursts = among_prompts(made, rows, uneven=np.array([3.0]), **prompts)
    assert bursts.ttft_s[0] == pytest.approx(0.6 + 0.1 * np.sqrt(0.4) / 0.6)
    assert bursts.ttft_parts_s[QUEUE, 0] - made.ttft_parts_s[QUEUE, 0] == pytest.approx(0.1 * np.sqrt(0.4) / 0.6)
    assert bursts.e2e_s[0] - bursts.ttft_s[0] == pytest.approx(100.0 * bursts.tpot_s[0])
    # with all in flight that it has room for, a token takes 0.0205 s: no more prompts can come beside
    full = among_prompts(made, rows, uneven=np.ones(1), **(prompts | {"slowest_s": np.array([0.0205])}))
    assert (full.tpot_s[0], full.e2e_s[0]) == (pytest.approx(0.0205), pytest.approx(2.6 + 2.0 * 0.025))
    # a pass of 0.4 s through two stages, half a pass for each prompt: the same 0.1 s, 4 per second on each replica
    two = np.array([2.0])
    even = evenly(made, rows, offered_per_s=np.array([8.0]), replicas=two, stages=two)
    came = float(came_since(np.array([4.0 * 0.35]), np.zeros(1))[0])
    assert even.e2e_s[0] == pytest.approx(2.6 + 0.1 * came / (1.0 - 4.0 * 0.1))


@pytest.mark.parametrize(("engine", "osl"), [("vllm", 100.0), ("sglang", 60.0)])
def test_decoding_with_many_prompts_at_a_rate(engine: str, osl: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long prompts and short outputs: decoding is told as it is simulated, 0.8 and 0.7 times that without them."""
    batch = replace(PlanBatch.of([entry("llama-3.1-8b", engine, "h100")]), residual=None)
    asked = load(2.0, isl=12_000.0, osl=osl)
    bounds = {"longest_prompt": asked.isl, "memory_fraction": np.array([0.9])}
    rate, count, random = 1.3, 3000, np.random.default_rng(6)
    prompt, output = (np.rint(mean * random.uniform(0.5, 1.5, count)).astype(np.int64) for mean in (12_000.0, osl))
    model = server_model(batch, asked, policy=policies_by_name()[engine], **bounds)
    requests = Requests(
        arrival_s=arrivals(count, rate, 1.0, random), prompt=prompt, cached=np.zeros_like(prompt), output=output
    )
    served = simulate(model, requests).served
    simulated = float((served.e2e_s - served.ttft_s).sum() / (output - 1).sum())

    every = np.arange(1.0, 20.0)
    table = batch.take(np.zeros(every.size, dtype=np.int64)).evaluate(replace(asked, concurrency=every), **bounds)
    at = every[[int((table.requests_per_s >= rate).argmax())]]
    knots, rows = knots_around(at), np.array([0])
    found = batch.take(np.zeros(knots.size, dtype=np.int64)).evaluate(replace(asked, concurrency=knots[0]), **bounds)
    offered, one = np.array([rate]), np.ones(1)
    carried = batch.evaluate(replace(asked, concurrency=at), **bounds)
    told = at_random(carried, rows, found, knots, offered_per_s=offered, replicas=one, stages=one, cv2=1.0)
    monkeypatch.setattr(open_loop, "among_prompts", alone)
    without = at_random(carried, rows, found, knots, offered_per_s=offered, replicas=one, stages=one, cv2=1.0)
    assert without.tpot_s[0] < 0.9 * simulated
    assert told.tpot_s[0] == pytest.approx(simulated, rel=0.1)
