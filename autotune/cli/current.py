"""What runs today, as compare, retune and export take it: a plan string, or anything that `autotune import` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from autotune.launch.export import all_servers
from autotune.launch.reading.import_plan import Imported, import_plan
from autotune.launch.reading.parse import find_engine
from autotune.study import Study

MAX_NAME = 4096


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


def with_current(study: Study, text: str | None, given: Mapping[str, str]) -> tuple[Study, str | None]:
    """The study with what runs today as its baseline, knobs included; a plan string is handed back as it is."""
    imported = None if text is None else imported_current(study, text, given)
    if imported is None:
        return study, text
    plan, filled = all_servers(study, imported)
    said = f"current plan: {imported.plan} on {imported.gpus} GPUs, as imported"
    taken = (said, *filled, *(f"current plan: {what} is not known and left out" for what in imported.unknown))
    taken += tuple(f"current plan: {text}" for text in imported.assumptions)
    baseline = replace(imported.baseline(), plan=plan)
    return replace(study, baseline=baseline, assumptions=(*study.assumptions, *taken)), None
