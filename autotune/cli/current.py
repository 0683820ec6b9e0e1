"""What runs today, as compare, retune and export take it: a plan string, or anything that `autotune import` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from autotune.launch.export import all_servers
from autotune.launch.own_options import as_started
from autotune.launch.reading.import_plan import Imported, import_plan
from autotune.launch.reading.parse import find_engine
from autotune.study import Study

MAX_NAME = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """What runs today, told beside a study."""

    study: Study
    """With what was read as its baseline, knobs and options of its engine included."""
    plan: str | None
    """A plan string, as it was given; None: there is none, or it is the study's baseline now."""


def imported_current(study: Study, text: str, given: Mapping[str, str]) -> Imported | None:
    """What a file, folder or command starts, the study's model taken; None: it is a plan string.

    Raises:
        InputError: as `import_plan`.
    """
    words = text.split()
    is_path = len(text) < MAX_NAME and "\x00" not in text and Path(text).exists()
    if find_engine(words) is None and "run" not in words[1:3] and not is_path:
        return None
    return import_plan(text, study=study, given=given)


def with_current(study: Study, text: str | None, given: Mapping[str, str]) -> Current:
    """The study with what runs today as its baseline; a plan string is handed back as it is.

    Raises:
        InputError: as `import_plan`, or the plan has no reading on the study's GPUs.
    """
    imported = None if text is None else imported_current(study, text, given)
    if imported is None:
        return Current(study=study, plan=text)
    plan, filled = all_servers(study, imported)
    found = as_started(study, imported, plan)
    said = (
        f"{imported.plan} on {imported.gpus} GPUs, as imported",
        *(f"{what} is not known and left out" for what in imported.unknown),
        *found.said,
        *imported.assumptions,
    )
    taken = (*filled, *(f"current plan: {text}" for text in said))
    own = replace(study, baseline=found.baseline, assumptions=(*study.assumptions, *taken))
    return Current(study=own, plan=None)
