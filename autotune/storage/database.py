"""Trials in a database that Optuna reads (SQLite, or any with a SQLAlchemy driver): a batch is a transaction.

Rows go in bulk: 0.3 ms a trial in SQLite, against 14 ms through `Study.add_trial`, which commits each trial by
itself (both measured with 10,000 trials). Optuna has no public way to do that, so the tables of its schema
(`optuna.storages._rdb.models`) are written here, and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from autotune.storage.errors import storage_errors
from autotune.storage.store import Session, Store, StudyHeader, find_study, make_study
from autotune.storage.urls import connect_args, hide, with_driver
from costmodel.errors import InputError

_SQLITE_MAGIC = b"SQLite format 3\0"
_RACES = 5
"""Attempts where another process makes the same tables or the same study at the same moment."""
OUTAGE_S = 30.0
"""How long a server that was there is waited for: as long as it takes to start again."""
REFUSALS = (SQLAlchemyError, OptunaError, RuntimeError, ImportError)
"""What databases and Optuna's use of them raise."""
T = TypeVar("T")


def open_database(url: str, *, timeout_s: float) -> RDBStorage:
    """Optuna's storage in a database.

    `timeout_s`: how long to wait for another process that writes.

    Raises:
        InputError: no URL that SQLAlchemy reads, or the file of a SQLite URL is something else.
    """
    url = with_driver(url)
    try:
        given = sqlalchemy.make_url(url).query
    except (ArgumentError, ValueError):  # what these say may quote the URL
        reads = "must be a URL that SQLAlchemy reads, scheme://user:password@host:port/database"
        raise InputError.single(hide(url), reads) from None
    # no pool: a connection that is not in use is closed, so that no file stays open and no session idles
    options: dict[str, Any] = {
        "connect_args": connect_args(url, given, timeout_s=timeout_s),
        "poolclass": NullPool,
        "hide_parameters": True,
    }
    if url.startswith("sqlite"):
        _refuse_foreign(url)
    else:  # what cannot be reached is not tried again
        sqlalchemy.create_engine(url, **options).connect().close()
    return _through_races(lambda: RDBStorage(url, engine_kwargs=dict(options)))


class DatabaseStore(Store):
    """One study of a database."""

    def __init__(self, url: str, header: StudyHeader, *, timeout_s: float) -> None:
        """Arguments as `open_store`."""
        super().__init__(header)
        self.location = hide(url)
        self._url = url
        self._is_sqlite = url.startswith("sqlite")
        with storage_errors(url, REFUSALS):
            self._storage = open_database(url, timeout_s=timeout_s)
            self._study_id = _through_races(self._open)

    def _open(self) -> int:
        study_id = find_study(self._storage, self._header)
        if study_id is None:
            study_id, self.earlier = make_study(self._storage, self._header)
        return study_id

    def _look(self, work: Callable[[Session], T]) -> T:
        """Do something with a connection; a server that goes away meanwhile is waited for, and all is done again."""
        give_up_s = time.monotonic() + OUTAGE_S
        wait_s = 0.1
        with storage_errors(self._url, REFUSALS):
            while True:
                try:
                    with self._storage.engine.connect() as connection:
                        return work(_Connected(connection, self._study_id))
                except OperationalError:
                    # SQLite waits for a lock by itself
                    if self._is_sqlite or time.monotonic() + wait_s > give_up_s:
                        raise
                time.sleep(wait_s)
                wait_s = min(wait_s * 2.0, 2.0)

    def _change(self, work: Callable[[Session], T]) -> T:
        def locked(session: Session) -> T:
            if not isinstance(session, _Connected):
                raise TypeError(f"a session of a database, got {session!r}")
            session.lock(is_sqlite=self._is_sqlite)
            done = work(session)
            session.connection.commit()
            return done

        return self._look(locked)


