"""`autotune worker` and `autotune tune` on one PostgreSQL: shared work, one answer, no password anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.storage import open_store
from autotune.storage.browse import Studies
from costmodel.errors import InputError
from tests.postgresql import PASSWORD, Server
from tests.torture.harness import OVERRIDES, STUDY, answer

OPTIONS = [str(STUDY), *(x for o in OVERRIDES for x in ("--set", o)), "--json"]


def start(command: str, *arguments: str) -> subprocess.Popen[str]:
    """A command under way."""
    return subprocess.Popen(
        [sys.executable, "-m", "autotune", command, *OPTIONS, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_workers_share_a_study(postgresql: Server, tmp_path: Path) -> None:
    """Two helpers and a tuner store each plan once; the answer is that of one process; the password is nowhere."""
    out = tmp_path / "out"
    helpers = [start("worker", "--storage", postgresql.url) for _ in range(2)]
    tuner = start("tune", "--top", "0", "--storage", postgresql.url, "--out", str(out))
    said = [p.communicate() for p in (*helpers, tuner)]
    assert [p.returncode for p in (*helpers, tuner)] == [0, 0, 0], said
    found = json.loads(said[2][0])
    shares = [json.loads(text) for text, _ in said[:2]]
    assert sum(share["scored"] for share in shares) + found["scored_now"] == found["counts"]["valid"]
    assert [share["twice"] for share in shares] == [0, 0]
    alone, _ = start("tune", "--top", "0", "--no-storage").communicate()
    assert answer(found) == answer(json.loads(alone))
    assert PASSWORD not in str(said)
    for file in out.iterdir():
        assert PASSWORD.encode() not in file.read_bytes()


def open_it(storage: str) -> Studies:
    """As `tune` and `worker` open a storage."""
    open_store(storage, "mine", "f" * 64, ["maximize"], gpus=8)
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
                use(storage).summaries()
            assert PASSWORD not in str(caught.value), storage
            chain = [caught.value.__cause__, None if caught.value.__suppress_context__ else caught.value.__context__]
            assert PASSWORD not in str(chain), storage
