"""A log by windows that stand for it, held against the whole log."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autotune.simulation.simulate_plan import Traffic
from costmodel.estimate.normal import Z90, student90
from costmodel.simulation.forecast import LATENCIES, STATISTICS, StepErrors, forecast, with_ends
from costmodel.simulation.requests import Requests, arrivals
from costmodel.simulation.sampled_windows import WINDOWS_OF_EACH, sample_windows
from costmodel.simulation.simulate import ServerModel
from tests.simulation.helpers import small_server, small_table

KNOWN = StepErrors(pace=1.0, pace_log_sd=0.0, first=1.0, first_log_sd=0.0)
WARM_UP_S = 2.0
SLOW = small_table(prompt_token_s=6e-5, context_s=3e-7, step_s=0.008)
GAP_RESOLUTION_S = 5e-5
"""Runs of gaps are cut into pieces of half a percent."""


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


def test_a_quicker_plan_has_the_same_windows_with_shorter_warm_ups() -> None:
    """What counts is the same requests, and fewer others are simulated; a slower plan keeps the sample as it is."""
    requests = day_of(40_000, 4.0, seed=1)
    traffic = Traffic(requests=requests, rate_per_s=4.0, concurrency=None, counted_from=0, recorded=True)
    sampled = traffic.sampled(8.0)
    quicker = sampled.for_plan(4.0)
    assert sampled.for_plan(9.0) is sampled
    assert sampled.sample is not None
    assert quicker.sample is not None
    counted, also = (one.requests.take(np.flatnonzero(one.window >= 0)) for one in (sampled.sample, quicker.sample))
    assert np.array_equal(counted.prompt, also.prompt)
    assert np.array_equal(sampled.sample.weight, quicker.sample.weight)
    assert quicker.sample.warm_up_s == sampled.sample.warm_up_s / 2.0
    assert len(quicker.sample.requests) < 0.8 * len(sampled.sample.requests)


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
    others = arrival_s[~counted]
    nearest = np.abs(others[:, None] - np.concatenate([sample.begin_s, sample.end_s])).min(axis=1)
    assert nearest.max() <= WARM_UP_S + 1e-6
    for begin_s, end_s in zip(sample.begin_s, sample.end_s, strict=True):
        assert np.any((others < begin_s) & (others > begin_s - WARM_UP_S))
        assert np.any((others > end_s) & (others < end_s + WARM_UP_S))
    assert len(sample.requests) < len(requests) / 5


def test_half_of_the_windows_stand_for_as_many_requests() -> None:
    """Two windows of each stratum in place of four, each for twice as much, and not always the earliest."""
    sample = sample_windows(day_of(40_000, 20.0, seed=1), WARM_UP_S)
    assert sample is not None
    half = sample.thinned()
    kept = half.weight > 0.0
    assert np.all(np.bincount(half.stratum[kept]) == WINDOWS_OF_EACH // 2)
    counted, all_counted = half.window >= 0, sample.window >= 0
    assert np.all(kept[half.window[counted]])
    for stratum in range(half.stratum.max() + 1):
        ours, theirs = (
            one.weight[one.window[one.window >= 0]][one.stratum[one.window[one.window >= 0]] == stratum].sum()
            for one in (half, sample)
        )
        assert ours == pytest.approx(theirs, rel=1e-12)
    assert counted.sum() < 0.7 * all_counted.sum()


def test_the_likely_range_is_told_by_half_of_the_windows() -> None:
    """Much as all of them say it; the expected figures are those of all."""
    requests = day_of(22_000, 20.0, seed=3)
    traffic = Traffic(requests=requests, rate_per_s=20.0, concurrency=None, counted_from=0, recorded=True)
    sampled = traffic.sampled(WARM_UP_S)
    errors = replace(KNOWN, pace_log_sd=0.1)
    every = forecast(server(), errors, sampled.serve)
    ends = sampled.of_ends(every.expected)
    base = replace(every.expected, sample=ends.sample)
    half = with_ends(server(), errors, ends.serve, expected=every.expected, base=base)
    assert len(half.slow.served.requests) < 0.7 * len(every.slow.served.requests)
    for name, statistic in (("ttft", "mean"), ("tpot", "p50"), ("itl", "mean"), ("e2e", "p95")):
        ours, theirs = (one.latency(name, statistic) for one in (half, every))
        assert ours.value == theirs.value
        assert ours.low == pytest.approx(theirs.low, rel=0.05)
        assert ours.high == pytest.approx(theirs.high, rel=0.05)


def test_a_short_log_is_not_sampled() -> None:
    """Where the windows would be a third of a log, it is simulated whole."""
    assert sample_windows(day_of(1_500, 20.0, seed=1), WARM_UP_S) is None


ASKED = [(name, statistic) for name in LATENCIES for statistic in STATISTICS]


def _misses(model: ServerModel, requests: Requests) -> list[tuple[str, float, float]]:
    """Of every figure: its name, how far the sample is from the whole log, and what it says of its error."""
    traffic = Traffic(requests=requests, rate_per_s=20.0, concurrency=None, counted_from=0, recorded=True)
    sampled = traffic.sampled(WARM_UP_S)
    assert sampled.sample is not None
    whole, part = (forecast(model, KNOWN, x.serve) for x in (traffic, sampled))
    found = []
    for name, statistic in ASKED:
        ours, theirs = (x.latency(name, statistic).value for x in (part, whole))
        found.append((f"{name} {statistic}", abs(ours - theirs), part.sampling_error(name, statistic)))
    bounds = {"ttft_s": whole.latency("ttft", "p90").value, "tpot_s": whole.latency("tpot", "p95").value, "e2e_s": None}
    off = abs(part.attainment(**bounds).value - whole.attainment(**bounds).value)
    found.append(("attainment", off, part.attainment_sampling_error(**bounds)))
    assert whole.sampling_error("ttft", "p99") is None
    assert all(error is not None for _, _, error in found)
    return [(name, off, error) for name, off, error in found if error is not None]


@pytest.mark.parametrize("replicas", [1, 3])
def test_whole_logs_lie_in_the_stated_intervals_as_often_as_is_said(replicas: int) -> None:
    """Of 80 % intervals three quarters and more hold, of each figure most, and none is far off its own."""
    model = server() if replicas == 1 else replace(small_server(SLOW, budget=512), replicas=replicas)
    held: dict[str, list[bool]] = {}
    for seed in range(8):
        for name, off, error in _misses(model, day_of(22_000, 20.0, seed)):
            assert off <= 4.0 * error + GAP_RESOLUTION_S, (name, seed)
            held.setdefault(name, []).append(off <= error)
    assert 0.75 <= np.mean(list(held.values())) <= 0.95
    assert min(np.mean(each) for each in held.values()) >= 0.5


def test_the_quantile_is_that_of_student() -> None:
    """Against printed tables, from one degree of freedom to those at which it is the normal one."""
    for freedom, quantile in ((1, 3.078), (2, 1.886), (3, 1.638), (5, 1.476), (10, 1.372), (30, 1.310)):
        assert student90(freedom) == pytest.approx(quantile, rel=0.025 if freedom == 1 else 0.002)
    assert student90(1e9) == pytest.approx(Z90)
