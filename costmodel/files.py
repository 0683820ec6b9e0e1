"""Opening what a user names as a file: bounded in size, and never waited for without end."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path
from typing import BinaryIO

from costmodel.errors import InputError

PIPE_WAIT_S = 1.5
"""How long a named pipe may take until its first byte: somebody must be writing to it already."""


def open_file(path: Path) -> BinaryIO:
    """Open for reading; a named pipe that nobody writes to is an error, not a wait.

    Raises:
        InputError: cannot be opened, is a folder, or is a pipe from which nothing comes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InputError.single(str(path), f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise InputError.single(repr(str(path)), f"is not a file name: {error}") from error
    try:
        kind = os.fstat(handle).st_mode
        if stat.S_ISDIR(kind):
            raise InputError.single(str(path), "cannot be read: it is a folder")
        # a pipe that a shell hands over as /dev/fd/N has its writer from the start
        if stat.S_ISFIFO(kind) and not os.fspath(path).startswith(("/dev/", "/proc/")):
            waiting = select.poll()
            waiting.register(handle, select.POLLIN)
            if not waiting.poll(PIPE_WAIT_S * 1e3):
                raise InputError.single(str(path), f"is a pipe, and nothing came from it within {PIPE_WAIT_S:g} s")
        os.set_blocking(handle, True)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_file(path: Path, most_bytes: int) -> bytes:
    """Content of a file of at most so many bytes, whatever its size is said to be.

    Raises:
        InputError: as `open_file`; cannot be read, or is larger.
    """
    with open_file(path) as file:
        try:
            raw = file.read(most_bytes + 1)
        except OSError as error:
            raise InputError.single(str(path), f"cannot be read: {error.strerror}") from error
    if len(raw) > most_bytes:
        raise InputError.single(str(path), f"must be at most {most_bytes:,} bytes, is larger")
    return raw
