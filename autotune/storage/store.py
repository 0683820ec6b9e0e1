"""What a stored study says about itself, and the interface of what keeps its trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from autotune.storage.record import TrialRecord, is_record, record_of

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

QUESTION_ATTR = "autotune_question"
MODEL_ATTR = "autotune_model"
OVERRIDES_ATTR = "autotune_overrides"
METRIC_NAMES_ATTR = "study:metric_names"
"""System attribute that `optuna.Study.set_metric_names` sets: experimental, it warns, and needs a sampler made."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyHeader:
    """What a study is called in a storage, and what it says about itself."""

    name: str
    """The study's name, for people; its Optuna study's ends in the beginning of the fingerprint."""
    fingerprint: str
    """Of the question and the model together: another one is another Optuna study in the same storage."""
    question: str
    """Of the question alone: stays the same when the model changes."""
    model: Mapping[str, Any]
    """What scores the plans, as `autotune.study.fingerprint.model_stamp`."""
    directions: tuple[str, ...]
    """`maximize` or `minimize`, one per objective."""
    metrics: tuple[str, ...]
    """Name of every objective."""
    overrides: tuple[str, ...] = ()
    """The `--set` settings that the study was made with."""
    most_gpus: int = 1_000_000
    """Upper bound of the layout's degrees, for the distributions that samplers and plots see."""

    @property
    def study_name(self) -> str:
        """Name of the Optuna study."""
        return f"{self.name}-{self.fingerprint[:12]}"


class Session(Protocol):
    """A look at a study's trials; within a transaction that writes, nobody else writes to the study."""

    def attributes(self, after: int) -> Iterable[tuple[int, Mapping[str, Any] | None]]:
        """Place and attributes of each trial behind a place, ascending; None where they are no JSON."""

    def append(self, trials: Sequence[FrozenTrial]) -> int:
        """Write finished trials behind those that are there; the place of the last."""


class Store(ABC):
    """The trials of one study in an Optuna storage. A trial appears whole and once: none is ever RUNNING.

    What the attributes of a trial say counts where their checksum is right; a damaged trial is one that is not there.
    """

    location: str
    """File or URL, as shown to people: without a password."""
    earlier: Mapping[str, object] = MappingProxyType({})
    """Where this study was made just now: others of the same question by name, each with the model that scored it."""

    def __init__(self, header: StudyHeader) -> None:
        """Nothing is opened yet."""
        self._header = header
        self._keys: set[str] = set()
        self._seen = -1
        self._damaged = 0

    @property
    def name(self) -> str:
        """Name of the Optuna study."""
        return self._header.study_name

    @property
    def damaged(self) -> int:
        """Trials seen so far whose checksum is not that of their content."""
        return self._damaged

    def known_keys(self) -> Set[str]:
        """Keys of all trials stored by now, by any process: a set that grows with later calls.

        Raises:
            InputError: the storage cannot be read.
        """
        self._look(lambda session: list(self._new(session)))
        return self._keys

    def records(self) -> list[TrialRecord]:
        """All trials in the order of their numbers; of several with one key the first.

        Raises:
            InputError: the storage cannot be read.
        """

        def everything(session: Session) -> list[TrialRecord]:
            self._keys, self._seen, self._damaged = set(), -1, 0
            return list(self._new(session))

        return self._look(everything)

    def add(self, records: Sequence[TrialRecord]) -> int:
        """Write those trials whose key is not stored yet, each whole or not at all; their number.

        Keys are read again inside the storage's lock, so two writers never store one twice.

        Raises:
            InputError: the storage is locked for longer than the timeout, read-only, full or damaged.
            ValueError: a parameter that no study has, or out of its bounds.
        """
        from autotune.storage.trials import frozen_trial

        unique: dict[str, TrialRecord] = {}
        for record in records:
            unique.setdefault(record.key, record)
        trials = {key: frozen_trial(record, self._header.most_gpus) for key, record in unique.items()}
        if not trials:
            return 0

        def write(session: Session) -> tuple[list[str], int]:
            for _ in self._new(session):
                pass
            missing = [key for key in trials if key not in self._keys]
            return missing, session.append([trials[key] for key in missing]) if missing else self._seen

        added, self._seen = self._change(write)
        self._keys.update(added)
        return len(added)

    def _new(self, session: Session) -> Iterator[TrialRecord]:
        """Records behind the last one seen."""
        for place, attributes in session.attributes(self._seen):
            self._seen = place
            if attributes is not None and not is_record(attributes):
                continue  # a trial that somebody added by hand
            record = None if attributes is None else record_of(attributes)
            if record is None:
                self._damaged += 1
            elif record.key not in self._keys:
                self._keys.add(record.key)
                yield record

    @abstractmethod
    def _look(self, work: Callable[[Session], T]) -> T:
        """Do something that reads."""

    @abstractmethod
    def _change(self, work: Callable[[Session], T]) -> T:
        """Do something that writes: whole or not at all. `work` may be done again where it did not come through."""


def find_study(storage: BaseStorage, header: StudyHeader) -> int | None:
    """Number of a study in its storage; None where it is not there, or whoever made it was killed at it."""
    try:
        study_id = storage.get_study_id_from_name(header.study_name)
    except KeyError:
        return None
    return study_id if MODEL_ATTR in storage.get_study_user_attrs(study_id) else None


def make_study(storage: BaseStorage, header: StudyHeader) -> tuple[int, dict[str, object]]:
    """Make a study with what it says about itself; its number, and the models of the same question's other studies."""
    import optuna
    from optuna.study import StudyDirection

    optuna.logging.set_verbosity(
        optuna.logging.ERROR
    )  # what it says of a new study is for people who call it themselves
    studies = {s.study_name: s for s in storage.get_all_studies()}
    earlier = {
        name: s.user_attrs.get(MODEL_ATTR)
        for name, s in studies.items()
        if s.user_attrs.get(QUESTION_ATTR) == header.question and len(s.directions) == len(header.directions)
    }
    if header.study_name not in studies:
        directions = [StudyDirection[direction.upper()] for direction in header.directions]
        storage.create_new_study(directions, header.study_name)
    study_id = storage.get_study_id_from_name(header.study_name)
    storage.set_study_system_attr(study_id, METRIC_NAMES_ATTR, list(header.metrics))
    storage.set_study_user_attr(study_id, OVERRIDES_ATTR, list(header.overrides))
    storage.set_study_user_attr(study_id, QUESTION_ATTR, header.question)
    storage.set_study_user_attr(study_id, MODEL_ATTR, dict(header.model))
    return study_id, earlier
