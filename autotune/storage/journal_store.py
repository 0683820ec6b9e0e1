"""Trials in an Optuna journal file: one append per batch, under the lock that all Optuna processes respect.

Each trial is one line, so it is there or it is not. What a killed process leaves is at most one torn line
at the end, which the next writer cuts off.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.study import StudyDirection

from autotune.storage.claims import BEAT_PREFIX, CLAIM_PREFIX, Claim, choose, machine_clocks, new_worker, survey
from autotune.storage.locking import OwnedLock
from autotune.storage.optuna_trials import FINGERPRINT_ATTR, KEY_ATTR, frozen_trial, record_of
from autotune.storage.store import Store, TrialRecord
from costmodel.errors import InputError

_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError)
"""What Optuna's replay raises on lines that are not a journal's."""


class _Collector(BaseJournalBackend):
    """Takes what a `JournalStorage` would write, and writes nothing: an encoder of log lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:  # noqa: ARG002  # nothing to replay
        return ()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        # the separators of Optuna's JournalFileBackend; NaN would not be JSON
        self.lines += [json.dumps(log, separators=(",", ":"), allow_nan=False).encode() + b"\n" for log in logs]


def _encoder() -> tuple[_Collector, JournalStorage]:
    """A storage that encodes and forgets, and where the lines gather."""
    collector = _Collector()
    encoder = JournalStorage(collector)
    # what a replay would set; nothing is replayed here, and the number it returns is not used
    encoder._replay_result._last_created_trial_id_by_this_process = -1  # noqa: SLF001
    return collector, encoder


