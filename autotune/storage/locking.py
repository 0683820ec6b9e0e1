"""A lock file that knows who holds it, under the name that Optuna's own journal locks use.

Optuna's locks are nameless: whether the holder lives cannot be told, so they wait 30 s. This one writes the
holder into the file: what a killed process left is taken over at once, a live one is named in the message.
Optuna's own processes (the dashboard) see an ordinary lock and keep out.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal._file import BaseJournalFileLock

from autotune.storage.claims import process_lives, started
from costmodel.errors import InputError

NAMELESS_GRACE_S = 30.0
"""Age from which a lock without a holder's name is abandoned: Optuna's own default grace period."""


class OwnedLock(BaseJournalFileLock):
    """Lock of a journal file, re-entrant within one process and thread.

    Args:
        path: the journal file; the lock is the same name with `.lock` appended.
        timeout_s: how long to wait for a live holder.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        """Take nothing yet."""
        self._path = path
        self._lock = path.with_name(path.name + ".lock")
        self._timeout_s = timeout_s
        self._depth = 0

    def acquire(self) -> bool:
        """Take the lock; True.

        Raises:
            InputError: held by another process for longer than the timeout, or the directory is not writable.
        """
        if self._depth:
            self._depth += 1
            return True
        deadline = time.monotonic() + self._timeout_s
        wait_s = 0.001
        while not self._try():
            if self._abandoned():
                self._break()
                continue
            if time.monotonic() > deadline:
                raise InputError.single(str(self._path), self._held_message())
            time.sleep(wait_s)
            wait_s = min(wait_s * 2.0, 0.05)
        self._depth = 1
        return True

    def release(self) -> None:
        """Give the lock back.

        Raises:
            InputError: the folder cannot be written any more; the lock is then an abandoned one once this process ends.
        """
        self._depth -= 1
        if not self._depth:
            with self._writing(), contextlib.suppress(FileNotFoundError):
                self._lock.unlink()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError.single(str(self._path), f"cannot be locked for writing: {error.strerror}") from error

    def _try(self) -> bool:
        """Make the lock file whole in one step: written under another name, then linked."""
        mine = self._lock.with_name(f"{self._lock.name}.{uuid.uuid4().hex}")
        pid = os.getpid()
        holder = {"host": socket.gethostname(), "pid": pid, "started": started(pid)}
        with self._writing():
            try:
                mine.write_text(json.dumps(holder), encoding="utf-8")
                try:
                    os.link(mine, self._lock)
                finally:
                    mine.unlink()
            except FileExistsError:
                return False
        return True

    def _holder(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._lock.read_text(encoding="utf-8")) if not self._lock.is_symlink() else None
        except (OSError, ValueError):
            return None
        whole = isinstance(found, dict) and isinstance(found.get("pid"), int)
        return found if whole else None

    def _age_s(self) -> float:
        try:
            return time.time() - self._lock.lstat().st_mtime
        except OSError:
            return 0.0

    def _abandoned(self) -> bool:
        holder = self._holder()
        if holder is None or holder.get("host") != socket.gethostname():
            return self._age_s() > NAMELESS_GRACE_S
        return not process_lives(holder["pid"], str(holder.get("started", "")))

    def _break(self) -> None:
        """Remove an abandoned lock: renamed first, so that of two processes that try, one removes it."""
        aside = self._lock.with_name(f"{self._lock.name}.{uuid.uuid4().hex}")
        seen = self._identity(self._lock)
        with self._writing(), contextlib.suppress(FileNotFoundError):
            self._lock.rename(aside)
            if self._identity(aside) != seen:  # another process was quicker and this is its new lock
                with contextlib.suppress(OSError):
                    os.link(aside, self._lock, follow_symlinks=False)
            aside.unlink()

    @staticmethod
    def _identity(path: Path) -> tuple[int, int] | None:
        try:
            stat = path.lstat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    def _held_message(self) -> str:
        holder = self._holder()
        who = "another process" if holder is None else f"process {holder['pid']} on {holder.get('host')}"
        return (
            f"is locked by {who} for {self._age_s():.0f} s ({self._lock.name}); waited {self._timeout_s:g} s"
            ": let it finish, or give another --out"
        )
