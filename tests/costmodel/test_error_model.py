"""The error model: what errors make of a closed loop, joint draws against their own statistics, pairs."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.engines import traits_by_name
from costmodel.arch import load_model
from costmodel.calibration.residual import residual_columns
from costmodel.estimate.error_model import (
    TARGET_CORRELATION,
    Correction,
    Latencies,
    Situation,
    draw_factors,
    gap_log_sd,
)
from costmodel.estimate.normal import Z90, normal_cdf, p_below
from costmodel.hardware import load_gpu
from costmodel.plan.columns import LayoutColumns
from costmodel.plan.layout import Layout

LOOP = Latencies(
    first_s=np.array([3.0]),
    wait_s=np.array([7.0]),
    longest_extra_s=np.array([2.0]),
    tpot_s=np.array([0.5]),
    outputs=11.0,
)


def test_errors_in_a_closed_loop_by_hand() -> None:
    """TTFT twice, TPOT three times as long: a request runs 22.5 s instead of 8.5, and all else goes with that."""
    moved, factor = LOOP.moved(np.array([2.0]), np.array([3.0]))
    assert (LOOP.ttft_s[0], LOOP.ttft_longest_s[0], LOOP.e2e_s[0]) == (10.0, 12.0, 15.5)
    assert factor[0] == pytest.approx(8.5 / 22.5)
    assert moved.wait_s[0] == pytest.approx(7.0 * 22.5 / 8.5)
    assert moved.ttft_s[0] == pytest.approx(6.0 + 7.0 * 22.5 / 8.5)
    assert moved.ttft_longest_s[0] == pytest.approx(moved.ttft_s[0] + 4.0)
    assert (moved.tpot_s[0], moved.first_share[0]) == (pytest.approx(1.5), pytest.approx(6.0 / 22.5))


def test_requests_in_flight_stay_what_they_are() -> None:
    """Little's law: throughput times the time of a request is the same in every draw, of those that run and of all."""
    random = np.random.default_rng(11)
    ttft, tpot = np.exp(random.standard_normal((2, 500)))
    moved, factor = LOOP.moved(ttft, tpot)
    assert factor * moved.e2e_s == pytest.approx(np.full(500, LOOP.e2e_s[0]))
    assert factor * moved.running_s == pytest.approx(np.full(500, LOOP.running_s[0]))


def _situation() -> Situation:
    layouts = [
        Layout(replicas=2, pp=1, attn_tp=t, attn_dp=1, moe_tp=1, moe_ep=1, stage_layers=(32,)) for t in (1, 2, 4, 4)
    ]
    columns = LayoutColumns.of(layouts, [traits_by_name()["vllm"]] * 4)
    in_flight = np.array([16.0, 32.0, 64.0, 64.0])
    return Situation.of(columns, in_flight, np.array([1000.0]), np.array([500.0]))


def test_draws_have_the_spread_and_the_correlation_that_they_are_said_to_have() -> None:
    """Of each plan the standard deviation of the log is that of its interval, and TTFT goes with TPOT as assumed."""
    residual = residual_columns([(load_model("llama-3.1-8b"), load_gpu("h100_sxm"), traits_by_name()["vllm"], None)])
    situation = _situation()
    ttft, tpot = (np.log(x) for x in draw_factors([(residual, range(4))], situation, draws=20_000, seed=3))
    correction = Correction.of(residual, situation)
    assert ttft.std(axis=1) == pytest.approx(correction.ttft_log_sd, rel=0.03)
    assert tpot.std(axis=1) == pytest.approx(correction.tpot_log_sd, rel=0.03)
    assert abs(ttft.mean(axis=1)).max() < 0.03 * ttft.std()
    gap = ttft[2] - ttft[3], tpot[2] - tpot[3]  # of equal plans the shared part cancels
    assert np.corrcoef(*gap)[0, 1] == pytest.approx(TARGET_CORRELATION, abs=0.03)


def test_pairs_are_as_far_apart_as_their_draws() -> None:
    """Where TPOT alone counts the spread of a pair's ratio is that of its draws; equal plans differ by their own."""
    residual = residual_columns([(load_model("llama-3.1-8b"), load_gpu("h100_sxm"), traits_by_name()["vllm"], None)])
    situation = _situation()
    _, tpot = draw_factors([(residual, range(4))], situation, draws=20_000, seed=5)
    first, second = np.array([0, 0, 1, 2]), np.array([1, 2, 3, 3])
    said = gap_log_sd(residual, situation, np.zeros(4), first, second)
    drawn = np.log(tpot[first] / tpot[second]).std(axis=1)
    assert said == pytest.approx(drawn, rel=0.03)
    assert said[3] == pytest.approx(np.sqrt(2.0 * residual.tpot.own_variance(situation.phi)[2]))
    assert said[0] > said[3]


def test_without_residuals_nothing_moves() -> None:
    """The formulas alone: factors of one, no spread."""
    none = Correction.of(None, _situation())
    assert [float(x[0]) for x in (none.ttft_factor, none.tpot_factor, none.ttft_log_sd, none.tpot_log_sd)] == [
        1,
        1,
        0,
        0,
    ]
    assert none.throughput_log_sd(np.array([0.3]))[0] == 0.0


def test_eight_in_ten_lie_between_the_ends_of_an_interval() -> None:
    """One in ten lies beyond either end, of the normal distribution and of a log-normal value."""
    assert normal_cdf(np.array([Z90, -Z90])) == pytest.approx([0.9, 0.1], abs=1e-6)
    assert p_below(2.0 * np.exp(Z90 * 0.3), np.array([2.0]), np.array([0.3]))[0] == pytest.approx(0.9, abs=1e-6)


def test_spread_of_throughput_by_hand() -> None:
    """Shares of 0.25 and 0.75 of the errors 0.4 and 0.2, which go together: 0.1 and 0.15."""
    both = Correction(
        ttft_factor=np.ones(1), tpot_factor=np.ones(1), ttft_log_sd=np.array([0.4]), tpot_log_sd=np.array([0.2])
    )
    by_hand = (0.1**2 + 0.15**2 + 2 * TARGET_CORRELATION * 0.1 * 0.15) ** 0.5
    assert both.throughput_log_sd(np.array([0.25]))[0] == pytest.approx(by_hand)
