"""Older entries of the ledger in compressed files beside it, so that a ledger of years is read in milliseconds.

What lies beyond the newest decisions goes into `ledger-archive/`, a gzip file for each time that this happens, and a
`summary` line in its place says how many decisions of which kind they were, of which time, and in which file. Nothing
is lost. Switches stay in the ledger, however old, and so do the decisions that later ones are compared with. The file
is written first and the ledger is replaced second, in one step; a crash in between writes the same file again.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autotune.files import write_file, writing
from autotune.retuning.decide import SETTLED
from autotune.retuning.entry import APPLIED, DECISION, HEAD, LINE_HEAD, SCHEMA, SUMMARY, digest

ARCHIVE_NAME = "ledger-archive"
SHORTEN_BYTES = 1_500_000
"""Size from which the ledger is shortened: about 350 decisions, two weeks of hourly runs. Each run reads the ledger,
which takes some 10 ms of CPU per MB."""
KEPT_BYTES = 700_000
"""What stays of the newest entries, about."""
COMPRESSION_LEVEL = 1
"""The quickest of gzip: a run that keeps the plan has 50 ms, one that shortens the ledger included."""
FILE_BYTES = 64_000_000
"""Of an archive before it is compressed, about, where a ledger of an earlier version is very long."""


def shorten(path: Path) -> None:
    """Move older decisions of a long ledger into archives; the caller holds the folder's lock.

    A ledger that holds lines which are no entries is left as it is: reading it will say which. So is one that is long
    for its switches and summaries, which stay, until there are enough decisions to move: runs would each write a file.

    Raises:
        InputError: the folder cannot be written.
    """
    if not path.exists() or (size := path.stat().st_size) <= SHORTEN_BYTES:
        return
    before, needed = size - KEPT_BYTES, _needed(path)
    kept: list[bytes] = []
    old: list[bytes] = []
    old_bytes = position = 0
    for number, line in enumerate(_lines(path)):
        position += len(line)
        found = LINE_HEAD.match(line)
        if found is None or not line.endswith(b"}\n"):
            if position < size:
                return
            kept.append(line)  # what a crash left of the last line
        elif position <= before and number not in needed and found["kind"].decode() == DECISION:
            old.append(line)
            old_bytes += len(line)
            if old_bytes >= FILE_BYTES:
                kept.append(_archived(path, old))
                old, old_bytes = [], 0
        else:
            kept.append(line)
    if position - len(b"".join(kept)) < (SHORTEN_BYTES - KEPT_BYTES) / 2.0:
        return
    if old:
        kept.append(_archived(path, old))
    _replace(path, kept)


def _needed(path: Path) -> set[int]:
    """Lines that are gone on from, whatever their age: what chose the plan that runs, and what last settled on it."""
    places: dict[str, int] = {}
    chosen: str | None = None
    settled: set[int] = set()
    for number, line in enumerate(_lines(path)):
        found = LINE_HEAD.match(line)
        if found is None:
            continue
        kind, name, rule = (found[field] for field in ("kind", "id", "rule"))
        if kind.decode() == APPLIED:
            chosen = name.decode()
        elif kind.decode() == DECISION:
            places[name.decode()] = number
            if rule is not None and rule.decode() in SETTLED:
                settled = {number}
    return settled | ({places[chosen]} if chosen in places else set())


def _replace(path: Path, kept: list[bytes]) -> None:
    summaries = [line for line in kept if _kind(line) == SUMMARY]
    write_file(path, [*summaries, *(line for line in kept if _kind(line) != SUMMARY)], private=True)


def _kind(line: bytes) -> str:
    found = LINE_HEAD.match(line)
    return "" if found is None else found["kind"].decode()


def _lines(path: Path) -> Iterator[bytes]:
    with writing(path), path.open("rb") as file:
        yield from file


def _archived(path: Path, lines: list[bytes]) -> bytes:
    """Write lines into an archive; the line that stands for them."""
    content = b"".join(lines)
    name = digest(content.decode("utf-8", "replace"))
    file = path.parent / ARCHIVE_NAME / f"{name[:24]}.jsonl.gz"
    write_file(file, gzip.compress(content, COMPRESSION_LEVEL, mtime=0), private=True)
    found = [LINE_HEAD.match(line) for line in lines]
    decided = Counter(head["decision"].decode() for head in found if head is not None and head["decision"] is not None)
    entry: dict[str, Any] = {
        **dict.fromkeys(HEAD),
        "schema": SCHEMA,
        "kind": SUMMARY,
        "id": name,
        "at": _time(lines[0]),
        "until": _time(lines[-1]),
        "decisions": dict(sorted(decided.items())),
        "archive": f"{ARCHIVE_NAME}/{file.name}",
    }
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _time(line: bytes) -> str | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    at = entry.get("at")
    return at if isinstance(at, str) else None
