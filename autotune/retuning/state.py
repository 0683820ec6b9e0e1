"""The state of re-tuning: the ledger, and `current.json`, which says what runs and follows from the ledger.

Putting a plan into production is one appended line (`applied`); `current.json` is written after it. A crash in between
is mended by the next run, which finds the line without its file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.files import write_file
from autotune.retuning.decide import PastSwitch
from autotune.retuning.ledger import APPLIED, SCHEMA, Entry, Ledger, open_ledger
from autotune.scoring.plan_result import Launch
from costmodel.files import read_file

CURRENT_NAME = "current.json"
MAX_CURRENT_BYTES = 1_000_000


def open_state(folder: Path) -> Ledger:
    """The ledger, mended, with `current.json` as it says. The caller holds the folder's lock.

    Raises:
        InputError: the ledger is damaged before its last line, or the folder cannot be written.
    """
    ledger = open_ledger(folder)
    if ledger.applied:
        wanted = current_document(ledger.applied[-1])
        if read_current(folder) != wanted:
            write_current(folder, wanted)
    return ledger


def read_current(folder: Path) -> dict[str, Any] | None:
    """What `current.json` says; None where it is missing or no JSON (it is written again from the ledger)."""
    try:
        found = json.loads(read_file(folder / CURRENT_NAME, MAX_CURRENT_BYTES))
    except (ValueError, RecursionError):  # an InputError is a ValueError
        return None
    return found if isinstance(found, dict) else None


def write_current(folder: Path, document: Mapping[str, Any]) -> None:
    """Replace `current.json`."""
    write_file(folder / CURRENT_NAME, json.dumps(document, indent=2, allow_nan=False) + "\n")


def current_document(applied: Entry) -> dict[str, Any]:
    """Content of `current.json` after a switch."""
    return {
        "schema": SCHEMA,
        "plan": applied["to"]["plan"],
        "engine": applied["to"]["engine"],
        "knobs": applied["to"]["knobs"],
        "since": applied["at"],
        "decision": applied["id"],
    }


def apply_decision(folder: Path, ledger: Ledger, decision: Entry, *, at: str, at_s: float, by: str) -> Ledger:
    """Put a decision's candidate into production: a line in the ledger, then `current.json`. Once only.

    Args:
        folder: of the state.
        ledger: from `open_state`.
        decision: one that says switch.
        at: time of the switch, ISO 8601.
        at_s: the same as Unix time.
        by: `apply` or `accept`.
    """
    if ledger.is_applied(decision["id"]):
        return ledger
    entry = {
        "schema": SCHEMA,
        "kind": APPLIED,
        "id": decision["id"],
        "at": at,
        "at_s": at_s,
        "by": by,
        "from": _launch(decision["current"]),
        "to": _launch(decision["candidate"]),
    }
    ledger = ledger.with_entry(entry)
    write_current(folder, current_document(entry))
    return ledger


def past_switches(ledger: Ledger) -> tuple[PastSwitch, ...]:
    """What the decision needs to know of switches that were made, oldest first."""
    return tuple(
        PastSwitch(at_s=e["at_s"], before=launch_of(e["from"]), after=launch_of(e["to"])) for e in ledger.applied
    )


def launch_of(side: Mapping[str, Any]) -> Launch:
    """What starts a plan of an entry; where it has no knobs, it could not be launched."""
    knobs = side["knobs"] or {}
    names = ("max_num_batched_tokens", "weight_dtype", "kv_dtype")
    return Launch(plan=side["plan"], **{name: knobs.get(name) for name in names})


def _launch(side: Mapping[str, Any]) -> dict[str, Any]:
    return {"plan": side["plan"], "engine": side["engine"], "knobs": side.get("knobs")}
