"""Rates over a window's time, and profiles that were written before they were kept."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.traffic.profile import profile_from_json, profile_of_arrays
from autotune.traffic.rates import rate_of_counts
from autotune.traffic.series import SampledMetrics


def test_levels_of_the_rate_keep_its_mean() -> None:
    """Ten of 30 minutes with 120 requests, the others with 60: a third of the levels at 2 a second, the rest at 1."""
    minutes = [np.linspace(60.0 * k, 60.0 * k + 59.0, 120 if k % 3 == 0 else 60) for k in range(30)]
    times = np.concatenate(minutes)
    profile = profile_of_arrays(times, times + 1.0, times + 1.0, start_s=0.0, end_s=1800.0)
    levels = profile.rate.levels_per_s
    assert len(levels) == 20
    assert levels[:13] == pytest.approx([1.0] * 13)
    assert levels[14:] == pytest.approx([2.0] * 6)
    assert np.mean(levels) == pytest.approx(profile.rate.mean_per_s)


def test_a_profile_without_levels_is_still_read() -> None:
    """Ledgers written before rates had levels go on being compared with."""
    times = np.arange(100.0)
    written_now = profile_of_arrays(times, times + 1.0, times + 1.0).to_json()
    before = {**written_now, "rate": {k: v for k, v in written_now["rate"].items() if k != "levels_per_s"}}
    assert profile_from_json(written_now).rate.levels_per_s != ()
    assert profile_from_json(before).rate.levels_per_s == ()


def test_a_rate_of_which_nothing_is_known_has_an_interval() -> None:
    """Counts of which one stands for all the others leave any rate possible, and no overflow."""
    rate = rate_of_counts(total=2.0, span_s=60.0, peak_per_s=1e28, burstiness=1e29, bin_s=3.0, num_bins=20)
    low, high = rate.mean_interval_per_s
    assert 0.0 < low < rate.mean_per_s * 1e-8
    assert rate.mean_per_s * 1e8 < high < float("inf")


def test_what_no_counter_can_hold_is_left_out() -> None:
    """A value beyond the largest whole number that is exact, or none, is no sample."""
    metrics = SampledMetrics()
    metrics.add("vllm:prompt_tokens_total", {}, [(1.0, 2.0), (2.0, 1e30), (3.0, float("nan")), (4.0, 5.0)])
    assert metrics.times() == [1.0, 4.0]
