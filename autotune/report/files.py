"""Writing results: whole files or none."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune.text.escaping import csv_text
from costmodel.errors import InputError


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that no reader ever sees half of it.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError.single(str(path), f"cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise InputError.single(str(path), f"cannot be written: {error.strerror}") from error


def to_json(document: Any) -> str:
    """One JSON document, readable, newline at the end."""
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def table_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with the columns of all of them, in the order of their first appearance; absent ones are empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text([columns, *([row.get(c, "") for c in columns] for row in rows)])
