"""One run at a time on a state folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import gethostname

from autotune import files

LOCK_NAME = "lock"


class BusyError(Exception):
    """Another run holds the state folder."""

    def __init__(self, folder: Path, holder: str) -> None:
        """`holder` is its process id and host as it wrote them, or "" where it has not yet."""
        who = f"process {holder}" if holder else "another process"
        super().__init__(f"{folder}: {who} is deciding on this state right now; nothing was done")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the folder is made where it does not exist.

    Raises:
        BusyError: at once, where another process holds it.
        InputError: the folder cannot be written, or its file system has no locks.
    """
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_NAME
    try:
        with files.locked(path) as handle:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()} of {gethostname()}\n".encode(), 0)
            yield
    except files.LockedError as error:
        raise BusyError(folder, path.read_text(encoding="ascii", errors="replace")[:300].strip()) from error
