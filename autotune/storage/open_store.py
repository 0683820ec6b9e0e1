"""Opening a storage: a journal file by default, a database by URL.

Optuna is imported only when a storage is opened, so that commands that need none start fast.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from autotune.storage.store import Store
from autotune.storage.urls import is_url
from costmodel.errors import InputError

JOURNAL_NAME = "journal.log"
LOCK_TIMEOUT_S = 10.0
DATABASE_SUFFIXES = (".db", ".sqlite", ".sqlite3")


def default_location(out: Path | None = None) -> Path:
    """The journal file under `out`, else under the user's data directory (XDG Base Directory 0.8)."""
    if out is not None:
        return out / JOURNAL_NAME
    data = os.environ.get("XDG_DATA_HOME", "")
    # the specification has relative paths ignored
    root = Path(data) if data.startswith("/") else Path.home() / ".local" / "share"
    return root / "autotune" / JOURNAL_NAME


def open_store(
    location: Path | str,
    study_name: str,
    fingerprint: str,
    directions: Sequence[str],
    *,
    gpus: int = 1_000_000,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> Store:
    """Open a storage, and make the study in it if it is not there.

    Args:
        location: a database URL (`sqlite:///runs.db`, `postgresql://…`), a `.db` or `.sqlite` file, a
            directory (its `journal.log`), or the path of a journal file. Missing directories are made.
        study_name: the study's name, for people.
        fingerprint: `study_fingerprint(study)`; another question is another Optuna study in the same storage.
        directions: `maximize` or `minimize`, one per objective.
        gpus: upper bound of the layout's degrees, for the distributions that samplers and plots see.
        lock_timeout_s: how long to wait for another process that writes.

    Raises:
        InputError: not readable, not writable, locked, damaged, or a file of something else.
    """
    where = str(location)
    if "\0" in where:
        raise InputError.single(repr(where), "is not a file name: it holds a NUL")
    name = f"{study_name}-{fingerprint[:12]}"
    if is_url(where):
        from autotune.storage.database_store import DatabaseStore

        return DatabaseStore(where, name, fingerprint, tuple(directions), gpus=gpus, timeout_s=lock_timeout_s)
    path = Path(location).expanduser()
    try:
        path = path / JOURNAL_NAME if path.is_dir() else path
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError.single(where, f"cannot be made the storage: {error.strerror}") from error
    if path.suffix in DATABASE_SUFFIXES:
        from autotune.storage.database_store import DatabaseStore

        url = f"sqlite:///{path.resolve()}"
        return DatabaseStore(url, name, fingerprint, tuple(directions), gpus=gpus, timeout_s=lock_timeout_s)
    from autotune.storage.journal_store import JournalStore

    return JournalStore(path, name, fingerprint, tuple(directions), gpus=gpus, timeout_s=lock_timeout_s)
