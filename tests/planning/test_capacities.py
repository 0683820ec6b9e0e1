"""Replicas together: what they take, and the fewest that take a load."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.planning.capacities import Capacities


def test_by_hand() -> None:
    """Three replicas take what each of two would, four take more each, and a load of 7 needs four of them."""
    found = Capacities.of(np.array([1, 2, 4]), np.array([1.0, 1.5, 1.8]))
    assert found.together(np.arange(6)).tolist() == pytest.approx([0.0, 1.0, 3.0, 4.5, 7.2, 9.0])
    assert [found.fewest(load) for load in (0.1, 1.0, 3.0, 4.5, 4.6, 7.0, 7.3)] == [1, 1, 2, 3, 4, 4, 5]


@pytest.mark.parametrize("seed", range(20))
def test_one_less_does_not_take_the_load(seed: int) -> None:
    """The fewest replicas take a load, and one less does not."""
    random = np.random.default_rng(seed)
    found = Capacities.of(np.array([1, 2, 3, 6, 12]), random.uniform(0.5, 2.0, 5))
    for load in random.uniform(0.1, 40.0, 20):
        fewest = found.fewest(load)
        assert found.together(fewest) >= load * (1.0 - 1e-6)
        assert fewest == 1 or found.together(fewest - 1) < load
