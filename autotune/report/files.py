"""Results as the text of files: JSON and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic_core

from autotune.text.escaping import csv_text


def to_json(document: Any) -> str:
    """One JSON document, readable, newline at the end; null stands for numbers that are not finite."""
    # json indents in Python, which takes a quarter of the time of a large study
    return pydantic_core.to_json(document, indent=2, inf_nan_mode="null").decode() + "\n"


def table_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with the columns of all of them, in the order of their first appearance; absent ones are empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text([columns, *([row.get(c, "") for c in columns] for row in rows)])
