"""Headers of CSV logs: which columns matter, what a served request holds in them, and how times are written."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace

import numpy as np

from autotune.traffic import names
from autotune.traffic.names import canonical
from autotune.traffic.options import TIME_UNITS, ReadOptions
from autotune.traffic.times import day_comes_first, iso_seconds, recognised_unit
from costmodel.errors import InputError

DELIMITERS = (",", "\t", ";", "|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Which columns matter, and how times are written. A column that there is not is -1."""

    width: int
    time: int
    prompt: int
    output: int
    cached: int = -1
    status: int = -1
    error: int = -1
    kind: int = -1
    model: int = -1
    usual: tuple[tuple[int, bytes], ...] = ()
    """Columns, and what they hold in a request that was served; lines with anything else are looked at alone."""
    wanted: tuple[tuple[int, str], ...] = ()
    """Columns whose value a request must have to count."""
    delimiter: str = ","
    expected_unit: str | None = None
    """That logs with such columns are known for."""
    date: int = -1
    """Of a date that stands apart from its time."""
    day_first: bool | None = None
    """Whether dates are `3/11/2026` for the 3rd of November; None: they have no slashes."""
    iso: bool = True
    unit_s: float = 1.0


def _titles(line: bytes) -> tuple[str, list[str]]:
    """What parts the titles of a header, and the titles."""
    text = line.decode("utf-8-sig", "replace").strip()
    delimiter = max(DELIMITERS, key=text.count)
    return delimiter, [canonical(title) for title in text.split(delimiter)]


def read_header(line: bytes) -> Header | None:
    """Columns by their names; None: it names no time, prompt and output tokens."""
    delimiter, titles = _titles(line)
    times = [(i, found) for i, title in enumerate(titles) if (found := names.time_name(title)) is not None]
    if not times:
        return None
    time, (_, unit) = min(times, key=lambda found: names.TIME.index(found[1][0]))

    def column(known: tuple[str, ...]) -> int:
        return next((titles.index(name) for name in known if name in titles), -1)

    header = Header(
        width=len(titles),
        time=time,
        prompt=column(names.SHORT_PROMPT),
        output=column(names.SHORT_OUTPUT),
        cached=column(names.CACHED),
        status=column(names.STATUS),
        error=column(names.ERROR),
        kind=column(names.KIND),
        model=column(names.MODEL),
        date=column(("date",)),
        delimiter=delimiter,
        expected_unit=unit or ("s" if _KNOWN_IN_SECONDS & set(titles) else None),
    )
    return header if min(header.prompt, header.output) >= 0 else None


def lacking(line: bytes) -> str:
    """What a header lacks that has some of what is needed, in words; empty: it has all of it, or none."""
    _, titles = _titles(line)
    found = {
        "a time (as timestamp)": any(names.time_name(title) is not None for title in titles),
        "prompt tokens (as prompt_tokens)": any(title in names.SHORT_PROMPT for title in titles),
        "output tokens (as completion_tokens)": any(title in names.SHORT_OUTPUT for title in titles),
    }
    return ", ".join(words for words, there in found.items() if not there) if any(found.values()) else ""


_KNOWN_IN_SECONDS = frozenset(("arrivedat", "logtype", "arrivaltimestamp"))
"""Columns of logs whose times are seconds: Vidur's, BurstGPT's, Splitwise's."""


def looks_like_csv(first: bytes) -> bool:
    """Whether the beginning of a log is a header that names a time and two token counts."""
    return read_header(first.partition(b"\n")[0]) is not None


def with_wanted(header: Header, name: str, head: bytes, options: ReadOptions) -> Header:
    """With the columns that `options.match` names.

    Raises:
        InputError: there is no such column.
    """
    _, titles = _titles(head)
    wanted = []
    for field, value in options.match.items():
        column = header.model if canonical(field) in names.MODEL else -1
        column = titles.index(canonical(field)) if canonical(field) in titles else column
        if column < 0:
            raise InputError.single("--match", f"must name a column of {name}: it has no {field!r}")
        wanted.append((column, value))
    return replace(header, wanted=tuple(wanted))


def with_usual(header: Header, rows: list[list[str]]) -> Header:
    """With what the columns hold that say whether a line is a request, and whether it was served."""
    usual = [(column, value.encode()) for column, value in header.wanted]
    if header.error >= 0:
        usual.append((header.error, b""))
    for cells in rows:
        failed = header.status >= 0 and names.has_failed(outcome(cells[header.status]), None)
        if not failed and not (header.kind >= 0 and names.is_other(cells[header.kind], None)):
            usual += [(column, cells[column].encode()) for column in (header.status, header.kind) if column >= 0]
            break
    return replace(header, usual=tuple(usual))


def with_times(
    header: Header, name: str, rows: list[list[str]], options: ReadOptions
) -> tuple[Header, list[str], bool]:
    """How times are written, by the first lines that have them; without any they say nothing."""
    if not any(re.match(r"\d{1,2}:\d\d", cells[header.time]) for cells in rows):
        header = replace(header, date=-1)
    slashed = day_comes_first(when(header, cells) for cells in rows)
    if slashed is not None:
        return replace(header, day_first=slashed[0]), list(slashed[1]), True
    numbers: list[float] = []
    for cells in rows:
        text = when(header, cells)
        if not numbers and iso_seconds(text) is not None and not text.isdigit():
            return header, [], True
        try:
            numbers.append(float(text))
        except ValueError:
            continue
    finite = np.array([number for number in numbers if np.isfinite(number)])
    if finite.size == 0:
        return header, [], False
    if options.time_unit is not None:
        return replace(header, iso=False, unit_s=TIME_UNITS[options.time_unit]), [], True
    unit_s, said = recognised_unit(name, finite, expected=header.expected_unit)
    return replace(header, iso=False, unit_s=unit_s), list(said), True


def when(header: Header, cells: list[str]) -> str:
    """A line's time as it is written."""
    return cells[header.time] if header.date < 0 else f"{cells[header.date]} {cells[header.time]}"


def outcome(text: str) -> str | bool:
    """What a cell says of a request's outcome."""
    return text.lower() == "true" if text.lower() in ("true", "false") else text


def cells_of(line: bytes, delimiter: str) -> list[str]:
    """The cells of one line; none where its quotes are not in order."""
    text = line.decode("utf-8", "replace").strip("\r\n")
    if '"' not in text:
        return [cell.strip() for cell in text.split(delimiter)]
    try:
        return [cell.strip() for cell in next(csv.reader([text], strict=True, delimiter=delimiter), [])]
    except csv.Error:
        return []
