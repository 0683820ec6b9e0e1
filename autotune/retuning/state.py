"""The state of re-tuning: the ledger, and `current.json`, which says what runs and follows from the ledger.

Who changes the plan by hand says so in `current.json` or in the study's baseline; the ledger takes note of it.

Putting a plan into production is one appended line (`applied`); `current.json` is written after it. A crash in between
is mended by the next run, which finds the line without its file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.files import write_file
from autotune.retuning.decide import PastSwitch
from autotune.retuning.entry import APPLIED, LAUNCH_KNOBS, SCHEMA, SUMMARY, digest, iso, launch_problem
from autotune.retuning.ledger import Entry, Ledger, open_ledger
from autotune.scoring.plan_result import Launch
from autotune.space import parse_plan
from autotune.space.pooled_planstring import is_pooled, parse_pooled
from autotune.study import own_options_from
from autotune.traffic.profile import WorkloadProfile, profile_from_json
from costmodel.errors import InputError
from costmodel.files import read_file

CURRENT_NAME = "current.json"
MAX_CURRENT_BYTES = 1_000_000
HAND = "hand"
"""What a change is made by that no decision led to."""


def open_state(folder: Path) -> Ledger:
    """The ledger, mended, with `current.json` as it says. The caller holds the folder's lock.

    A plan that somebody wrote into `current.json` is what runs: it becomes a line of the ledger, and is said.

    Raises:
        InputError: the ledger is damaged before its last line, the folder cannot be written, or `current.json` was
            changed into what is no plan.
    """
    ledger, found = open_ledger(folder), read_current(folder)
    wanted = current_document(ledger.applied[-1]) if ledger.applied else None
    before = None if wanted is None else _side(wanted)
    named = found is not None and isinstance(found.get("plan"), str)
    if found is not None and named and _side(found) != before and not _left_by_crash(ledger, found):
        to = _by_hand(folder, found, wanted)
        was = "" if wanted is None else f", not {wanted['plan']}"
        said = f"{CURRENT_NAME} was changed by hand: {to['plan']} runs{was}"
        return change_by_hand(folder, ledger, before or to, to, said)
    if wanted is not None and found != wanted:
        write_current(folder, wanted)
    return ledger


def _left_by_crash(ledger: Ledger, found: Mapping[str, Any]) -> bool:
    """Whether the file is that of the switch before the last one, and nothing was done since the last: it is late."""
    return (
        len(ledger.applied) > 1 and ledger.lines[-1].kind == APPLIED and found == current_document(ledger.applied[-2])
    )


def change_by_hand(
    folder: Path, ledger: Ledger, before: Mapping[str, Any], after: Mapping[str, Any], said: str
) -> Ledger:
    """Record that another plan runs than the ledger knew, from the last window that was decided on."""
    times = [(line.entry["at"], line.entry["at_s"]) for line in reversed(ledger.lines) if line.kind != SUMMARY][:1]
    at, at_s = times[0] if times else (iso(0.0), 0.0)
    head = {"id": digest([len(ledger.lines), at_s, before, after]), "at": at, "at_s": at_s, "by": HAND}
    return replace(_applied(folder, ledger, head, before, after), noticed=(*ledger.noticed, said))


def _by_hand(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> dict[str, Any]:
    """The plan that somebody wrote into `current.json`.

    Raises:
        InputError: it is none.
    """
    side, path = _side(found), str(folder / CURRENT_NAME)
    back = "" if wanted is None else f", or remove the file to go on with {wanted['plan']}"
    if problem := launch_problem(side):
        raise InputError.single(path, f"{problem}: mend it{back}")
    try:
        named = (parse_pooled if is_pooled(side["plan"]) else parse_plan)(side["plan"]).engine
    except InputError as error:
        raise InputError.single(path, f"{error.problems[0].message}: mend it{back}") from error
    return {**side, "engine": named or side["engine"]}


def _side(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: document.get(name) for name in ("plan", "engine", "knobs")}


def read_current(folder: Path) -> dict[str, Any] | None:
    """What `current.json` says; None where it is missing or no JSON (it is written again from the ledger)."""
    try:
        found = json.loads(read_file(folder / CURRENT_NAME, MAX_CURRENT_BYTES))
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # what the ledger could not hold is no JSON
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

    `at` and `at_s` are the same time, as ISO 8601 and Unix time; `by`: `apply` or `accept`.
    """
    if ledger.is_applied(decision["id"]):
        return ledger
    head = {"id": decision["id"], "at": at, "at_s": at_s, "by": by}
    return _applied(folder, ledger, head, decision["current"], decision["candidate"])


def _applied(
    folder: Path, ledger: Ledger, head: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Ledger:
    """The ledger and `current.json` after a change from one plan to another."""
    sides = {
        name: {"plan": side["plan"], "engine": side["engine"], "knobs": side.get("knobs")}
        for name, side in (("from", before), ("to", after))
    }
    entry = {"schema": SCHEMA, "kind": APPLIED, **head, **sides}
    ledger = ledger.with_entry(entry)
    write_current(folder, current_document(entry))
    return ledger


def past_switches(ledger: Ledger) -> tuple[PastSwitch, ...]:
    """What the decision needs to know of switches that were made, oldest first."""
    return tuple(
        PastSwitch(
            at_s=e["at_s"], before=launch_of(e["from"]), after=launch_of(e["to"]), profile=_profile(ledger, e["id"])
        )
        for e in ledger.applied
    )


def _profile(ledger: Ledger, decision: str) -> WorkloadProfile | None:
    entry = ledger.decision(decision)
    try:
        return None if entry is None else profile_from_json(entry["profile"])
    except InputError:
        return None  # of an earlier version


def launch_of(side: Mapping[str, Any]) -> Launch:
    """What starts a plan of an entry; where it has no knobs, it could not be launched."""
    knobs = side["knobs"] or {}
    own = knobs.get("engine_options")
    named = {name: knobs.get(name) for name in LAUNCH_KNOBS} | {"engine_options": own and own_options_from(own)}
    return Launch(plan=side["plan"], **named)
