"""Trials in an Optuna journal file: one append per batch, under the lock that all Optuna processes respect.

Each trial is one line, so it is there or it is not. What a killed process leaves is at most one torn line
at the end, which the next writer cuts off.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial

from autotune import files
from autotune.storage.errors import storage_errors
from autotune.storage.store import Session, Store, StudyHeader, find_study, make_study
from costmodel.errors import InputError

T = TypeVar("T")
_TRIAL = re.compile(rb'\{"op_code":4,"worker_id":"[^"]*","study_id":(\d+)[,}]')
"""A line that makes a whole trial, and the study that it is of: Optuna's `JournalOperation.CREATE_TRIAL`."""
_CHANGE = re.compile(rb'\{"op_code":(?:[5-9]|\d\d)')
"""A line that changes a trial made before, by its number among the trials of all studies. None of ours does."""
LOCK_GRACE_S = 30.0
"""Age from which a lock of Optuna's is abandoned: its own default grace period."""


class ChangedTrialsError(Exception):
    """Somebody changes trials of the file one by one, counted over all studies: it has to be read whole."""


class JournalFile(BaseJournalBackend):
    """A journal file as Optuna's `JournalFileBackend` writes it, to which a batch of changes is appended at once.

    It is read whole, or without the trials of other studies (`read_one`): a file keeps every study that was ever asked,
    and reading them all would take each command longer than the last.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        """Nothing is read yet."""
        self._path = path.resolve()
        # beside the name by which it is used, as Optuna does
        self._optunas_lock = path.absolute().with_name(path.name + ".lock")
        self._timeout_s = timeout_s
        self._file = self._path.stat()
        self._number = self._offset = 0  # logs that were read from the file, and where the next one begins
        self._batch: list[dict[str, Any]] | None = None
        self._only: bytes | None = None  # number of the study whose trials are read; None: all
        self._end = 0  # of the file, while a batch is under way: nobody else writes then

    def read_one(self, study_id: int | None) -> None:
        """From here on read the trials of one study alone, of none for None, and number the logs without the others."""
        self._only = b"" if study_id is None else str(study_id).encode()
        self._number = self._offset = 0

    @property
    def whole(self) -> bool:
        """Whether the trials of every study are read."""
        return self._only is None

    def read_whole(self) -> None:
        """From here on read the trials of every study."""
        self._only = None
        self._number = self._offset = 0

    def _skipped(self, line: bytes) -> bool:
        """Whether a line is the trial of a study that is not read.

        Raises:
            ChangedTrialsError: it changes a trial by its number among those of all studies.
        """
        if self._only is None:
            return False
        if _CHANGE.match(line):
            raise ChangedTrialsError(self._path)
        made = _TRIAL.match(line)
        return made is not None and made[1] != self._only

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Changes from a number on: those of the file, then those of a batch under way."""
        if log_number_from < self._number:
            self._number = self._offset = 0
        if self._batch is None or self._offset < self._end:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):  # torn, or being written
                        break
                    self._offset += len(line)
                    if self._skipped(line):
                        continue
                    self._number += 1
                    if self._number > log_number_from:
                        yield json.loads(line)
        if self._batch is not None:
            yield from self._batch[max(log_number_from - self._number, 0) :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add changes to the batch under way, or write them as one."""
        if self._batch is not None:
            self._batch += logs
            return
        with self.batch():
            self.append_logs(logs)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Gather changes, and write them in one append at the end; none where the block fails.

        Raises:
            InputError: another process holds the lock for longer than the timeout, or the file cannot be written.
        """
        with self._locked():
            self._end, self._batch = self._cut_torn_line(), []
            try:
                yield
                # the separators of Optuna's JournalFileBackend; NaN would not be JSON
                lines = [json.dumps(log, separators=(",", ":"), allow_nan=False) + "\n" for log in self._batch]
                if lines:
                    data = "".join(lines).encode()
                    files.append_file(self._path, data, create=False)
                    if self._offset == self._end:
                        self._number, self._offset = self._number + len(lines), self._end + len(data)
            finally:
                self._batch = None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep out our own processes by a lock of the kernel's, and Optuna's by the file that it locks with."""
        try:
            with files.locked(self._path, timeout_s=self._timeout_s, create=False) as handle:
                if not os.path.samestat(os.fstat(handle), self._file):
                    raise InputError.single(str(self._path), "was replaced by another file while it was in use")
                self._take_optunas_lock()
                try:
                    yield
                finally:
                    with files.writing(self._path):
                        self._optunas_lock.unlink(missing_ok=True)
        except files.LockedError as error:
            raise self._held() from error

    def _take_optunas_lock(self) -> None:
        """Make the link that `JournalFileSymlinkLock` locks with.

        Ours leads to the journal by a detour, which tells it from Optuna's: under our own lock it can only be what a
        killed process of ours has left.
        """
        lock, ours = self._optunas_lock, f"././{self._optunas_lock.stem}"
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            with files.writing(self._path), contextlib.suppress(FileExistsError):
                lock.symlink_to(ours)
                return
            with contextlib.suppress(OSError):  # gone meanwhile, or no link
                if lock.is_symlink() and os.readlink(lock) == ours:
                    return
                if time.time() - lock.lstat().st_mtime > LOCK_GRACE_S:
                    lock.unlink()
                    continue
            if time.monotonic() > deadline_s:
                raise self._held()
            time.sleep(0.01)

    def _held(self) -> InputError:
        held = f"is locked by another process; waited {self._timeout_s:g} s: let it finish, or give another --storage"
        return InputError.single(str(self._path), held)

    def _cut_torn_line(self) -> int:
        """Cut off what stands after the last newline, the line that a killed writer did not finish; the file's size."""
        with self._path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            keep, step = end, 1 << 16
            while keep > 0:
                start = max(0, keep - step)
                file.seek(start)
                newline = file.read(keep - start).rfind(b"\n")
                if newline >= 0:
                    keep = start + newline + 1
                    break
                keep = start
        if keep < end:
            files.cut_file(self._path, keep)
        return keep


class JournalStore(Store):
    """One study of a journal file."""

    def __init__(self, path: Path, header: StudyHeader, *, timeout_s: float) -> None:
        """Arguments as `open_store`."""
        super().__init__(header)
        self.location = str(path)
        with storage_errors(self.location):
            refuse_foreign_journal(path)
            path.touch()
            self._journal = JournalFile(path, timeout_s)
            self._opened: JournalStorage | None = None
            self._study_id = self._open()

    def _open(self) -> int:
        self._journal.read_one(None)
        study_id = self._whole_if_changed(self._found_or_made)
        if not self._journal.whole:
            self._journal.read_one(study_id)
            self._opened = None
        return study_id

    def _whole_if_changed(self, work: Callable[[], T]) -> T:
        """Do something; once more on the file as a whole where somebody else changes trials in it."""
        try:
            return work()
        except ChangedTrialsError:
            self._journal.read_whole()
            self._opened = None
            return work()

    def _found_or_made(self) -> int:
        study_id = find_study(self._optuna, self._header)
        if study_id is not None:
            return study_id
        with self._journal.batch():
            study_id = find_study(self._optuna, self._header)
            if study_id is None:
                study_id, self.earlier = make_study(self._optuna, self._header)
        return study_id

    @property
    def _optuna(self) -> JournalStorage:
        if self._opened is None:
            self._opened = JournalStorage(self._journal)
        return self._opened

    def attributes(self, after: int) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
        """Place and attributes of each trial behind a place."""
        trials = self._optuna.get_all_trials(self._study_id, deepcopy=False)
        for place in range(after + 1, len(trials)):
            yield place, trials[place].user_attrs

    def append(self, trials: Sequence[FrozenTrial]) -> int:
        """Add trials to the batch under way; the place of the last."""
        for trial in trials:
            self._optuna.create_new_trial(self._study_id, trial)
        return len(self._optuna.get_all_trials(self._study_id, deepcopy=False)) - 1

    def _look(self, work: Callable[[Session], T]) -> T:
        with storage_errors(self.location):
            return self._whole_if_changed(lambda: work(self))

    def _change(self, work: Callable[[Session], T]) -> T:
        def in_one() -> T:
            try:
                with self._journal.batch():
                    return work(self)
            except BaseException:
                self._opened = None  # it knows trials that were not written
                raise

        with storage_errors(self.location):
            return self._whole_if_changed(in_one)


def refuse_foreign_journal(path: Path) -> None:
    """Raise where the file does not begin like a journal, before anything is changed.

    Raises:
        InputError: it is no regular file.
        ValueError: it is something else.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise InputError.single(str(path), "cannot be used as storage: it is no regular file")
    with path.open("rb") as file:
        first = file.readline(1_000_000)
    if first.endswith(b"\n") or len(first) == 1_000_000:
        if "op_code" not in json.loads(first):
            raise ValueError("the first line has no op_code")
    elif first and not b'{"op_code":'.startswith(first[:11]):
        raise ValueError("it begins with something else")
