"""One run at a time on a state folder: a lock that the kernel gives back when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from costmodel.errors import InputError

LOCK_NAME = "lock"


class BusyError(Exception):
    """Another run holds the state folder.

    Attributes:
        holder: its process id as it wrote it, or "" where it has not yet.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        self.holder = holder
        who = f"process {holder}" if holder else "another process"
        super().__init__(f"{folder}: {who} is deciding on this state right now; nothing was done")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; it is made where it does not exist.

    Raises:
        BusyError: at once, where another process holds it.
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError.single(str(folder), f"cannot be used as a state folder: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(folder, os.read(handle, 32).decode("ascii", "replace").strip()) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)  # gives the lock back; the file stays, so that no two runs can lock two files of one name
