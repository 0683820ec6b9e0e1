"""Ledger, current.json and lock: what a crash leaves, and what two runs at once do."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from socket import gethostname
from typing import Any

import numpy as np
import pytest

from autotune.retuning import archive
from autotune.retuning.ledger import LEDGER_NAME, MAX_LEDGER_BYTES, open_ledger, read_ledger
from autotune.retuning.lock import BusyError, locked
from autotune.retuning.state import CURRENT_NAME, current_document, open_state, past_switches
from costmodel.errors import InputError
from tests.retuning.helpers import decide_once

KILLS = 40
FEW = 8
"""Decisions that say how long one takes."""


def holds(folder: Path, done: int) -> None:
    """All that must be true after a crash and the next opening: nothing lost, nothing twice, one truth."""
    with locked(folder):
        ledger = open_state(folder)
    ids = [line.id for line in ledger.decisions]
    switched = [e["id"] for e in ledger.applied]
    assert len(ids) == len(set(ids))
    assert len(switched) == len(set(switched))
    assert set(switched) <= set(ids)
    assert ids == [f"window-{i}" for i in range(len(ids))]
    assert done <= len(switched) <= len(ids) <= done + 1
    assert not ids or (folder / LEDGER_NAME).read_bytes().endswith(b"\n")
    if switched:
        assert json.loads((folder / CURRENT_NAME).read_text()) == current_document(ledger.applied[-1])


class KilledError(BaseException):
    """Stands for the end of the process; nothing catches it."""


def killed_at(monkeypatch: pytest.MonkeyPatch, call: int, share: float) -> Callable[[], int]:
    """Let the process end at its `call`-th change of the disk; a write gets `share` of its bytes out before."""
    count = 0
    real = {name: getattr(os, name) for name in ("write", "fsync", "replace", "ftruncate", "open")}

    def hook(name: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == call:
                if name == "write":
                    real["write"](args[0], bytes(args[1])[: int(len(args[1]) * share)])
                raise KilledError
            return real[name](*args, **kwargs)

        return run

    for name in real:
        monkeypatch.setattr(os, name, hook(name))
    return lambda: count


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_end_at_every_change_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Ended at each open, write, fsync, rename and truncate in turn, a run leaves what the next goes on from."""
    for call in range(1, 100):
        folder = tmp_path / f"{call}"
        decide_once(folder, 0)
        with monkeypatch.context() as patch:
            calls = killed_at(patch, call, share)
            try:
                decide_once(folder, 1)
            except KilledError:
                pass
            else:
                assert call > calls()
                break
        holds(folder, 1)
        decide_once(folder, 1)
        decide_once(folder, 2)
        holds(folder, 3)
    else:
        pytest.fail("the run never came to its end")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_kill_9_at_random_points(tmp_path: Path) -> None:
    """A process that decides window after window, killed 40 times: nothing it reported is lost, nothing is twice."""
    random, done = np.random.default_rng(20261124), FEW
    before = time.monotonic()
    for window in range(FEW):
        decide_once(tmp_path, window)
    one_s = (time.monotonic() - before) / FEW  # as fast as this machine is now
    for _ in range(KILLS):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _decide_forever(tmp_path, done, writer)
        os.close(writer)
        time.sleep(random.uniform(0.0, 2.5 * one_s))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told = b""
        while chunk := os.read(reader, 65536):
            told += chunk
        os.close(reader)
        done += len(told)
        holds(tmp_path, done)
        # what was decided but not told of counts as done from here on, after the next run put it into production
        with locked(tmp_path):
            known = len(open_state(tmp_path).decisions)
        if known > done:
            decide_once(tmp_path, known - 1)
            done = known
    assert done > KILLS / 4


def _decide_forever(folder: Path, window: int, writer: int) -> None:
    """Never returns: a forked child must not run on into the test suite."""
    try:
        while True:
            decide_once(folder, window)
            os.write(writer, b".")
            window += 1
    finally:
        os._exit(1)


def test_a_torn_line_is_set_aside_and_kept(tmp_path: Path) -> None:
    """Half a line at the end goes to a file of its own, and the ledger goes on before it."""
    decide_once(tmp_path, 0)
    path = tmp_path / LEDGER_NAME
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"schema":1,"kind":"deci')
    assert len(read_ledger(tmp_path).entries) == 2
    assert path.read_bytes() != whole
    ledger = open_ledger(tmp_path)
    assert ledger.set_aside is not None
    assert ledger.set_aside.read_bytes() == b'{"schema":1,"kind":"deci'
    assert path.read_bytes() == whole


def test_zeros_at_the_end_are_torn_as_well(tmp_path: Path) -> None:
    """Blocks that never reached the disk read as zeros, newline or not."""
    decide_once(tmp_path, 0)
    path = tmp_path / LEDGER_NAME
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 64 + b"\n")
    open_ledger(tmp_path)
    assert path.read_bytes() == whole


def test_damage_before_the_last_line_is_an_error_with_its_line(tmp_path: Path) -> None:
    """Lines that a crash cannot explain are not skipped: every one is named."""
    later = '{"schema":2,"kind":"decision","id":"a","decision":"keep","rule":"x"}'
    (tmp_path / LEDGER_NAME).write_text(f'nonsense\n{later}\n{{"schema":1}}\n')
    with pytest.raises(InputError, match=r"ledger.jsonl:1: must be JSON that begins with") as caught:
        open_ledger(tmp_path)
    assert [p.path.rpartition(":")[2] for p in caught.value.problems] == ["1", "2", "3"]
    assert "must have schema 1, got 2" in str(caught.value)


