"""Writing so that a crash at any instant leaves either the old or the new, on the disk and not just in its cache."""

from __future__ import annotations

import os
from pathlib import Path

from costmodel.errors import InputError


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file's content in one step.

    Raises:
        InputError: the folder cannot be written.
    """
    # one name per file, not a random one: what a killed run leaves is overwritten by the next, never piled up
    fresh = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(fresh, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError.single(str(path), f"cannot be written: {error.strerror}") from error


def append_bytes(path: Path, data: bytes) -> None:
    """Append to a file and wait until it is on the disk. A crash may leave a part of `data` at the end.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        new = not path.exists()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            _write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        if new:
            _sync_folder(path.parent)
    except OSError as error:
        raise InputError.single(str(path), f"cannot be written: {error.strerror}") from error


def cut_file(path: Path, size: int) -> None:
    """Drop everything from byte `size` on.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(handle, size)
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise InputError.single(str(path), f"cannot be written: {error.strerror}") from error


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
