"""The ledger: a line of JSON for everything that was decided or put into production, in order, never rewritten.

Two kinds of entries: `decision` (what a window's traffic led to) and `applied` (a switch that was made). A line is
whole when it ends in a newline and is JSON; what a crash leaves of the last one is set aside, and the ledger goes on
before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.retuning.disk import append_bytes, cut_file, replace_file
from costmodel.errors import InputError, Problem

SCHEMA = 1
"""Of every entry; entries of a later schema are refused, not guessed at."""
LEDGER_NAME = "ledger.jsonl"
DECISION, APPLIED = "decision", "applied"

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What a state folder holds, read once under its lock."""

    path: Path
    entries: tuple[Entry, ...]
    set_aside: Path | None = None
    """Where the torn end of the file went, if it had one."""

    def decision(self, inputs: str) -> Entry | None:
        """The decision that these inputs led to, if they were decided on."""
        return next((e for e in reversed(self.entries) if e["kind"] == DECISION and e["id"] == inputs), None)

    def last_decision(self) -> Entry | None:
        """The latest decision."""
        return next((e for e in reversed(self.entries) if e["kind"] == DECISION), None)

    @property
    def applied(self) -> tuple[Entry, ...]:
        """Switches that were made, oldest first."""
        return tuple(e for e in self.entries if e["kind"] == APPLIED)

    def is_applied(self, inputs: str) -> bool:
        """Whether a decision was put into production."""
        return any(e["id"] == inputs for e in self.applied)

    def with_entry(self, entry: Entry) -> Ledger:
        """Append an entry to the file, and the ledger that holds it.

        Raises:
            InputError: the file cannot be written.
        """
        append_bytes(self.path, _line(entry))
        return Ledger(path=self.path, entries=(*self.entries, entry), set_aside=self.set_aside)


def read_ledger(folder: Path) -> Ledger:
    """The ledger without touching it: for looking at. A torn last line is left out.

    Raises:
        InputError: every whole line that is no entry, with its number.
    """
    path = folder / LEDGER_NAME
    whole, _ = _split(_content(path))
    return Ledger(path=path, entries=_entries(path, whole))


def open_ledger(folder: Path) -> Ledger:
    """The ledger for going on with it; the caller holds the folder's lock. A torn last line is set aside.

    Raises:
        InputError: as `read_ledger`, and where the folder cannot be written.
    """
    path = folder / LEDGER_NAME
    content = _content(path)
    whole, torn = _split(content)
    entries = _entries(path, whole)
    aside: Path | None = None
    if torn:
        # kept first, cut second: a crash in between sets the same bytes aside under the same name again
        aside = folder / f"{LEDGER_NAME}.torn-at-{len(whole)}"
        replace_file(aside, torn)
        cut_file(path, len(whole))
    return Ledger(path=path, entries=entries, set_aside=aside)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError.single(str(path), f"cannot be read: {error.strerror}") from error


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Whole lines and what follows the last of them. Blocks that never reached the disk read as zeros: torn as well."""
    end = content.rfind(b"\n") + 1
    whole, torn = content[:end], content[end:]
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    if whole[start:].strip() and not _is_json(whole[start:]):
        return whole[:start], whole[start:] + torn
    return whole, torn


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _entries(path: Path, whole: bytes) -> tuple[Entry, ...]:
    problems: list[Problem] = []
    out: list[Entry] = []
    for number, line in enumerate(whole.splitlines(), start=1):
        if not line.strip():
            continue
        message, entry = _entry(line)
        if entry is None:
            problems.append(Problem(path=f"{path}:{number}", message=message))
        else:
            out.append(entry)
    if problems:
        raise InputError(problems)
    return tuple(out)


def _entry(line: bytes) -> tuple[str, Entry | None]:
    try:
        entry = json.loads(line)
    except ValueError:
        return "must be a line of JSON; only the last line may be torn. Move the ledger away to start anew", None
    if not isinstance(entry, dict) or entry.get("schema") != SCHEMA:
        found = entry.get("schema") if isinstance(entry, dict) else None
        return f"must have schema {SCHEMA}, got {found!r}: written by another version", None
    if entry.get("kind") not in (DECISION, APPLIED) or not isinstance(entry.get("id"), str):
        return f"must be a {DECISION} or {APPLIED} with an id, got kind {entry.get('kind')!r}", None
    return "", entry


def _line(entry: Entry) -> bytes:
    return json.dumps(entry, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode() + b"\n"


def decisions(entries: Sequence[Entry]) -> list[Entry]:
    """Decisions alone, oldest first."""
    return [e for e in entries if e["kind"] == DECISION]
