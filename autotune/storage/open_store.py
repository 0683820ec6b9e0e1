"""Opening a storage: a journal file by default, a database by URL.

Optuna is imported only when a storage is opened, so that commands that need none start fast.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.storage.errors import storage_errors
from autotune.storage.store import Store, StudyHeader
from autotune.storage.urls import is_url
from costmodel.errors import InputError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL_NAME = "journal.log"
LOCK_TIMEOUT_S = 10.0
DATABASE_SUFFIXES = (".db", ".sqlite", ".sqlite3")


def default_location(out: Path | None = None) -> Path:
    """The journal file under `out`, else under the user's data directory (XDG Base Directory 0.8)."""
    if out is not None:
        return out / JOURNAL_NAME
    data = os.environ.get("XDG_DATA_HOME", "")
    # the specification has relative paths ignored
    root = Path(data) if data.startswith("/") else _home() / ".local" / "share"
    return root / "autotune" / JOURNAL_NAME


def _home() -> Path:
    """The user's own folder; for one who has none a folder that nobody can make."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def can_be_written(location: Path) -> bool:
    """Whether this user may write a file, or make it with its folders."""
    there = next(path for path in (location, *location.absolute().parents) if path.exists())
    return os.access(there, os.W_OK if there == location else os.W_OK | os.X_OK)


def open_store(location: Path | str, header: StudyHeader, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> Store:
    """Open a storage, and make the study in it if it is not there.

    Args:
        location: a database URL (`sqlite:///runs.db`, `postgresql://…`), a `.db` or `.sqlite` file, a
            directory (its `journal.log`), or the path of a journal file. Missing directories are made.
        header: of the study.
        lock_timeout_s: how long to wait for another process that writes.

    Raises:
        InputError: not readable, not writable, locked, damaged, a symbolic link, or a file of something else.
    """
    where = _resolved(location)
    if (file := _file(location)) is not None and file.is_symlink():
        raise InputError.single(str(location), "is a symbolic link, which is not followed: give the file itself")
    if isinstance(where, str):
        from autotune.storage.database import DatabaseStore

        return DatabaseStore(where, header, timeout_s=lock_timeout_s)
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError.single(str(location), f"cannot be made the storage: {error.strerror}") from error
    from autotune.storage.journal import JournalStore

    return JournalStore(where, header, timeout_s=lock_timeout_s)


def open_existing(location: Path | str) -> BaseStorage:
    """Optuna's storage at a place, to look at; nothing is made.

    Raises:
        InputError: nothing is there, or something else; what Optuna raises on a damaged one comes as it is.
    """
    where, file = _resolved(location), _file(location)
    if file is not None and not file.is_file():
        raise InputError.single(str(location), "is not there: no study has been stored at this place")
    if isinstance(where, str):
        from autotune.storage.database import open_database

        return open_database(where, timeout_s=LOCK_TIMEOUT_S)
    from optuna.storages import JournalStorage

    from autotune.storage.journal import JournalFile

    return JournalStorage(JournalFile(where, LOCK_TIMEOUT_S))


@contextmanager
def reading(location: Path | str) -> Iterator[None]:
    """Turn what a storage at this place raises in the block into `InputError`."""
    where = _resolved(location)
    refusals: tuple[type[Exception], ...] = ()
    if isinstance(where, str):
        from autotune.storage.database import REFUSALS

        refusals = REFUSALS
    with storage_errors(str(location), refusals):
        yield


def _file(location: Path | str) -> Path | None:
    """The file of a storage, as it is named; None: it is a database elsewhere."""
    where = str(location)
    if "\0" in where:
        raise InputError.single(repr(where), "is not a file name: it holds a NUL")
    if is_url(where):
        return Path(where.partition(":///")[2].partition("?")[0]) if where.startswith("sqlite") else None
    path = Path(location).expanduser()
    try:
        return path / JOURNAL_NAME if path.is_dir() else path
    except OSError as error:
        raise InputError.single(where, f"cannot be made the storage: {error.strerror}") from error


def _resolved(location: Path | str) -> Path | str:
    """A journal file's path, or a database's URL."""
    path = _file(location)
    if path is None or is_url(str(location)):
        return str(location)
    return f"sqlite:///{path.resolve()}" if path.suffix in DATABASE_SUFFIXES else path
