"""The studies of a storage, whoever made them: listed, read, deleted. Nothing here makes a storage or a study."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from autotune.storage.locking import OwnedLock
from autotune.storage.open_store import DATABASE_SUFFIXES, JOURNAL_NAME, LOCK_TIMEOUT_S
from autotune.storage.optuna_trials import KEY_ATTR
from autotune.storage.urls import connect_args, hide, is_url, scrub, with_driver
from costmodel.errors import InputError

_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError)
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One Optuna study of a storage."""

    name: str
    directions: tuple[str, ...]
    trials: int
    feasible: int
    """Finished trials whose every constraint holds."""
    best_value: float | None
    """Of the feasible trials, by the first objective; None where there is none."""
    best_plan: str | None
    started: datetime | None
    ours: bool
    """Whether any of its trials carries a plan of ours."""


class Studies:
    """What a storage holds.

    Raises:
        InputError: by every method, where the storage is not there, cannot be read or is damaged, or the study
            is not in it.
    """

    def __init__(self, location: str) -> None:
        """`location` as for `autotune tune --storage`; nothing is created."""
        self.location = hide(location) if is_url(location) else location
        self._secret = location
        with self._errors():
            self._storage = _existing(location)

    def summaries(self) -> list[Summary]:
        """All studies, by name."""
        with self._errors():
            names = sorted(s.study_name for s in self._storage.get_all_studies())
            return [self._summary(name) for name in names]

    def trials(self, name: str) -> list[FrozenTrial]:
        """All trials of one study, by number."""
        with self._errors():
            return self._storage.get_all_trials(self._find(name))

    def summary(self, name: str) -> Summary:
        """One study."""
        with self._errors():
            self._find(name)
            return self._summary(name)

    def attributes(self, name: str) -> dict[str, Any]:
        """User attributes of the study itself."""
        with self._errors():
            return dict(self._storage.get_study_user_attrs(self._find(name)))

    def delete(self, name: str) -> None:
        """Remove one study with all its trials; the others stay."""
        with self._errors():
            self._storage.delete_study(self._find(name))

    def _find(self, name: str) -> int:
        try:
            return self._storage.get_study_id_from_name(name)
        except KeyError:
            names = sorted(s.study_name for s in self._storage.get_all_studies())
            known = ", ".join(names[:10]) or "no study at all"
            raise InputError.single(self.location, f"has no study {name!r}; it has {known}") from None

    def _summary(self, name: str) -> Summary:
        study_id = self._storage.get_study_id_from_name(name)
        trials = self._storage.get_all_trials(study_id, deepcopy=False)
        directions = tuple(d.name.lower() for d in self._storage.get_study_directions(study_id))
        best = best_trial(trials, directions)
        starts = [t.datetime_start for t in trials if t.datetime_start is not None]
        return Summary(
            name=name,
            directions=directions,
            trials=len(trials),
            feasible=sum(is_feasible(t) for t in trials),
            best_value=None if best is None else best.values[0],
            best_plan=None if best is None else str(best.user_attrs.get("plan", "")) or None,
            started=min(starts, default=None),
            ours=any(KEY_ATTR in t.user_attrs for t in trials),
        )

    @contextlib.contextmanager
    def _errors(self) -> Generator[None, None, None]:
        """One message for what storages raise, with the storage named and no password in it."""
        try:
            yield
        except InputError:
            raise
        except OSError as error:
            raise InputError.single(self.location, f"cannot be read: {error.strerror}") from None
        except (SQLAlchemyError, StorageInternalError, RuntimeError, ImportError) as error:
            first = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
            raise InputError.single(
                self.location, f"cannot be used as storage: {scrub(first[0], self._secret)}"
            ) from None
        except _DAMAGED as error:
            what = scrub(f"{type(error).__name__}: {error}"[:200], self._secret)
            raise InputError.single(self.location, f"is not a readable Optuna storage ({what})") from None


def is_feasible(trial: FrozenTrial) -> bool:
    """Finished, and every constraint holds."""
    return trial.state in _FINISHED and all(excess <= 0.0 for excess in trial.constraints.values())


def best_trial(trials: Sequence[FrozenTrial], directions: Sequence[str]) -> FrozenTrial | None:
    """The best feasible trial by the first objective."""
    found = [t for t in trials if is_feasible(t) and t.values]
    if not found:
        return None
    return (max if directions[0] == "maximize" else min)(found, key=lambda t: t.values[0])


def _existing(location: str) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if is_url(location):
        _require_sqlite_file(location)
        return _database(location)
    path = Path(location).expanduser()
    path = path / JOURNAL_NAME if path.is_dir() else path
    if not path.is_file():
        raise InputError.single(location, "is not there: no study has been stored at this place")
    if path.suffix in DATABASE_SUFFIXES:
        return _database(f"sqlite:///{path.resolve()}")
    return JournalStorage(JournalFileBackend(str(path), lock_obj=OwnedLock(path, LOCK_TIMEOUT_S)))


def _database(url: str) -> RDBStorage:
    options = {
        "connect_args": connect_args(with_driver(url), {}, timeout_s=LOCK_TIMEOUT_S),
        "poolclass": NullPool,
        "hide_parameters": True,
    }
    return RDBStorage(with_driver(url), engine_kwargs=options)


def _require_sqlite_file(url: str) -> None:
    """SQLite makes a missing file; looking at it must not."""
    scheme, _, path = url.partition(":///")
    if scheme.startswith("sqlite") and not Path(path.partition("?")[0]).is_file():
        raise InputError.single(url, "is not there: no study has been stored at this place")
