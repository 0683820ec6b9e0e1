"""The golden table: figures as they were recorded, under the version of the model that had them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("table.json")
TOLERANCE = 1e-6
"""Relative: what sums in another order differ by is no other figure."""
Records = Mapping[str, Mapping[str, Any]]


def read_table(path: Path = TABLE) -> tuple[int, dict[str, dict[str, Any]]]:
    """The version of the model, and the records."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content.pop("model_version"), content


def write_table(version: int, records: Records, path: Path = TABLE) -> None:
    """Write the table, a record a line, so that a difference shows which plan moved.

    Raises:
        ValueError: figures that are recorded are other ones now, and the version of the model is the one they have.
    """
    if path.exists():
        before, recorded = read_table(path)
        moved = [name for name in recorded if name in records and not alike(recorded[name], records[name])]
        if moved and version <= before:
            raise ValueError(
                f"{len(moved)} records have other figures than under model version {before}, as {moved[0]!r}: raise "
                "MODEL_VERSION in costmodel/version.py first, or stored trials of the old figures are taken for new"
            )
    lines = [f'"model_version": {version}']
    lines += [f"{json.dumps(name)}: {json.dumps(figures)}" for name, figures in records.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def alike(recorded: object, computed: object) -> bool:
    """Whether everything that is recorded is still so; new figures beside it are no difference."""
    if isinstance(recorded, Mapping):
        return isinstance(computed, Mapping) and all(
            k in computed and alike(v, computed[k]) for k, v in recorded.items()
        )
    if isinstance(recorded, (int, float)) and isinstance(computed, (int, float)):
        return math.isclose(recorded, computed, rel_tol=TOLERANCE, abs_tol=1e-15)
    return recorded == computed
