"""Limits that queueing theory knows: one request at a time, Little's law, and jumps that equal single steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.plan.columns import Ints
from costmodel.simulation.replica import Replica
from costmodel.simulation.requests import Requests, arrivals
from costmodel.simulation.simulate import ServerModel, simulate, simulate_closed
from costmodel.simulation.state import Request
from tests.simulation.helpers import POLICIES, small_server, small_table

TOKEN_S, STEP_S = 0.0013, 0.0007
COUNT = 60_000


def _one_at_a_time() -> ServerModel:
    return small_server(small_table(prompt_token_s=TOKEN_S), seats=1)


def _mean_wait_s(prompt: Ints, rate_per_s: float, cv: float) -> float:
    """From arrival to the start of prefill, mean over requests of one token each."""
    requests = Requests(
        arrival_s=arrivals(prompt.size, rate_per_s, cv, np.random.default_rng(3)),
        prompt=prompt,
        cached=np.zeros(prompt.size, dtype=np.int64),
        output=np.ones(prompt.size, dtype=np.int64),
    )
    # a request of one token gives its seat back with its prefill, so that a budget of one prompt serves one at a time
    return float((simulate(_one_at_a_time(), requests).served.ttft_s - TOKEN_S * prompt).mean())


def _stepped(model: ServerModel, requests: list[Request], every_s: float | None) -> np.ndarray:
    """Ends of requests that are served in one go, or looked at so often that no two steps are taken at once."""
    replica = Replica(model.table, model.policy, model.limits)
    for request in requests:
        replica.offer(request)
    if every_s is not None:
        for tick in range(1, int(40.0 / every_s)):
            replica.advance(tick * every_s)
    replica.advance()
    return np.array([(r.first_token_s, r.finish_s) for r in requests])


@pytest.mark.parametrize("use", [0.3, 0.7])
def test_a_server_of_equal_prompts_is_m_d_1(use: float) -> None:
    """Poisson arrivals of one length wait `use s / (2 (1 - use))`, with one prompt a step."""
    model = _one_at_a_time()
    service = TOKEN_S * model.limits.batched_tokens
    prompt = np.full(COUNT, model.limits.batched_tokens, dtype=np.int64)
    assert _mean_wait_s(prompt, use / service, 1.0) == pytest.approx(use * service / (2.0 * (1.0 - use)), rel=0.04)


def test_equal_gaps_wait_for_nobody() -> None:
    """Prompts that come no sooner than they are served never wait."""
    prompt = np.full(1000, 8192, dtype=np.int64)
    assert _mean_wait_s(prompt, 0.99 / (TOKEN_S * 8192), 0.0) == pytest.approx(0.0, abs=1e-9)


def test_a_server_of_unequal_outputs_is_m_g_1() -> None:
    """With one seat, requests of varied outputs wait `rate E[s^2] / (2 (1 - use))` for it."""
    random = np.random.default_rng(5)
    output = random.integers(2, 200, COUNT)
    # a step for the prompt, and one for each further token
    service = STEP_S * output
    rate = 0.6 / service.mean()
    requests = Requests(
        arrival_s=arrivals(COUNT, rate, 1.0, random),
        prompt=np.ones(COUNT, dtype=np.int64),
        cached=np.zeros(COUNT, dtype=np.int64),
        output=output,
    )
    served = simulate(small_server(small_table(step_s=STEP_S), seats=1), requests).served
    waited = float((served.ttft_s - STEP_S).mean())
    assert waited == pytest.approx(rate * float((service**2).mean()) / (2.0 * (1.0 - 0.6)), rel=0.06)


@pytest.mark.parametrize("engine", list(POLICIES))
def test_littles_law_in_a_closed_loop(engine: str) -> None:
    """Requests in flight are requests per second times the time that each takes."""
    random, count, slots = np.random.default_rng(7), 3000, 23
    model = small_server(small_table(prompt_token_s=1e-5, context_s=1e-7, step_s=STEP_S), POLICIES[engine])
    prompt, output = random.integers(100, 900, count), random.integers(20, 300, count)
    served = simulate_closed(model, prompt, np.zeros(count, dtype=np.int64), output, concurrency=slots).served
    start, end = served.requests.arrival_s[slots], served.requests.arrival_s[-1]
    # time in flight between two instants, over the length of what is between them
    inside = np.minimum(served.finish_s, end) - np.maximum(served.requests.arrival_s, start)
    assert np.maximum(inside, 0.0).sum() / (end - start) == pytest.approx(slots, rel=1e-9)


@pytest.mark.parametrize("engine", list(POLICIES))
def test_jumps_equal_steps(engine: str) -> None:
    """Decode steps that are taken at once end when they do one by one, to a billionth of a second."""
    random = np.random.default_rng(11)
    table = small_table(prompt_token_s=1e-5, context_s=1e-6, step_s=STEP_S)
    model = small_server(table, POLICIES[engine], budget=512)
    lengths = [
        (float(random.uniform(0, 2)), int(random.integers(50, 900)), int(random.integers(1, 80))) for _ in range(40)
    ]
    lengths.sort()
    made = [[Request(arrival_s=a, prompt=p, cached=0, output=o) for a, p, o in lengths] for _ in range(2)]
    at_once, one_by_one = _stepped(model, made[0], None), _stepped(model, made[1], STEP_S / 3.0)
    assert np.isfinite(at_once).all()
    assert np.abs(at_once - one_by_one).max() < 1e-9


def test_twice_the_pace_is_twice_the_time() -> None:
    """Steps of twice the length, with arrivals at half the rate, double every latency."""
    table = small_table(prompt_token_s=1e-5, context_s=1e-7, step_s=STEP_S)
    model = small_server(table)
    random = np.random.default_rng(13)
    requests = Requests(
        arrival_s=arrivals(300, 40.0, 1.0, random),
        prompt=random.integers(100, 900, 300),
        cached=np.zeros(300, dtype=np.int64),
        output=random.integers(2, 99, 300),
    )
    plain = simulate(model, requests).served
    slow = simulate(model.paced(2.0), replace(requests, arrival_s=2.0 * requests.arrival_s)).served
    assert slow.ttft_s == pytest.approx(2.0 * plain.ttft_s)
    assert slow.e2e_s == pytest.approx(2.0 * plain.e2e_s)
