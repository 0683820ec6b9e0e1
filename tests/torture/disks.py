"""Small and read-only folders: a tmpfs where one can be mounted, permissions else."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

MS_RDONLY, MS_REMOUNT = 1, 32
MNT_DETACH = 2
ROOM_BYTES = 64 << 20


@contextlib.contextmanager
def small(folder: Path, size_bytes: int) -> Iterator[Path | None]:
    """A tmpfs of that size, or None where none can be mounted."""
    folder.mkdir(exist_ok=True)
    if not _mount(folder, size_bytes, 0):
        yield None
        return
    try:
        yield folder
    finally:
        _libc().umount2(os.fsencode(folder), MNT_DETACH)


def mountable(folder: Path) -> bool:
    """Whether a tmpfs can be mounted."""
    with small(folder, ROOM_BYTES) as disk:
        return disk is not None


def resize(disk: Path, size_bytes: int) -> None:
    """Make room, or take it away."""
    if not _mount(disk, size_bytes, MS_REMOUNT):
        raise OSError(f"{disk} cannot be resized")


def freeze(disk: Path | None, folders: Sequence[Path], *, frozen: bool) -> None:
    """Make a tmpfs, or else these folders, read-only or writable again.

    Remounting waits for nobody who writes, so a few tries where somebody does.
    """
    if disk is None:
        for folder in folders:
            folder.chmod(0o555 if frozen else 0o755)
        return
    for _ in range(2_000):
        if _mount(disk, ROOM_BYTES, MS_REMOUNT | (MS_RDONLY if frozen else 0)):
            return
        time.sleep(0.001)
    raise OSError(f"{disk} cannot be remounted")


def _mount(folder: Path, size_bytes: int, flags: int) -> bool:
    options = f"size={size_bytes}".encode()
    return not _libc().mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
