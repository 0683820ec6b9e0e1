"""Writers leave the old or the new, follow no planted link and obey the umask; locks end with their holder."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.files import LockedError, OutFile, append_file, cut_file, locked, write_file, write_folder
from costmodel.errors import InputError


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Text, bytes and pieces arrive as they are, missing folders are made, and nothing else stays behind."""
    path = tmp_path / "deep" / "result.json"
    for content, bytes_ in (("α\n", "α\n".encode()), (b"\0", b"\0"), ((bytes([i]) for i in range(9)), bytes(range(9)))):
        write_file(path, content)
        assert path.read_bytes() == bytes_
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


def test_what_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    """An error while the content is made leaves the old file and no other."""
    path = tmp_path / "x"
    write_file(path, "old")

    def broken() -> Iterator[bytes]:
        yield b"new"
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(InputError, match=r"x: cannot be written: Input/output error"):
        write_file(path, broken())
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """Where a link stands in a file's place, the link goes and what it names stays; a lock refuses to follow one."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "out").symlink_to(victim)
    (tmp_path / "lock").symlink_to(victim)
    write_file(tmp_path / "out", "new")
    assert not (tmp_path / "out").is_symlink()
    with pytest.raises(InputError, match="lock: cannot be written"), locked(tmp_path / "lock"):
        pytest.fail("followed the link")
    assert victim.read_text() == "mine"


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    """Files and the files of folders get the permissions that the user's umask leaves."""
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "x", "x")
        append_file(tmp_path / "y", b"y")
        write_folder(tmp_path / "z", {"a.sh": OutFile(text="a", executable=True), "b": OutFile(text="b")})
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("x", "y", "z", "z/a.sh", "z/b")]
    assert modes == [0o640, 0o640, 0o750, 0o750, 0o640]


def test_appending_and_cutting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a full disk cuts short is taken back; a file that must be there is not made."""
    path = tmp_path / "log"
    append_file(path, b"first\n")
    real = os.write

    def full(handle: int, data: bytes) -> int:
        if len(data) > 3:
            return real(handle, bytes(data[:3]))
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(InputError, match="No space left on device"):
            append_file(path, b"second\n")
    assert path.read_bytes() == b"first\n"
    cut_file(path, 2)
    assert path.read_bytes() == b"fi"
    with pytest.raises(InputError, match="No such file"):
        append_file(tmp_path / "other", b"x", create=False)


def test_a_lock_is_waited_for_and_ends_with_its_holder(tmp_path: Path) -> None:
    """A live holder keeps others out for as long as they wait; a killed one does not."""
    path = tmp_path / "lock"
    hold = "import sys, time; from pathlib import Path; from autotune.files import locked\n"
    hold += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(LockedError), locked(path, timeout_s=0.05):
        pytest.fail("both hold the lock")
    holder.kill()
    holder.communicate()
    with locked(path, timeout_s=5.0):
        pass


def test_a_file_system_without_locks_is_not_a_busy_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the lock call other than "held" is said as what it is."""

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(InputError, match="cannot be locked on its file system: No locks available"):
        locked(tmp_path / "lock").__enter__()


def test_a_lock_of_a_file_that_was_moved_away_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is on the file that has the name when it is held, and not on one that had it."""
    path = tmp_path / "lock"
    real, moved = fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not moved:
            moved.append(path.rename(tmp_path / "aside"))
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(path) as handle:
        assert os.path.samestat(os.fstat(handle), path.stat())
    assert moved
