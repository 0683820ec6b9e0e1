"""The normal distribution of one error and of two."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
import pytest

from costmodel.estimate.normal import both_below, normal_cdf, p_below, z_below


def by_sum(first: float, second: float, correlation: float) -> float:
    """P(X <= first and Y <= second) by the sum of a fine grid over X."""
    x = np.linspace(-9.0, first, 20_001)
    density = np.exp(-0.5 * x * x) / sqrt(2.0 * pi)
    below = normal_cdf((second - correlation * x) / sqrt(1.0 - correlation**2))
    return float(np.trapezoid(density * below, x))


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.4, 0.7, 0.9, 0.94, 0.96, 0.99, 0.9999])
def test_two_errors_against_a_sum_over_one(correlation: float) -> None:
    """At any two bounds, near each other or not."""
    places = np.array([-2.5, -1.0, -0.2, 0.0, 0.1, 0.8, 3.0])
    for first in places:
        found = both_below(np.full(places.size, first), places, np.array([correlation]))
        wanted = [by_sum(first, second, correlation) for second in places]
        assert found == pytest.approx(wanted, abs=2e-4)


def test_two_errors_that_are_one_or_sure() -> None:
    """Of one error the smaller bound counts, and a bound that is kept for sure takes nothing away."""
    places = np.array([-1.0, 0.3, 2.0])
    one = both_below(places, np.array([0.3]), np.ones(1))
    assert one == pytest.approx(normal_cdf(np.minimum(places, 0.3)), abs=1e-9)
    for correlation in (0.0, 0.4, 0.97, 1.0):
        sure = both_below(places, np.array([np.inf]), np.array([correlation]))
        assert sure == pytest.approx(normal_cdf(places), abs=1e-9)
        assert not both_below(places, np.array([-np.inf]), np.array([correlation])).any()


def test_a_value_without_spread_is_below_or_not() -> None:
    """As infinitely many standard deviations say."""
    medians, none = np.array([1.0, 2.0, 3.0]), np.zeros(3)
    assert z_below(2.0, medians, none).tolist() == [np.inf, np.inf, -np.inf]
    assert p_below(2.0, medians, none).tolist() == [1.0, 1.0, 0.0]
