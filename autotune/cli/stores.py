"""Where a command keeps the trials of a study."""

from __future__ import annotations

import sys
from pathlib import Path

from autotune.storage import Store, default_location, open_store
from autotune.study import Study, cluster_choices, study_fingerprint
from autotune.tuning.pareto_front import study_goals


def study_store(study: Study, storage: str | None, out: str | None) -> Store:
    """Where the trials of a study are kept: what was asked for, else the output folder, else the user's data folder."""
    return _opened(study, study.name, (study.objective.direction,), storage, out)


def front_store(study: Study, storage: str | None, out: str | None) -> Store:
    """As `study_store`, of the study's Pareto front: an Optuna study of its own, with an objective per goal."""
    directions = tuple(direction for _, direction in study_goals(study))
    return _opened(study, f"{study.name}-pareto", directions, storage, out)


def _opened(study: Study, name: str, directions: tuple[str, ...], storage: str | None, out: str | None) -> Store:
    location = storage or default_location(None if out is None else Path(out))
    gpus = max(c.gpus for c in (*cluster_choices(study), *study.axes.other_gpus))
    return open_store(location, name, study_fingerprint(study), directions, gpus=gpus)


def one_machine_warning(store: Store, hosts: frozenset[str]) -> None:
    """Say so where several machines were seen on a storage that serves one."""
    if store.one_machine and hosts:
        sys.stderr.write(
            f"warning: {store.location} is used from {', '.join(sorted(hosts))} as well: a file serves the workers of "
            "one machine, several machines need --storage postgresql://…\n"
        )
