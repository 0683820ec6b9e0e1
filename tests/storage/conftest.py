"""A PostgreSQL server for the tests of this folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.postgresql import NEEDS, Server, binaries, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A real server."""
    if not binaries():
        warnings.warn(f"NO POSTGRESQL: {NEEDS}; its tests are skipped", stacklevel=1)
        pytest.skip(NEEDS)
    with running() as found:
        yield found


@pytest.fixture
def postgresql(server: Server) -> Server:
    """The server, with nothing in it."""
    server.empty()
    return server
