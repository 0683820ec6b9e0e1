"""Inter-token latency: what the steps between two tokens of a request take, and their sum over all tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.simulation.requests import Requests, arrivals
from costmodel.simulation.served import Figures
from costmodel.simulation.simulate import Simulated, simulate
from costmodel.simulation.token_gaps import GapRecorder
from tests.simulation.helpers import POLICIES, small_server, small_table

STEP_S, TOKEN_S = 0.0007, 1e-5
RESOLUTION = 0.01


def requests_of(*rows: tuple[float, int, int]) -> Requests:
    """Requests by arrival, prompt and output."""
    times, prompts, outputs = zip(*rows, strict=True)
    return Requests(
        arrival_s=np.array(times),
        prompt=np.array(prompts),
        cached=np.zeros(len(rows), dtype=np.int64),
        output=np.array(outputs),
    )


def gaps_of(done: Simulated) -> np.ndarray:
    """Every gap, ascending, seconds."""
    lengths, counts, _ = done.gaps.pieces()
    return np.sort(np.repeat(lengths, np.round(counts).astype(np.int64)))


def drawn(count: int) -> Requests:
    """Requests that come faster than they leave at times."""
    random = np.random.default_rng(17)
    rows = zip(
        arrivals(count, 60.0, 1.5, random).tolist(),
        random.integers(50, 900, count).tolist(),
        random.integers(1, 90, count).tolist(),
        strict=True,
    )
    return requests_of(*rows)


@pytest.mark.parametrize(("engine", "held_back"), [("vllm", 1), ("sglang", 2)])
def test_a_prompt_between_two_tokens_is_in_the_gap(engine: str, held_back: int) -> None:
    """A second prompt lengthens one gap of the first request: by its prefill, and by a step where it runs alone."""
    table = small_table(prompt_token_s=TOKEN_S, step_s=STEP_S)
    model = small_server(table, POLICIES[engine])
    gaps = gaps_of(simulate(model, requests_of((0.0, 100, 9), (0.0031, 200, 1))))
    assert gaps == pytest.approx([STEP_S] * 7 + [TOKEN_S * 200 + held_back * STEP_S])


@pytest.mark.parametrize("kv_tokens", [1e9, 4000.0])
@pytest.mark.parametrize("engine", list(POLICIES))
def test_gaps_are_the_time_between_first_and_last_token(engine: str, kv_tokens: float) -> None:
    """All gaps together are the time that all requests decode, preempted ones too; each further token has one."""
    table = small_table(prompt_token_s=TOKEN_S, context_s=1e-7, step_s=STEP_S)
    model = small_server(table, POLICIES[engine], kv_tokens=kv_tokens, budget=512)
    done = simulate(model, drawn(300))
    served, (lengths, counts, _) = done.served, done.gaps.pieces()
    assert (done.preemptions > 0) == (kv_tokens < 1e9 and engine != "trtllm")
    assert counts.sum() == pytest.approx((served.requests.output - 1).sum(), rel=1e-9)
    assert (lengths * counts).sum() == pytest.approx((served.finish_s - served.first_token_s).sum(), rel=1e-6)


@pytest.mark.parametrize("engine", list(POLICIES))
def test_the_quick_queue_has_the_gaps_of_the_replica(engine: str) -> None:
    """Both forms of the simulation record the same gaps."""
    table = small_table(prompt_token_s=TOKEN_S, context_s=1e-7, step_s=STEP_S)
    model = small_server(table, POLICIES[engine], budget=512)
    quick, whole = (simulate(model, drawn(300), timeline=timeline).gaps.pieces() for timeline in (False, True))
    assert quick[1].sum() == pytest.approx(whole[1].sum())
    for statistic in ("mean", "p50", "p90", "p95", "p99"):
        ours, theirs = (Figures(values=x[0], weights=x[1]).statistic(statistic) for x in (quick, whole))
        assert ours == pytest.approx(theirs, rel=RESOLUTION)


def test_gaps_that_grow_are_evenly_spread() -> None:
    """Of a run of gaps from 10 to 20 ms the mean is 15, and p90 is 19."""
    recorder = GapRecorder()
    recorder.add(1.0, 0.010, 0.020, 1000)
    lengths, counts, _ = recorder.gaps().pieces()
    figures = Figures(values=lengths, weights=counts)
    assert figures.statistic("mean") == pytest.approx(0.015)
    assert figures.statistic("p90") == pytest.approx(0.019, rel=RESOLUTION)
    slow = replace(recorder.gaps()).slowed(2.0)
    assert float(slow.pieces()[0].max()) == pytest.approx(2.0 * float(lengths.max()))
