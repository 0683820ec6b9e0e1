"""Where a command keeps the trials of a study, and what it says of what it finds there."""

from __future__ import annotations

import sys
from pathlib import Path

from autotune.scoring.trial_record import study_header
from autotune.storage import Store, can_be_written, default_location, open_store
from autotune.study import Study
from autotune.study.fingerprint import model_age


def study_store(study: Study, storage: str | None, out: str | None) -> Store | None:
    """Where the trials of a study are kept: what was asked for, else the output folder, else the user's data folder.

    None: nowhere, because the user cannot write that last one, which is said.
    """
    return _opened(study, (), storage, out)


def front_store(study: Study, storage: str | None, out: str | None) -> Store | None:
    """As `study_store`, of the study's Pareto front: an Optuna study of its own, with an objective per goal."""
    from autotune.tuning.pareto_front import study_goals

    return _opened(study, study_goals(study), storage, out)


def _opened(study: Study, goals: tuple[tuple[str, str], ...], storage: str | None, out: str | None) -> Store | None:
    location = storage or default_location(None if out is None else Path(out))
    if not (storage or out) and isinstance(location, Path) and not can_be_written(location):
        sys.stderr.write(
            f"note: nothing is kept: {location} cannot be written; --storage FILE names another place, and "
            "--no-storage says that none is wanted\n"
        )
        return None
    store = open_store(location, study_header(study, goals))
    for name, model in store.earlier.items():
        why = model_age(model) or "another model"
        sys.stderr.write(f"note: the trials of {name} are of {why}: every plan is scored anew\n")
    return store


def damage_warning(store: Store | None) -> None:
    """Say so where stored trials were not believed."""
    if store is not None and store.damaged:
        sys.stderr.write(
            f"warning: {store.name} holds {store.damaged:,} damaged trials, whose checksums are wrong: their plans "
            "were scored anew\n"
        )
