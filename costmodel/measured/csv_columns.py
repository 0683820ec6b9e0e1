"""The columns of files of measured runs: which there are, which are read, and which look like one that lacks."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from costmodel.errors import InputError, Problem
from costmodel.files import read_file

MAX_ROWS = 5_000
MAX_RUNS_BYTES = 50_000_000
"""Every run is held against every other: memory and time rise with the square of their number."""
LATENCIES = frozenset({"ttft", "tpot", "e2e"})
MEAN_WORDS = frozenset({"mean", "avg", "average", "ms", "s", "us", "sec", "seconds", "msec", "milliseconds"})
ALIKE = 0.85
"""How like a known column, by `difflib`, one is taken for it: `engine_verison`."""
SHORT = 3
"""Letters of words that are others where one letter is another: `dp`, `p95`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of one kind of file."""

    required: tuple[str, ...]
    known: tuple[str, ...]
    """All that are read."""
    measured: tuple[str, ...]
    """Those of what was measured."""

    def said_of(self, path: Path) -> list[str]:
        """What a file of this kind has that is not read, and that it has nothing to compare with."""
        found = read_columns(path)
        said = []
        if not set(self.measured) & set(found):
            said.append(f"nothing is compared: the file has none of the columns {', '.join(self.measured)}")
        if passed := list(filter(None, dict.fromkeys(name for name in found if name not in self.known))):
            said.append(f"columns that are not read: {', '.join(passed)}")
        return said


def read_columns(path: Path) -> tuple[str, ...]:
    """Names of the columns of a CSV, without blanks around them; raises `InputError` where it cannot be read."""
    return _read(path, ())[0]


def read_rows(path: Path, columns: Columns) -> list[dict[str, str]]:
    """Rows of a CSV by column, stripped; columns that are not known are passed over.

    Raises:
        InputError: required columns lack, others are known ones but for their spelling, or nothing is in it.
    """
    names, rows = _read(path, columns.required)
    if problems := [Problem(path=str(path), message=said) for said in _misspelt(names, columns)]:
        raise InputError(problems)
    if not rows:
        raise InputError.single(str(path), "must hold at least one run, got none")
    return rows


def _read(path: Path, required: Sequence[str]) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Columns and rows of a CSV with the required columns; without any, no rows."""
    raw = read_file(path, MAX_RUNS_BYTES)
    try:
        with io.TextIOWrapper(io.BytesIO(raw), newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            columns = tuple(name.strip() for name in next(reader, ()))
            missing = [c for c in required if c not in columns]
            if missing:
                raise InputError.single(
                    str(path), f"must have the columns {', '.join(required)}; lacks {', '.join(missing)}"
                )
            rows = list[dict[str, str]]()
            for cells in filter(None, reader if required else ()):
                rows.append(dict.fromkeys(columns, "") | dict(zip(columns, map(str.strip, cells), strict=False)))
                if len(rows) > MAX_ROWS:
                    raise InputError.single(
                        str(path), f"must have at most {MAX_ROWS:,} rows; give fewer repeats of a run"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError.single(str(path), f"is not CSV: {error}") from error
    return columns, rows


def _misspelt(names: Sequence[str], columns: Columns) -> list[str]:
    """What is wrong with columns that are read and there twice, or not known but for one that lacks."""
    twice = [(name, names.count(name)) for name in columns.known if names.count(name) > 1]
    said = [f"must have the column {name} once, has it {times} times" for name, times in twice]
    lacking = [name for name in columns.known if name not in names]
    for name in sorted(set(names) - set(columns.known)):
        means = [own for own in columns.measured if _mean_of(own) == _mean_of(name)] if _mean_of(name) else []
        if means:
            # beside a latency's mean other figures of it are the file's own matter
            meant = [] if set(means) & set(names) else means
        elif not LATENCIES & _words(name):
            alike = difflib.get_close_matches(name.casefold(), lacking, cutoff=ALIKE)
            meant = [own for own in alike if _slip(name.casefold(), own)][:1]
        else:
            meant = []
        if meant:
            said.append(f"column {name} is not known: must be {' or '.join(meant)}, if it is that")
    return said


def _mean_of(column: str) -> str:
    """The latency whose mean a column is by its words, in whatever unit; empty where it is something else."""
    words = _words(column)
    found = words & LATENCIES
    return found.pop() if len(found) == 1 and words <= LATENCIES | MEAN_WORDS else ""


def _words(column: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", column.casefold()))


def _slip(name: str, known: str) -> bool:
    """Whether a name is a known one but for its spelling: of `attn_cp` and `attn_dp` short words differ, which mean."""
    one, other = name.split("_"), known.split("_")
    apart = [pair for pair in zip(one, other, strict=False) if pair[0] != pair[1]]
    return len(one) != len(other) or any(min(map(len, pair)) > SHORT for pair in apart) or not apart
