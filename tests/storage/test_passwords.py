"""PostgreSQL: its password is in no message and in no file."""

from __future__ import annotations

import pytest

from autotune.storage.browse import Studies
from costmodel.errors import InputError
from tests.postgresql import PASSWORD, Server
from tests.storage.helpers import store_at


def open_it(storage: str) -> Studies:
    """As `tune` opens a storage."""
    store_at(storage)
    return Studies(storage)


def test_a_password_is_in_no_error(postgresql: Server) -> None:
    """Wrong host, port, password, database or driver: the message names the storage, and its password never."""
    url = postgresql.url
    wrong = (
        url.replace("127.0.0.1", "no-such-host.invalid"),
        url.replace(f":{postgresql.port}/", ":1/"),
        url.replace(PASSWORD, "wr0ng-" + PASSWORD),
        url.removesuffix("postgres") + "nosuch",
        url.replace("postgresql://", "postgresql+nosuch://"),
        url.replace("postgresql://", "nosuch://"),
        url.replace("postgresql://", "postgresql:"),
        url.replace("@", "@@"),
        f"postgresql://127.0.0.1:{postgresql.port}/postgres?user=tuner&password={PASSWORD}x",
    )
    for storage in wrong:
        for use in (open_it, Studies):
            with pytest.raises(InputError, match=r"storage|scheme|must have @") as caught:
                use(storage).names()
            assert PASSWORD not in str(caught.value), storage
            chain = [caught.value.__cause__, None if caught.value.__suppress_context__ else caught.value.__context__]
            assert PASSWORD not in str(chain), storage
