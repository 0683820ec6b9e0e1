"""Results as the text of files: JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.text.escaping import csv_text


def to_json(document: Any) -> str:
    """One JSON document, readable, newline at the end."""
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def table_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV with the columns of all of them, in the order of their first appearance; absent ones are empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text([columns, *([row.get(c, "") for c in columns] for row in rows)])
