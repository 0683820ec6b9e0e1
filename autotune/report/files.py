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


def plans_csv(document: dict[str, Any]) -> str:
    """The plans of a `tune` document as CSV, one row each."""
    plans = document["plans"]
    layout = ["replicas", "pp", "attn_tp", "attn_dp", "attn_cp", "moe_tp", "moe_ep"]
    knobs = list(plans[0]["knobs"]) if plans else []
    metrics = list(plans[0]["metrics"]) if plans else []
    header = ["rank", "plan", "engine", "feasible", "violations", "stage_layers", *layout, *knobs, *metrics]
    rows = (
        [
            plan["rank"],
            plan["plan"],
            plan["engine"],
            plan["feasible"],
            " ".join(v["code"] for v in plan["violations"]),
            "-".join(map(str, plan["layout"]["stage_layers"])),
            *(plan["layout"][k] for k in layout),
            *(plan["knobs"][k] for k in knobs),
            *(plan["metrics"][k] for k in metrics),
        ]
        for plan in plans
    )
    return csv_text([header, *rows])
