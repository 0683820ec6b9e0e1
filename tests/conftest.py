"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from autotune.simulation.simulate_plan import study_traffic

# how fast examples are made says how busy the machine is, not whether the code is right
settings.register_profile("autotune", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("autotune")


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than processors: many tests wait for processes that they start, stop or kill."""
    return (os.cpu_count() or 1) + 1


DATA = Path(__file__).resolve().parent / "data"
"""Extracts of public data; its README names the sources."""


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of measurements and model configs beside the repository; tests that need it skip without it."""
    folder = DATA.parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no folder of shared measurements beside the repository")
    return folder


@pytest.fixture
def few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traffic is drawn of 300 requests, not of thousands: for what is said of a simulation, whatever its figures."""
    monkeypatch.setitem(study_traffic.__kwdefaults__, "count", 300)
