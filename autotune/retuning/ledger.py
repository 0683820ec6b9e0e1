"""The ledger: a line of JSON for everything that was decided or put into production, in order.

Three kinds of entries: `decision` (what a window's traffic led to), `applied` (a switch that was made, or a plan that
was changed by hand) and `summary` (older entries, which lie in archives beside: `autotune.retuning.archive`). A line is
whole when it ends in a newline and is JSON; what a crash leaves of the last one is set aside, and the ledger goes on
before it. Every line begins with the same few fields, so that many entries are looked through without parsing them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from autotune.files import append_file, cut_file, write_file
from autotune.retuning.archive import shorten
from autotune.retuning.entry import APPLIED, DECISION, HEAD, KINDS, LINE_HEAD, SCHEMA, entry_problem
from costmodel.errors import InputError, Problem
from costmodel.files import read_file

LEDGER_NAME = "ledger.jsonl"
MAX_LEDGER_BYTES = 200_000_000
ANEW = "move the ledger away to start anew"

Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A whole line of the ledger: its first fields, and the rest when it is asked for."""

    path: str
    """File and line number, for messages."""
    raw: bytes
    kind: str
    id: str
    decision: str | None
    rule: str | None

    @cached_property
    def entry(self) -> Entry:
        """The whole entry.

        Raises:
            InputError: the line is damaged beyond its first fields.
        """
        try:
            entry: Entry = json.loads(self.raw)
            json.dumps(entry, ensure_ascii=False, allow_nan=False).encode()  # read leniently, but not written so
        except (ValueError, RecursionError) as error:
            what = "deeply nested" if isinstance(error, RecursionError) else str(error)[:200]
            raise InputError.single(self.path, f"must be a line of JSON, got {what}; {ANEW}") from error
        problem = entry_problem(entry)
        if not problem and any(entry.get(name) != getattr(self, name) for name in ("kind", "id", "decision", "rule")):
            problem = "must have each field once"
        if problem:
            raise InputError.single(self.path, f"{problem}; {ANEW}")
        return entry


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What a state folder holds, read once under its lock."""

    path: Path
    lines: tuple[Line, ...]
    set_aside: Path | None = None
    """Where the torn end of the file went, if it had one."""
    noticed: tuple[str, ...] = ()
    """What was found changed since the last entry, in sentences."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Everything, oldest first."""
        return tuple(line.entry for line in self.lines)

    @property
    def decisions(self) -> tuple[Line, ...]:
        """Decisions alone, oldest first."""
        return tuple(line for line in self.lines if line.kind == DECISION)

    @cached_property
    def applied(self) -> tuple[Entry, ...]:
        """Switches that were made and changes by hand, oldest first."""
        return tuple(line.entry for line in self.lines if line.kind == APPLIED)

    @cached_property
    def _applied_ids(self) -> frozenset[str]:
        return frozenset(line.id for line in self.lines if line.kind == APPLIED)

    def decision(self, inputs: str) -> Entry | None:
        """The decision that these inputs led to, if they were decided on."""
        return next((line.entry for line in reversed(self.decisions) if line.id == inputs), None)

    def is_applied(self, inputs: str) -> bool:
        """Whether a decision was put into production."""
        return inputs in self._applied_ids

    def with_entry(self, entry: Entry) -> Ledger:
        """Append an entry to the file, and the ledger that holds it.

        Raises:
            InputError: the file cannot be written.
        """
        whole = {**{name: entry.get(name) for name in HEAD}, **entry}
        raw = json.dumps(whole, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode() + b"\n"
        message, line = _line(raw, f"{self.path}:{len(self.lines) + 1}")
        if line is None:
            raise ValueError(f"an entry {message}")
        append_file(self.path, raw, private=True)
        return replace(self, lines=(*self.lines, line))


def read_ledger(folder: Path) -> Ledger:
    """The ledger without touching it: for looking at. A torn last line is left out.

    Raises:
        InputError: every whole line that is no entry, with its number.
    """
    path = folder / LEDGER_NAME
    whole, _ = _split(_content(path))
    return Ledger(path=path, lines=_lines(path, whole))


def open_ledger(folder: Path) -> Ledger:
    """The ledger for going on with it; the caller holds the folder's lock. A torn last line is set aside.

    Raises:
        InputError: as `read_ledger`, and where the folder cannot be written.
    """
    path = folder / LEDGER_NAME
    shorten(path)
    whole, torn = _split(_content(path))
    lines = _lines(path, whole)
    aside: Path | None = None
    if torn:
        # kept first, cut second: a crash in between sets the same bytes aside under the same name again
        aside = _unused(folder / f"{LEDGER_NAME}.torn-at-{len(whole)}", torn)
        write_file(aside, torn, private=True)
        cut_file(path, len(whole))
    return Ledger(path=path, lines=lines, set_aside=aside)


def _unused(path: Path, content: bytes) -> Path:
    """The name, with a number behind it where it holds something else already."""
    for number in range(1, 1000):
        name = path if number == 1 else path.with_name(f"{path.name}-{number}")
        if not name.exists() or read_file(name, MAX_LEDGER_BYTES) == content:
            return name
    raise InputError.single(str(path), "a thousand torn ends are there already: move them away")


def _content(path: Path) -> bytes:
    if not path.exists():
        return b""
    if path.stat().st_size > MAX_LEDGER_BYTES:
        message = (
            f"is longer than {MAX_LEDGER_BYTES:,} bytes: the next `autotune retune` moves older entries into archives"
        )
        raise InputError.single(str(path), message)
    return read_file(path, MAX_LEDGER_BYTES)


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Whole lines and what follows the last of them. Blocks that never reached the disk read as zeros: torn as well."""
    end = content.rfind(b"\n") + 1
    start = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
    last = content[start:end].strip()
    if last and not _is_json(last):
        end = start
    return content[:end], content[end:]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    except RecursionError:
        return True  # its end closes what it opens: whole, if not an entry
    return True


def _lines(path: Path, whole: bytes) -> tuple[Line, ...]:
    problems: list[Problem] = []
    out: list[Line] = []
    for number, raw in enumerate(whole.split(b"\n"), start=1):
        if not raw:
            continue
        where = f"{path}:{number}"
        message, line = _line(raw, where)
        if line is None:
            problems.append(Problem(path=where, message=message))
        else:
            out.append(line)
    if problems:
        raise InputError(problems)
    return tuple(out)


def _line(raw: bytes, where: str) -> tuple[str, Line | None]:
    """The line, or what is wrong with it."""
    found = LINE_HEAD.match(raw)
    if found is None or not raw.rstrip().endswith(b"}"):
        return f"must be JSON that begins with {', '.join(HEAD)}; {ANEW}", None
    schema, kind, name, decision, rule = found.groups()
    if schema != b"%d" % SCHEMA:
        return f"must have schema {SCHEMA}, got {schema[:20].decode()}: written by another version", None
    if kind.decode() not in KINDS:
        return f"must be one of {', '.join(KINDS)}, got kind {kind.decode()[:40]!r}", None
    return "", Line(
        path=where,
        raw=raw,
        kind=kind.decode(),
        id=name.decode(),
        decision=None if decision is None else decision.decode(),
        rule=None if rule is None else rule.decode(),
    )
