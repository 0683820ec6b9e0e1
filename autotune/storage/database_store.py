"""Trials in a database that Optuna reads (SQLite, or any with a SQLAlchemy driver): a batch is a transaction."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Set
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from autotune.storage.bulk_rows import insert_trials, read_trials
from autotune.storage.claims import BEAT_PREFIX, CLAIM_PREFIX, Claim, choose, machine_clocks, new_worker, survey
from autotune.storage.optuna_trials import FINGERPRINT_ATTR, KEY_ATTR, frozen_trial, record_of
from autotune.storage.store import Store, TrialRecord
from autotune.storage.urls import connect_args, hide, scrub, with_driver
from costmodel.errors import InputError

_SQLITE_MAGIC = b"SQLite format 3\0"
_RACES = 5
"""Attempts where another process makes the same tables or the same study at the same moment."""
OUTAGE_S = 30.0
"""How long a server that was there is waited for: as long as it takes to start again."""


T = TypeVar("T")


class DatabaseStore(Store):
    """One study of a database."""

    def __init__(
        self,
        url: str,
        name: str,
        fingerprint: str,
        directions: tuple[str, ...],
        *,
        gpus: int,
        timeout_s: float,
    ) -> None:
        """Arguments as `open_store`; `name` is the Optuna study's."""
        self.name = name
        self.location = hide(url)
        self._url = with_driver(url)
        self._gpus = gpus
        self._directions = directions
        self.one_machine = self._is_sqlite = url.startswith("sqlite")
        self._me = new_worker()
        self._claimed = False
        self._keys: set[str] = set()
        self._keys_after = -1
        if self._is_sqlite:
            _refuse_foreign(url)
        given = self._parameters()
        with self._errors():
            # no pool: a connection that is not in use is closed, so that no file stays open and no session idles
            options: dict[str, Any] = {
                "connect_args": connect_args(self._url, given, timeout_s=timeout_s),
                "poolclass": NullPool,
                "hide_parameters": True,
            }
            if not self._is_sqlite:  # what cannot be reached is not tried again
                sqlalchemy.create_engine(self._url, **options).connect().close()
            self._storage = _through_races(lambda: RDBStorage(self._url, engine_kwargs=dict(options)))
            self._study_id = _through_races(lambda: self._find_or_make(fingerprint))

    def _parameters(self) -> Mapping[str, Any]:
        """What the URL sets after its question mark."""
        try:
            return sqlalchemy.make_url(self._url).query
        except (ArgumentError, ValueError):  # what these say may quote the URL
            reads = "must be a URL that SQLAlchemy reads, scheme://user:password@host:port/database"
            raise InputError.single(self.location, reads) from None

    def _find_or_make(self, fingerprint: str) -> int:
        with contextlib.suppress(KeyError):
            return self._storage.get_study_id_from_name(self.name)
        wanted = [StudyDirection[direction.upper()] for direction in self._directions]
        study_id = self._storage.create_new_study(wanted, self.name)
        self._storage.set_study_user_attr(study_id, FINGERPRINT_ATTR, fingerprint)
        return study_id

    @property
    def directions(self) -> tuple[str, ...]:
        """`maximize` or `minimize`, one per objective."""
        return self._directions

    def known_keys(self) -> Set[str]:
        """Keys of all trials stored by now, by any process."""
        return self._through_outage(self._keys_in)

    def add(self, trials: Sequence[TrialRecord]) -> int:
        """Write those trials whose key is not stored yet, in one transaction; their number."""
        unique: dict[str, TrialRecord] = {}
        for record in trials:
            unique.setdefault(record.key, record)
        frozen = {key: frozen_trial(record, self._gpus) for key, record in unique.items()}
        if not frozen:
            return 0

        def write(connection: sqlalchemy.Connection) -> int:
            self._lock_study(connection)
            known = self._keys_in(connection)
            missing = [trial for key, trial in frozen.items() if key not in known]
            if missing:
                insert_trials(connection, self._study_id, missing)
            connection.commit()
            return len(missing)

        return self._through_outage(write)

    def claim(self, keys: Iterable[str], most: int) -> tuple[str, ...]:
        """Take up to `most` of `keys` that are not stored and not with a living worker."""

        def write(connection: sqlalchemy.Connection) -> tuple[str, ...]:
            self._lock_study(connection)
            attrs = self._claims_in(connection)
            now = self._clocks(connection)
            seen = survey(attrs, now, self._me)
            self.other_hosts = seen.hosts
            chosen = choose(keys, self._keys_in(connection), seen.claimed, most)
            gone = {
                prefix + owner for owner in (*seen.abandoned, self._me.id) for prefix in (CLAIM_PREFIX, BEAT_PREFIX)
            }
            if gone & set(attrs):
                table = models.StudySystemAttributeModel
                connection.execute(
                    sqlalchemy.delete(table).where(table.study_id == self._study_id, table.key.in_(gone))
                )
            if chosen:
                mine = {
                    CLAIM_PREFIX + self._me.id: Claim(worker=self._me, keys=chosen).to_json(),
                    BEAT_PREFIX + self._me.id: now,
                }
                connection.execute(
                    sqlalchemy.insert(models.StudySystemAttributeModel.__table__),
                    [{"study_id": self._study_id, "key": k, "value_json": json.dumps(v)} for k, v in mine.items()],
                )
            connection.commit()
            return chosen

        chosen = self._through_outage(write)
        self._claimed = bool(chosen)
        return chosen

    def beat(self) -> None:
        """Give a sign of life."""
        if not self._claimed:
            return
        with self._errors(), self._storage.engine.connect() as connection:
            table = models.StudySystemAttributeModel
            connection.execute(
                sqlalchemy.update(table)
                .where(table.study_id == self._study_id, table.key == BEAT_PREFIX + self._me.id)
                .values(value_json=json.dumps(self._clocks(connection)))
            )
            connection.commit()

    def records(self) -> list[TrialRecord]:
        """All trials in the order of their numbers."""
        trials = self._through_outage(lambda connection: read_trials(connection, self._study_id))
        return [record for trial in trials if (record := record_of(trial)) is not None]

    def optuna_study(self, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
        """The Optuna study of this store."""
        return optuna.load_study(study_name=self.name, storage=self._storage, sampler=sampler)

    def _through_outage(self, work: Callable[[sqlalchemy.Connection], T]) -> T:
        """Do something with a connection; a server that goes away meanwhile is waited for, and all is done again.

        Whatever `work` writes it must write whole or not at all, and find out by itself what is there already.
        """
        give_up_s = time.monotonic() + OUTAGE_S
        wait_s = 0.1
        with self._errors():
            while True:
                try:
                    with self._storage.engine.connect() as connection:
                        return work(connection)
                except OperationalError:
                    # SQLite waits for a lock by itself
                    if self._is_sqlite or time.monotonic() + wait_s > give_up_s:
                        raise
                time.sleep(wait_s)
                wait_s = min(wait_s * 2.0, 2.0)

    def _lock_study(self, connection: sqlalchemy.Connection) -> None:
        """Until the commit no other worker writes to the study, so what is read from here on stays true."""
        if self._is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        studies = models.StudyModel
        connection.execute(
            sqlalchemy.select(studies.study_id).where(studies.study_id == self._study_id).with_for_update()
        )

    def _claims_in(self, connection: sqlalchemy.Connection) -> dict[str, Any]:
        table = models.StudySystemAttributeModel
        query = sqlalchemy.select(table.key, table.value_json).where(table.study_id == self._study_id)
        ours = (CLAIM_PREFIX, BEAT_PREFIX)
        return {key: json.loads(text) for key, text in connection.execute(query) if key.startswith(ours)}

    def _clocks(self, connection: sqlalchemy.Connection) -> tuple[float, ...]:
        """Clocks that all workers share: the server's, or those of the one machine."""
        if self._is_sqlite:
            return machine_clocks()
        now = "clock_timestamp()" if self._url.startswith("postgresql") else "current_timestamp"
        read: datetime = connection.exec_driver_sql(f"SELECT {now}").scalar_one()  # one of two words
        return (read.timestamp(),)

    def _keys_in(self, connection: sqlalchemy.Connection) -> set[str]:
        """Keys of all trials; of those only that came since the last call are read.

        Trials of a study get their numbers under its lock, so none appears later with a lower one.
        """
        attrs, trials = models.TrialUserAttributeModel, models.TrialModel
        query = (
            sqlalchemy.select(trials.trial_id, attrs.value_json)
            .join(attrs, trials.trial_id == attrs.trial_id)
            .where(trials.study_id == self._study_id, attrs.key == KEY_ATTR, trials.trial_id > self._keys_after)
            .order_by(trials.trial_id)
        )
        for trial_id, value in connection.execute(query):
            self._keys.add(json.loads(value))
            self._keys_after = trial_id
        return self._keys

    @contextlib.contextmanager
    def _errors(self) -> Generator[None, None, None]:
        """Turn what databases raise into one message that names the storage, and no password."""
        try:
            yield
        except InputError:
            raise
        except (ValueError, KeyError) as error:  # JSON that is none, a trial whose parts do not fit
            what = scrub(f"{type(error).__name__}: {error}"[:200], self._url)
            raise InputError.single(self.location, f"is not a readable Optuna storage ({what})") from None
        except (SQLAlchemyError, StorageInternalError, RuntimeError, ImportError) as error:
            raise InputError.single(self.location, f"cannot be used as storage: {self._reason(error)}") from None

    def _reason(self, error: Exception) -> str:
        if isinstance(error, ImportError):
            driver = (self._url.partition("://")[0].partition("+")[2] or "its driver").partition("_")[0]
            extra = ': pip install "autotune[postgresql]", and name no driver in the URL or this one'
            return f"{driver} is not installed{extra if self._url.startswith('postgresql') else ''}"
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        lines = str(getattr(cause, "orig", None) or cause).strip().splitlines() or [type(error).__name__]
        return scrub(lines[0], self._url)


def _through_races(make: Callable[[], T]) -> T:
    """Try again where another process was making the same tables or study; the last attempt may raise."""
    for attempt in range(1, _RACES):
        try:
            return make()
        except (SQLAlchemyError, KeyError, DuplicatedStudyError, StorageInternalError):
            time.sleep(0.02 * attempt)
    return make()


def _refuse_foreign(url: str) -> None:
    """Raise where the file of a SQLite URL is something else, before anything is changed; make its directory.

    Raises:
        InputError: not a SQLite file, or a database of another program.
    """
    database = sqlalchemy.make_url(url).database
    if not database or database == ":memory:":
        return
    path = Path(database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise InputError.single(url, "cannot be used as storage: it is no regular file")
        if not path.exists() or not path.stat().st_size:
            return
        with path.open("rb") as file:
            magic = file.read(len(_SQLITE_MAGIC))
        if magic != _SQLITE_MAGIC:
            raise InputError.single(url, "is not a SQLite database")
        # not read-only: the journal of a writer that was killed has to be rolled back before anything can be read
        with contextlib.closing(sqlite3.connect(path.resolve().as_uri() + "?mode=rw", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except OSError as error:
        raise InputError.single(url, f"cannot be used as storage: {error.strerror}") from error
    except sqlite3.Error as error:
        raise InputError.single(url, f"cannot be used as storage: {error}") from error
    if tables and "studies" not in tables:
        raise InputError.single(url, f"is another program's database (tables {', '.join(sorted(tables)[:5])})")
