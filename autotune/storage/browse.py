"""The studies of a storage, whoever made them: listed, read, deleted. Nothing here makes a storage or a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from autotune.storage.open_store import open_existing, reading
from autotune.storage.record import CHECKSUM_ATTR, KEY_ATTR, is_record, record_of
from autotune.storage.store import METRIC_NAMES_ATTR, MODEL_ATTR, OVERRIDES_ATTR
from autotune.storage.trials import named_constraints
from autotune.storage.urls import hide, is_url
from costmodel.errors import InputError

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialView:
    """One trial as it is shown: what our record says where it is ours, else what Optuna says."""

    number: int
    state: str
    values: tuple[float, ...]
    params: Mapping[str, Any]
    constraints: Mapping[str, float]
    attributes: Mapping[str, Any]
    started: datetime | None
    ours: bool
    damaged: bool
    """Ours, and its checksum is not that of its content: nothing that it says counts."""

    @property
    def feasible(self) -> bool:
        """Finished and whole, and every constraint holds."""
        finished = self.state in [s.name for s in _FINISHED] and not self.damaged
        return finished and all(excess <= 0.0 for excess in self.constraints.values())

    @property
    def plan(self) -> str:
        """The plan string; "" where it has none."""
        return str(self.attributes.get("plan", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """One Optuna study of a storage with its trials, by number."""

    name: str
    directions: tuple[str, ...]
    metrics: tuple[str, ...]
    """Names of the objectives; none where whoever made the study gave none."""
    trials: tuple[TrialView, ...]
    model: object
    """Stamp of the model that scored it (`autotune.study.fingerprint.model_stamp`); None: not ours."""
    overrides: tuple[str, ...]
    """The `--set` settings that it was made with."""
    attributes: Mapping[str, Any]
    """User attributes of the study itself."""

    @property
    def ranked(self) -> list[TrialView]:
        """Feasible trials by the first objective, best first; ties by the plan string, as `autotune tune` ranks."""
        sign = -1.0 if self.directions[0] == "maximize" else 1.0
        return sorted((t for t in self.trials if t.feasible and t.values), key=lambda t: (sign * t.values[0], t.plan))


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
        with reading(location):
            self._storage = open_existing(location)

    def names(self) -> list[str]:
        """Names of all studies, sorted."""
        with reading(self._secret):
            return sorted(s.study_name for s in self._storage.get_all_studies())

    def study(self, name: str) -> StudyView:
        """One study with its trials."""
        with reading(self._secret):
            study_id = self._find(name)
            attributes = self._storage.get_study_user_attrs(study_id)
            metrics = self._storage.get_study_system_attrs(study_id).get(METRIC_NAMES_ATTR) or ()
            trials = self._storage.get_all_trials(study_id, deepcopy=False)
            return StudyView(
                name=name,
                directions=tuple(d.name.lower() for d in self._storage.get_study_directions(study_id)),
                metrics=tuple(map(str, metrics)),
                trials=tuple(map(_view, trials)),
                model=attributes.get(MODEL_ATTR),
                overrides=_texts(attributes.get(OVERRIDES_ATTR)),
                attributes=dict(attributes),
            )

    def delete(self, name: str) -> None:
        """Remove one study with all its trials; the others stay."""
        with reading(self._secret):
            self._storage.delete_study(self._find(name))

    def _find(self, name: str) -> int:
        try:
            return self._storage.get_study_id_from_name(name)
        except KeyError:
            known = ", ".join(self.names()[:10]) or "no study at all"
            raise InputError.single(self.location, f"has no study {name!r}; it has {known}") from None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _view(trial: FrozenTrial) -> TrialView:
    ours = is_record(trial.user_attrs)
    record = record_of(trial.user_attrs) if ours else None
    seal = (KEY_ATTR, CHECKSUM_ATTR, "params", "values", "margins")
    return TrialView(
        number=trial.number,
        state=trial.state.name,
        values=tuple(trial.values or ()) if record is None else record.values,
        params=trial.params if record is None else record.params,
        constraints=named_constraints(trial) if record is None else record.constraints,
        attributes={name: value for name, value in trial.user_attrs.items() if not ours or name not in seal},
        started=trial.datetime_start,
        ours=ours,
        damaged=ours and record is None,
    )