class _Connected:
    """One connection's look at the trials of a study."""

    def __init__(self, connection: sqlalchemy.Connection, study_id: int) -> None:
        self.connection, self._study_id = connection, study_id

    def lock(self, *, is_sqlite: bool) -> None:
        """Until the commit no other worker writes to the study, so what is read from here on stays true."""
        if is_sqlite:
            self.connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        studies = models.StudyModel
        self.connection.execute(
            sqlalchemy.select(studies.study_id).where(studies.study_id == self._study_id).with_for_update()
        )

    def attributes(self, after: int) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
        """Number in the table and attributes of each trial behind one.

        Trials of a study get their numbers under its lock, so none appears later with a lower one.
        """
        attrs, trials = models.TrialUserAttributeModel, models.TrialModel
        query = (
            sqlalchemy.select(trials.trial_id, attrs.key, attrs.value_json)
            .join(attrs, trials.trial_id == attrs.trial_id)
            .where(trials.study_id == self._study_id, trials.trial_id > after)
            .order_by(trials.trial_id)
        )
        for trial_id, rows in groupby(self.connection.execute(query), key=itemgetter(0)):
            try:
                yield trial_id, {key: json.loads(text) for _, key, text in rows}
            except (ValueError, RecursionError):
                yield trial_id, None

    def append(self, trials: Sequence[FrozenTrial]) -> int:
        """Insert trials with all that hangs on them, a statement per table; the last one's number in the table."""
        table = models.TrialModel
        first = self.connection.scalar(
            sqlalchemy.select(sqlalchemy.func.max(table.number)).where(table.study_id == self._study_id)
        )
        heads = [
            {
                "number": position,
                "study_id": self._study_id,
                "state": trial.state,
                "datetime_start": _utc(trial.datetime_start),
                "datetime_complete": _utc(trial.datetime_complete),
            }
            for position, trial in enumerate(trials, start=0 if first is None else first + 1)
        ]
        insert = sqlalchemy.insert(table.__table__).returning(table.trial_id, sort_by_parameter_order=True)
        ids: list[int] = list(self.connection.scalars(insert, heads))
        for model, rows in _rows(dict(zip(ids, trials, strict=True))).items():
            if rows:
                self.connection.execute(sqlalchemy.insert(model.__table__), rows)
        return ids[-1]


def _utc(local: datetime | None) -> datetime | None:
    """Optuna's schema holds naive UTC, its trials naive local time."""
    return None if local is None else local.astimezone(UTC).replace(tzinfo=None)


def _rows(trials: Mapping[int, FrozenTrial]) -> dict[Any, list[dict[str, Any]]]:
    """Rows of the trials in the other tables of Optuna's schema, by model."""
    finite = models.TrialValueModel.TrialValueType.FINITE
    users, systems = models.TrialUserAttributeModel, models.TrialSystemAttributeModel
    return {
        models.TrialValueModel: [
            {"trial_id": trial_id, "objective": objective, "value": value, "value_type": finite}
            for trial_id, trial in trials.items()
            for objective, value in enumerate(trial.values or ())
        ],
        models.TrialParamModel: [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": trial.distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(trial.distributions[name]),
            }
            for trial_id, trial in trials.items()
            for name, value in trial.params.items()
        ],
        **{
            model: [
                {"trial_id": trial_id, "key": key, "value_json": json.dumps(value, allow_nan=False)}
                for trial_id, trial in trials.items()
                for key, value in held(trial).items()
            ]
            for model, held in ((users, attrgetter("user_attrs")), (systems, attrgetter("system_attrs")))
        },
    }


def _through_races(make: Callable[[], T]) -> T:
    """Try again where another process was making the same tables or study; the last attempt may raise."""
    for attempt in range(1, _RACES):
        try:
            return make()
        except (SQLAlchemyError, KeyError, OptunaError):
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
    with storage_errors(url, (sqlite3.Error,)):
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
    if tables and "studies" not in tables:
        raise InputError.single(url, f"is another program's database (tables {', '.join(sorted(tables)[:5])})")
