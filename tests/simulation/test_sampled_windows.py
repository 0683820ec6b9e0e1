"""A log by windows that stand for it, held against the whole log."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.simulation import Traffic
from costmodel.simulation.forecast import StepErrors, forecast
from costmodel.simulation.requests import Requests, arrivals
from costmodel.simulation.sampled_windows import WINDOWS_OF_EACH, sample_windows
from costmodel.simulation.simulate import ServerModel
from tests.simulation.helpers import small_server, small_table

KNOWN = StepErrors(pace=1.0, pace_log_sd=0.0, first=1.0, first_log_sd=0.0)
WARM_UP_S = 2.0


def day_of(count: int, per_s: float, seed: int) -> Requests:
    """Arrivals whose rate rises to five times its least and falls again."""
    random = np.random.default_rng(seed)
    even = arrivals(count, 1.0, 1.0, random) / count
    hours = np.linspace(0.0, 1.0, 2001)
    come = hours - np.sin(2.0 * np.pi * hours) / (3.0 * np.pi)
    return Requests(
        arrival_s=count / per_s * np.interp(even, come, hours),
        prompt=random.integers(50, 900, count),
        cached=np.zeros(count, dtype=np.int64),
        output=random.integers(2, 90, count),
    )


def server() -> ServerModel:
    """A server that is nearly full at the day's fullest."""
    return small_server(small_table(prompt_token_s=2e-5, context_s=1e-7, step_s=0.004), budget=512)


def test_windows_stand_for_the_whole_log() -> None:
    """Weights add up to the log's requests, windows keep their length, and each has its warm-up before it."""
    requests = day_of(40_000, 20.0, seed=1)
    sample = sample_windows(requests, WARM_UP_S)
    assert sample is not None
    counted = sample.window >= 0
    assert sample.weight[sample.window[counted]].sum() == pytest.approx(len(requests), rel=0.01)
    assert np.bincount(sample.stratum).max() == WINDOWS_OF_EACH
    arrival_s = sample.requests.arrival_s
    assert np.all(np.diff(arrival_s) >= 0.0)
    assert np.all(sample.window_at(arrival_s[counted]) == sample.window[counted])
    before = arrival_s[~counted]
    following = np.searchsorted(sample.begin_s, before, side="left")
    assert np.all(sample.begin_s[following] - before <= WARM_UP_S + 1e-6)
    assert len(sample.requests) < len(requests) / 5


def test_a_short_log_is_not_sampled() -> None:
    """Where the windows would be a third of a log, it is simulated whole."""
    assert sample_windows(day_of(1_500, 20.0, seed=1), WARM_UP_S) is None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_sample_says_what_the_whole_log_does(seed: int) -> None:
    """Means and percentiles are those of the whole log within four times what the sample says of its error."""
    requests, model = day_of(40_000, 20.0, seed), server()
    traffic = Traffic(requests=requests, rate_per_s=20.0, concurrency=None, counted_from=0, recorded=True)
    sampled = traffic.sampled(WARM_UP_S)
    assert sampled.sample is not None
    whole, part = (forecast(model, KNOWN, x.serve) for x in (traffic, sampled))
    close = 0
    asked = [(n, s) for n in ("ttft", "tpot", "itl", "e2e") for s in ("mean", "p50", "p90", "p95", "p99")]
    for name, statistic in asked:
        error = part.sampling_error(name, statistic)
        assert error is not None
        off = abs(part.latency(name, statistic).value - whole.latency(name, statistic).value)
        # four windows of a stratum say little of how much they differ; gaps are cut into pieces of half a percent
        assert off <= 4.0 * error + 0.01 * whole.latency(name, statistic).value, (name, statistic)
        close += off <= error + 0.01 * whole.latency(name, statistic).value
    assert close >= 0.6 * len(asked)
    bounds = {"ttft_s": whole.latency("ttft", "p90").value, "tpot_s": None, "e2e_s": None}
    error = part.attainment_sampling_error(**bounds)
    assert error is not None
    assert part.attainment(**bounds).value == pytest.approx(0.9, abs=4.0 * error + 1e-3)
    assert whole.sampling_error("ttft", "p99") is None
