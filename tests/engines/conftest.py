"""The engines that the contract is for: those that are shipped, and one that is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from autotune.engines import ENGINES, Engine
from tests.engines.invented import Lantern, registered

INVENTED = Lantern()


@pytest.fixture(params=[*ENGINES.values(), INVENTED], ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine in turn; the invented one is known while its test runs."""
    with registered(request.param) if request.param is INVENTED else nullcontext():
        yield request.param


@pytest.fixture
def invented() -> Iterator[Engine]:
    """The invented engine alone."""
    with registered(INVENTED):
        yield INVENTED
