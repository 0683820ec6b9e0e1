"""Writing files so that a crash at any instant leaves the old content or the new, and locks that die with their holder.

No writer follows a planted symbolic link, and every file gets the permissions that the user's umask leaves it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ELOOP
from pathlib import Path

from costmodel.errors import InputError

_POLL_S = 0.005
"""Time between two looks at a lock that another process holds."""
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OutFile:
    """One file of a folder to be written."""

    text: str
    executable: bool = False


class LockedError(Exception):
    """Another process holds a lock."""


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn an `OSError` of the block into an `InputError` that names the path."""
    try:
        yield
    except OSError as error:
        why = "it is a symbolic link, which is not followed" if error.errno == ELOOP else error.strerror
        raise InputError.single(str(path), f"cannot be written: {why}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError.single(repr(str(path)), f"is not a file name: {error}") from error  # a NUL in it


def write_file(
    path: Path, content: str | bytes | Iterable[bytes], *, durable: bool = True, private: bool = False
) -> None:
    """Replace a file's content in one step, so that no reader sees half of it; missing folders are made.

    Args:
        path: of the file.
        content: text is written as UTF-8.
        durable: wait until it is on the disk and not in its cache alone.
        private: nobody but the owner may read it, whatever the umask allows.

    Raises:
        InputError: the folder cannot be written.
    """
    pieces = [content.encode()] if isinstance(content, str) else [content] if isinstance(content, bytes) else content
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = _beside(path)
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _mode(private=private))
            try:
                for piece in _gathered(pieces):
                    _write_all(handle, piece)
                if durable:
                    os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(fresh, path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        if durable:
            _sync_folder(path.parent)


def append_file(path: Path, data: bytes, *, create: bool = True, private: bool = False) -> None:
    """Append to a file and wait until it is on the disk. What a full disk cuts short is taken back.

    A crash may leave a part of `data` at the end.

    Args:
        path: of the file.
        data: what to append.
        create: make the file where it is missing.
        private: as for `write_file`, also where the file is there already.

    Raises:
        InputError: the file cannot be written, or is a symbolic link, which is not followed.
    """
    with writing(path):
        new = create and not path.exists()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        handle = os.open(path, flags, _mode(private=private))
        try:
            if private and os.fstat(handle).st_mode & 0o077:
                os.fchmod(handle, 0o600)
            before = os.fstat(handle).st_size
            try:
                _write_all(handle, data)
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)
        if new:
            _sync_folder(path.parent)


def cut_file(path: Path, size: int) -> None:
    """Drop everything from byte `size` on.

    Raises:
        InputError: the file cannot be written.
    """
    with writing(path):
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(handle, size)
            os.fsync(handle)
        finally:
            os.close(handle)


def write_folder(folder: Path, files: Mapping[str, OutFile]) -> None:
    """Put a folder with these files, by their paths in it, where another folder or none was: whole or not at all.

    Raises:
        InputError: its parent cannot be written.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        made, old = _beside(folder), _beside(folder)
        made.mkdir()
        try:
            for name, file in files.items():
                (made / name).parent.mkdir(exist_ok=True)
                handle = os.open(made / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o777 if file.executable else 0o666)
                with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
                    out.write(file.text)
            if folder.exists():
                folder.rename(old)
            try:
                made.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
        finally:
            for left in (made, old):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def locked(path: Path, *, timeout_s: float = 0.0, create: bool = True) -> Iterator[int]:
    """Hold the kernel's lock on a file; its descriptor. The kernel gives the lock back however its holder ends.

    Args:
        path: of the file, which stays when the lock is given back: two runs could lock two files of one name else.
        timeout_s: how long to wait for another holder.
        create: make the file where it is missing.

    Raises:
        LockedError: another process holds it for longer.
        InputError: the file cannot be opened for writing, or its file system has no locks.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    deadline_s = time.monotonic() + timeout_s
    while True:
        with writing(path):
            handle = os.open(path, flags, 0o666)
        try:
            _flock(path, handle, deadline_s)
            if _is_at(handle, path):
                yield handle
                return
        finally:
            os.close(handle)  # gives the lock back


def _flock(path: Path, handle: int, deadline_s: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline_s:
                raise LockedError(str(path)) from error
            time.sleep(_POLL_S)
        except OSError as error:
            raise InputError.single(
                str(path), f"cannot be locked on its file system: {error.strerror}; a folder on a local disk can"
            ) from error
        else:
            return


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file still has this name: it may have been moved away while its lock was waited for."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _mode(*, private: bool) -> int:
    """Permissions of a new file, from which the umask takes more."""
    return 0o600 if private else 0o666


def _beside(path: Path) -> Path:
    """A new name in the same folder, so that a rename is one step."""
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that are worth a call of the system each."""
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= _PIECE_BYTES:
            yield bytes(held)
            held.clear()
    yield bytes(held)


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