def test_a_lost_current_file_is_written_again(tmp_path: Path) -> None:
    """The ledger is the truth; current.json follows from it, missing, old or damaged."""
    decide_once(tmp_path, 0)
    wanted = (tmp_path / CURRENT_NAME).read_bytes()
    for spoil in (lambda p: p.unlink(), lambda p: p.write_text("{"), lambda p: p.write_text("{}")):
        spoil(tmp_path / CURRENT_NAME)
        with locked(tmp_path):
            open_state(tmp_path)
        assert (tmp_path / CURRENT_NAME).read_bytes() == wanted


def test_applying_twice_is_applying_once(tmp_path: Path) -> None:
    """A switch is one line, however often it is asked for, and history knows it."""
    decide_once(tmp_path, 0)
    ledger = decide_once(tmp_path, 0)
    assert len(ledger.applied) == 1
    (past,) = past_switches(ledger)
    assert (past.at_s, past.before.plan, past.after.plan) == (0.0, "B", "A")


def test_a_second_run_is_told_who_is_at_work(tmp_path: Path) -> None:
    """Two runs cannot both hold the folder; the second does not wait, and learns the first one's process and host."""
    who = rf"process {os.getpid()} of {re.escape(gethostname())} is deciding"
    with locked(tmp_path), pytest.raises(BusyError, match=who), locked(tmp_path):
        pytest.fail("both hold the lock")
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_wrong_input(tmp_path: Path) -> None:
    """A file where the state folder should be is named, without a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "file"):
        pytest.fail("locked a file")


def test_a_long_ledger_goes_into_archives_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded in size; every decision is in it or in an archive, once; switches stay, and what is gone on from."""
    monkeypatch.setattr(archive, "SHORTEN_BYTES", 60_000)
    monkeypatch.setattr(archive, "KEPT_BYTES", 20_000)
    sizes = []
    for window in range(100):
        decide_once(tmp_path, window)
        sizes.append((tmp_path / LEDGER_NAME).stat().st_size)
    ledger = read_ledger(tmp_path)
    assert max(sizes) < 120_000
    assert len(ledger.applied) == 100
    files = sorted((tmp_path / archive.ARCHIVE_NAME).glob("*.gz"))
    archived = [json.loads(line)["id"] for f in files for line in gzip.decompress(f.read_bytes()).splitlines()]
    here = [line.id for line in ledger.decisions]
    assert sorted(archived + here) == sorted(f"window-{i}" for i in range(100))
    assert here[-1] == "window-99"
    summaries = [line.entry for line in ledger.lines if line.kind == "summary"]
    assert sum(e["decisions"]["switch"] for e in summaries) == len(archived)
    assert {tmp_path / e["archive"] for e in summaries} == set(files)
    assert (tmp_path / LEDGER_NAME).stat().st_mode & 0o077 == 0
    assert all(f.stat().st_mode & 0o077 == 0 for f in files)


def test_a_ledger_that_is_long_for_its_switches_is_not_shortened_at_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stays in the ledger may outgrow its bound: decisions are then still moved many at a time."""
    monkeypatch.setattr(archive, "SHORTEN_BYTES", 60_000)
    monkeypatch.setattr(archive, "KEPT_BYTES", 20_000)
    for window in range(200):
        decide_once(tmp_path, window)
    kept = [line for line in read_ledger(tmp_path).lines if line.kind != "decision"]
    assert sum(len(json.dumps(line.entry)) for line in kept) > archive.SHORTEN_BYTES
    files = list((tmp_path / archive.ARCHIVE_NAME).glob("*.gz"))
    assert all(len(gzip.decompress(file.read_bytes())) >= 20_000 for file in files)


def test_a_ledger_too_long_to_look_at_says_what_shortens_it(tmp_path: Path) -> None:
    """Reading alone changes nothing; a run of `retune` moves older entries away."""
    with (tmp_path / LEDGER_NAME).open("wb") as file:
        file.truncate(MAX_LEDGER_BYTES + 1)
    with pytest.raises(InputError, match="the next `autotune retune` moves older entries into archives"):
        read_ledger(tmp_path)


@pytest.mark.parametrize("name", [LEDGER_NAME, "lock"])
def test_planted_links_are_not_followed(tmp_path: Path, name: str) -> None:
    """A link in the folder to another file: a message, and that file is as it was."""
    victim, folder = tmp_path / "victim", tmp_path / "state"
    victim.write_text("precious")
    folder.mkdir()
    (folder / name).symlink_to(victim)
    with pytest.raises(InputError, match=r"symbolic link|must be JSON"):
        decide_once(folder, 0)
    assert victim.read_text() == "precious"


def test_a_second_torn_end_leaves_the_first_one(tmp_path: Path) -> None:
    """Two crashes at the same place: both ends are kept."""
    for torn in (b"one", b"two"):
        with (tmp_path / LEDGER_NAME).open("ab") as file:
            file.write(torn)
        open_ledger(tmp_path)
    assert sorted(p.read_bytes() for p in tmp_path.glob("*torn*")) == [b"one", b"two"]