class JournalStore(Store):
    """One study of a journal file."""

    one_machine = True

    def __init__(
        self,
        path: Path,
        name: str,
        fingerprint: str,
        directions: tuple[str, ...],
        *,
        gpus: int,
        timeout_s: float,
    ) -> None:
        """Arguments as `open_store`; `name` is the Optuna study's."""
        self.name = name
        self.location = str(path)
        self._path = path
        self._gpus = gpus
        self._directions = directions
        self._lock = OwnedLock(path, timeout_s)
        self._guard = threading.RLock()
        self._me = new_worker()
        self._claimed = False
        self._keys: set[str] = set()
        self._keys_read = 0
        with self._readable():
            _refuse_foreign(path)
            self._storage, self._study_id = self._open(fingerprint)

    def _open(self, fingerprint: str) -> tuple[JournalStorage, int]:
        """Replay the file, and make the study where it is missing."""
        if self._path.exists():
            storage = JournalStorage(JournalFileBackend(str(self._path), lock_obj=self._lock))
            with contextlib.suppress(KeyError):
                return storage, storage.get_study_id_from_name(self.name)
        with self._locked():
            storage = JournalStorage(JournalFileBackend(str(self._path), lock_obj=self._lock))
            try:
                return storage, storage.get_study_id_from_name(self.name)
            except KeyError:
                wanted = [StudyDirection[direction.upper()] for direction in self._directions]
                study_id = storage.create_new_study(wanted, self.name)
                storage.set_study_user_attr(study_id, FINGERPRINT_ATTR, fingerprint)
                return storage, study_id

    @property
    def directions(self) -> tuple[str, ...]:
        """`maximize` or `minimize`, one per objective."""
        return self._directions

    def known_keys(self) -> Set[str]:
        """Keys of all trials stored by now, by any process."""
        with self._guard, self._readable():
            trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        for trial in trials[self._keys_read :]:
            key = trial.user_attrs.get(KEY_ATTR)
            if isinstance(key, str):
                self._keys.add(key)
        self._keys_read = len(trials)
        return self._keys

    def add(self, trials: Sequence[TrialRecord]) -> int:
        """Write those trials whose key is not stored yet, in one append; their number."""
        lines = self._encode(trials)
        if not lines:
            return 0
        with self._locked():
            known = self.known_keys()
            missing = [line for key, line in lines.items() if key not in known]
            self._append(b"".join(missing))
        return len(missing)

    def claim(self, keys: Iterable[str], most: int) -> tuple[str, ...]:
        """Take up to `most` of `keys` that are not stored and not with a living worker."""
        with self._locked():
            stored = self.known_keys()
            with self._readable():
                attrs = self._storage.get_study_system_attrs(self._study_id)
            seen = survey(attrs, machine_clocks(), self._me)
            self.other_hosts = seen.hosts
            chosen = choose(keys, stored, seen.claimed, most)
            written: dict[str, Any] = {CLAIM_PREFIX + owner: None for owner in seen.abandoned}
            if chosen:
                # the sign of life first: a claim that stands alone would be a dead worker's
                written[BEAT_PREFIX + self._me.id] = machine_clocks()
                written[CLAIM_PREFIX + self._me.id] = Claim(worker=self._me, keys=chosen).to_json()
            elif self._claimed:
                written[CLAIM_PREFIX + self._me.id] = None
            self._append(self._attrs(written))
        self._claimed = bool(chosen)
        return chosen

    def beat(self) -> None:
        """Give a sign of life."""
        if self._claimed:
            with self._locked():
                self._append(self._attrs({BEAT_PREFIX + self._me.id: machine_clocks()}))

    def records(self) -> list[TrialRecord]:
        """All trials in the order of their numbers."""
        with self._guard, self._readable():
            trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        return [record for trial in trials if (record := record_of(trial)) is not None]

    def optuna_study(self, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
        """The Optuna study of this store."""
        return optuna.load_study(study_name=self.name, storage=self._storage, sampler=sampler)

    def _encode(self, trials: Sequence[TrialRecord]) -> dict[str, bytes]:
        """Log line of every trial by key, encoded before the lock is taken; of equal keys the first."""
        collector, encoder = _encoder()
        unique: dict[str, TrialRecord] = {}
        for record in trials:
            unique.setdefault(record.key, record)
        for record in unique.values():
            encoder.create_new_trial(self._study_id, frozen_trial(record, self._gpus))
        return dict(zip(unique, collector.lines, strict=True))

    def _attrs(self, values: Mapping[str, Any]) -> bytes:
        """Log lines that set system attributes of the study."""
        collector, encoder = _encoder()
        for key, value in values.items():
            encoder.set_study_system_attr(self._study_id, key, value)
        return b"".join(collector.lines)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock over a file whose last line is whole; one thread at a time, for the lock is a process's."""
        with self._guard:
            self._lock.acquire()
            try:
                with _os_errors(self._path):
                    _cut_torn_line(self._path)
                yield
            finally:
                self._lock.release()

    def _append(self, data: bytes) -> None:
        """Write at the end, durably, in one call; a write that fails half-way is taken back."""
        if not data:
            return
        with _os_errors(self._path):
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                before = os.fstat(handle).st_size
                try:
                    written = 0
                    while written < len(data):
                        written += os.write(handle, memoryview(data)[written:])
                    os.fsync(handle)
                except OSError:
                    os.ftruncate(handle, before)
                    raise
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _readable(self) -> Generator[None, None, None]:
        """Turn what Optuna's replay raises on a damaged file into one message."""
        with _os_errors(self._path):
            try:
                yield
            except InputError:
                raise
            except _DAMAGED as error:
                what = f"{type(error).__name__}: {error}"
                raise InputError.single(
                    str(self._path),
                    f"is not a readable Optuna journal ({what[:200]}). Move it or give another --out",
                ) from error


@contextlib.contextmanager
def _os_errors(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise InputError.single(str(path), f"cannot be used as storage: {error.strerror}") from error


def _refuse_foreign(path: Path) -> None:
    """Raise ValueError where the file does not begin like a journal, before anything is changed."""
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


def _cut_torn_line(path: Path) -> None:
    """Cut off what stands after the last newline: the line that a killed writer did not finish."""
    if not path.exists():
        return
    with path.open("rb+") as file:
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
            file.truncate(keep)
