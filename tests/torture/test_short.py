"""The fault suite in its short form; `make torture` is the long one."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests import postgresql
from tests.torture.faults import FILES
from tests.torture.suite import run


@pytest.mark.parametrize("kind", ["files", "postgresql"])
def test_nothing_is_lost(kind: str, tmp_path: Path) -> None:
    """Every fault once: all plans are there afterwards, none twice, no file half written."""
    random = Random(20261124)  # noqa: S311  # decides where a process is killed
    if kind == "files":
        total = run(tmp_path, [], random, kinds=FILES, kills=1, rounds=1, brief=True)
    else:
        if not postgresql.binaries():
            pytest.skip(postgresql.NEEDS)
        with postgresql.running() as server:
            total = run(tmp_path, [server], random, kinds=[kind], kills=1, rounds=1, brief=True)
    assert total.wrong == []
    assert (total.lost, total.duplicated, total.half_written) == (0, 0, 0)
    assert total.faults == total.resumed == ((4 + 1) + (3 + 1) if kind == "files" else 3 + 1)
