"""Request logs as CSV: the Azure LLM inference traces, and others whose header names a time and two token counts.

Whole blocks of lines are parsed at once with numpy; a line that does not look like the others (quotes, signs, spaces,
an unusual time) is parsed alone, and counted by kind where that fails.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autotune.traffic import names
from autotune.traffic.lines import whole_lines
from autotune.traffic.names import canonical
from autotune.traffic.options import TIME_UNITS, ReadOptions
from autotune.traffic.problems import MALFORMED, MAX_TOKENS, NO_TIME, TRUNCATED, token_problem
from autotune.traffic.requests import UNKNOWN, Gathered, Tokens
from autotune.traffic.times import believable, iso_seconds, recognised_unit
from costmodel.errors import InputError
from costmodel.plan.columns import Floats, Ints

Bytes = NDArray[np.uint8]
_NEWLINE, _RETURN, _POINT, _ZERO = 10, 13, 46, 48
DELIMITERS = (",", "\t", ";")
SAMPLE = 5_000
"""Lines by which the unit of times is recognised."""
_MAX_DIGITS = 8
_FRACTION_DIGITS = 9
_DIGITS = re.compile(r"\d{1,8}")


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
    iso: bool = True
    unit_s: float = 1.0


def read_header(line: bytes) -> Header | None:
    """Columns by their names; None: it names no time, prompt and output tokens."""
    text = line.decode("utf-8-sig", "replace").strip()
    delimiter = max(DELIMITERS, key=text.count)
    titles = [canonical(title) for title in text.split(delimiter)]
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
        delimiter=delimiter,
        expected_unit=unit or ("s" if _KNOWN_IN_SECONDS & set(titles) else None),
    )
    return header if min(header.prompt, header.output) >= 0 else None


_KNOWN_IN_SECONDS = frozenset(("arrivedat", "logtype", "arrivaltimestamp"))
"""Columns of logs whose times are seconds: Vidur's, BurstGPT's, Splitwise's."""


def read_csv(name: str, first: bytes, pieces: Iterator[bytes], gathered: Gathered, options: ReadOptions) -> list[str]:
    """Read a log into `gathered`; returns what was assumed.

    Args:
        name: of the log, for messages.
        first: its beginning, the header's line at least.
        pieces: the rest.
        gathered: what is filled.
        options: what the log does not say of itself.

    Raises:
        InputError: the header names no time, prompt tokens or output tokens, or not what is to be matched; or times
            may be in several units.
    """
    head, _, rest = first.partition(b"\n")
    header = read_header(head)
    if header is None:
        raise InputError.single(name, "must have a header with a time, prompt tokens and output tokens")
    header = _with_wanted(header, name, head, options)
    said: list[str] = []
    started = False
    for block, cut_off in whole_lines(pieces, rest):
        if not started:
            rows = [cells for line in block.split(b"\n", SAMPLE)[:SAMPLE] if (cells := _cells(line, header.delimiter))]
            rows = [cells for cells in rows if len(cells) == header.width]
            gathered.models.update(cells[header.model] for cells in rows if header.model >= 0)
            header, said, started = _with_times(_with_usual(header, rows), name, rows, options)
        _read_block(header, block, gathered, cut_off=cut_off)
    return said


def _with_wanted(header: Header, name: str, head: bytes, options: ReadOptions) -> Header:
    titles = [canonical(t) for t in head.decode("utf-8-sig", "replace").strip().split(header.delimiter)]
    wanted = []
    for field, value in options.match.items():
        column = header.model if canonical(field) in names.MODEL else -1
        column = titles.index(canonical(field)) if canonical(field) in titles else column
        if column < 0:
            raise InputError.single("--match", f"must name a column of {name}: it has no {field!r}")
        wanted.append((column, value))
    return replace(header, wanted=tuple(wanted))


def _with_usual(header: Header, rows: list[list[str]]) -> Header:
    """With what the columns hold that say whether a line is a request, and whether it was served."""
    usual = [(column, value.encode()) for column, value in header.wanted]
    if header.error >= 0:
        usual.append((header.error, b""))
    for cells in rows:
        failed = header.status >= 0 and names.has_failed(_outcome(cells[header.status]), None)
        if not failed and not (header.kind >= 0 and names.is_other(cells[header.kind], None)):
            usual += [(column, cells[column].encode()) for column in (header.status, header.kind) if column >= 0]
            break
    return replace(header, usual=tuple(usual))


def _with_times(
    header: Header, name: str, rows: list[list[str]], options: ReadOptions
) -> tuple[Header, list[str], bool]:
    """How times are written, by the first lines that have them; without any they say nothing."""
    numbers: list[float] = []
    for cells in rows:
        text = cells[header.time]
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


def _outcome(text: str) -> str | bool:
    return text.lower() == "true" if text.lower() in ("true", "false") else text


def _cells(line: bytes, delimiter: str) -> list[str]:
    text = line.decode("utf-8", "replace").strip("\r\n")
    if '"' not in text:
        return [cell.strip() for cell in text.split(delimiter)]
    try:
        return [cell.strip() for cell in next(csv.reader([text], strict=True, delimiter=delimiter), [])]
    except csv.Error:
        return []


def _read_block(header: Header, block: bytes, gathered: Gathered, *, cut_off: bool) -> None:
    data = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(data == _NEWLINE)
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    ends = ends - (data[np.maximum(ends - 1, 0)] == _RETURN)
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    times, tokens, plain = _parse(header, data, starts, ends)
    gathered.lines += starts.size
    cached = tokens[2] if header.cached >= 0 else None
    if plain.all():
        gathered.add(times, tokens[0], tokens[1], cached)
        return
    good = plain.copy()
    for i in np.flatnonzero(~plain):
        parsed = _parse_line(header, block[starts[i] : ends[i]], gathered, cut_off=cut_off and i == starts.size - 1)
        if isinstance(parsed, str):
            gathered.problems[parsed] += 1
        elif parsed is not None:
            times[i], tokens[0][i], tokens[1][i], tokens[2][i] = parsed
            good[i] = True
    gathered.add(times[good], tokens[0][good], tokens[1][good], None if cached is None else cached[good])


def _parse_line(
    header: Header, line: bytes, gathered: Gathered, *, cut_off: bool
) -> tuple[float, int, int, int] | str | None:
    """One line alone; the kind of its problem where it has one, None where it is no request that counts."""
    cells = _cells(line, header.delimiter)
    if len(cells) != header.width:
        return TRUNCATED if cut_off or 0 < len(cells) < header.width else MALFORMED
    if header.kind >= 0 and names.is_other(cells[header.kind], None):
        gathered.other += 1
        return None
    if any(cells[column] != value for column, value in header.wanted):
        gathered.unmatched += 1
        return None
    status = _outcome(cells[header.status]) if header.status >= 0 else None
    if names.has_failed(status, cells[header.error] if header.error >= 0 else None):
        gathered.failed += 1
        return None
    seconds = _seconds(header, cells[header.time])
    if seconds is None:
        return NO_TIME
    try:
        prompt, output = (float(cells[at]) for at in (header.prompt, header.output))
    except ValueError:
        return TRUNCATED if cut_off or not cells[-1] else MALFORMED
    if prompt != prompt or output != output:  # NaN
        return MALFORMED
    if output == 0 and prompt >= 1:
        gathered.failed += 1
        return None
    cached = cells[header.cached] if header.cached >= 0 else ""
    return token_problem(prompt, output) or (
        seconds, int(prompt), int(output), min(int(cached), int(prompt)) if _DIGITS.fullmatch(cached) else UNKNOWN
    )  # fmt: skip


def _seconds(header: Header, text: str) -> float | None:
    if header.iso:
        return iso_seconds(text)
    try:
        seconds = float(text) * header.unit_s
    except ValueError:
        return None
    return seconds if believable(seconds) else None


def _parse(
    header: Header, data: Bytes, starts: Ints, ends: Ints
) -> tuple[Floats, tuple[Tokens, Tokens, Tokens], NDArray[np.bool_]]:
    """All lines at once: times; prompt, output and cached tokens; and which lines were plain enough for that."""
    commas = np.append(np.flatnonzero(data == ord(header.delimiter)), data.size)
    first = np.searchsorted(commas, starts)
    fits = np.searchsorted(commas, ends) - first == header.width - 1

    def bounds(column: int) -> tuple[Ints, Ints]:
        begin = starts if column == 0 else commas[np.minimum(first + column - 1, commas.size - 1)] + 1
        end = ends if column == header.width - 1 else commas[np.minimum(first + column, commas.size - 1)]
        # lines of another width are given nothing to read
        return np.where(fits, begin, starts), np.where(fits, end, starts)

    prompt, prompt_plain = _whole(data, *bounds(header.prompt))
    output, output_plain = _whole(data, *bounds(header.output))
    times, times_plain = (_iso if header.iso else _decimal)(data, *bounds(header.time))
    if not header.iso:
        times = times * header.unit_s
        times_plain &= times < 253402300800.0
    plain = fits & prompt_plain & output_plain & times_plain
    for column, word in header.usual:
        plain &= _equal(data, *bounds(column), word)
    plain &= (prompt >= 1) & (prompt <= MAX_TOKENS) & (output >= 1) & (output <= MAX_TOKENS)
    cached = np.zeros_like(prompt)
    if header.cached >= 0:
        cached, cached_plain = _whole(data, *bounds(header.cached))
        plain &= cached_plain
    found = (prompt.astype(np.int32), output.astype(np.int32), np.minimum(cached, prompt).astype(np.int32))
    return times, found, plain


def _equal(data: Bytes, begin: Ints, end: Ints, word: bytes) -> NDArray[np.bool_]:
    """Cells that hold just the word."""
    same = end - begin == len(word)
    for place, byte in enumerate(word):
        same &= data[np.minimum(begin + place, data.size - 1)] == byte
    return same


def _whole(data: Bytes, begin: Ints, end: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Whole numbers of at most eight digits and nothing else."""
    width = end - begin
    plain = (width >= 1) & (width <= _MAX_DIGITS)
    value = np.zeros(begin.size, dtype=np.int64)
    for place in range(int(min(width.max(initial=0), _MAX_DIGITS))):
        inside = place < width
        digit = data[np.maximum(end - 1 - place, 0)].astype(np.int64) - _ZERO
        plain &= ~inside | ((digit >= 0) & (digit <= 9))
        value += np.where(inside, digit, 0) * 10**place
    return value, plain


def _digits(data: Bytes, at: Ints, count: int) -> tuple[Ints, NDArray[np.bool_]]:
    """`count` digits from `at` on."""
    value, plain = np.zeros(at.size, dtype=np.int64), np.ones(at.size, dtype=bool)
    for place in range(count):
        digit = data[np.minimum(at + place, data.size - 1)].astype(np.int64) - _ZERO
        plain &= (digit >= 0) & (digit <= 9)
        value = value * 10 + digit
    return value, plain


def _fraction(data: Bytes, point: Ints, end: Ints) -> tuple[Floats, Ints, NDArray[np.bool_]]:
    """Digits after a point up to `end`: their value, where they stop, and whether that is plain."""
    value, scale, at = np.zeros(point.size), 1.0, point + 1
    going = (point < end) & (data[np.minimum(point, data.size - 1)] == _POINT)
    stop = np.where(going, at, point)
    for _ in range(_FRACTION_DIGITS):
        digit = data[np.minimum(at, data.size - 1)].astype(np.int64) - _ZERO
        going &= (at < end) & (digit >= 0) & (digit <= 9)
        if not going.any():
            break
        scale /= 10.0
        value += np.where(going, digit * scale, 0.0)
        at = at + 1
        stop = np.where(going, at, stop)
    return value, stop, np.ones(point.size, dtype=bool)


def _decimal(data: Bytes, begin: Ints, end: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """Numbers such as 1700158666 or 12.25."""
    width = end - begin
    value, at, going = np.zeros(begin.size), begin, np.ones(begin.size, dtype=bool)
    for _ in range(int(min(width.max(initial=0), 16))):
        digit = data[np.minimum(at, data.size - 1)].astype(np.int64) - _ZERO
        going &= (at < end) & (digit >= 0) & (digit <= 9)
        value = np.where(going, value * 10.0 + digit, value)
        at = np.where(going, at + 1, at)
    fraction, stop, _ = _fraction(data, at, end)
    return value + fraction, (at > begin) & (stop == end)


def _iso(data: Bytes, begin: Ints, end: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """Times such as `2023-11-16 18:17:03.9799600`, without a zone or in UTC."""
    last = data.size - 1
    year, plain = _digits(data, begin, 4)
    month, fits = _digits(data, begin + 5, 2)
    plain &= fits & (end - begin >= 19) & (data[np.minimum(begin + 4, last)] == ord("-"))
    parts = [month]
    for offset in (8, 11, 14, 17):
        value, fits = _digits(data, begin + offset, 2)
        plain &= fits
        parts.append(value)
    month, day, hour, minute, second = parts
    for offset, mark in ((7, "-"), (13, ":"), (16, ":")):
        plain &= data[np.minimum(begin + offset, last)] == ord(mark)
    apart = data[np.minimum(begin + 10, last)]
    plain &= (apart == ord(" ")) | (apart == ord("T"))
    plain &= (year >= 1970) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 28 + 3 * (month != 2) + (month == 2))
    plain &= (hour <= 23) & (minute <= 59) & (second <= 59)
    fraction, stop, _ = _fraction(data, begin + 19, end)
    left = end - stop
    utc = (left == 1) & (data[np.minimum(stop, last)] == ord("Z"))
    offset = left == 6
    for place, mark in enumerate("+00:00"):
        offset &= data[np.minimum(stop + place, last)] == ord(mark)
    plain &= (left == 0) | utc | offset
    days = _days(np.where(plain, year, 1970), np.where(plain, month, 1), np.where(plain, day, 1))
    return days * 86400.0 + (hour * 3600 + minute * 60 + second) + fraction, plain


def _days(year: Ints, month: Ints, day: Ints) -> Ints:
    """Days from 1 January 1970 (Gregorian calendar, years counted from March)."""
    y = year - (month <= 2)
    era = y // 400
    of_era = y - era * 400
    of_year = (153 * (month + np.where(month > 2, -3, 9)) + 2) // 5 + day - 1
    return np.asarray(era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468)


def looks_like_csv(first: bytes) -> bool:
    """Whether the beginning of a log is a header that `read_csv` takes."""
    return read_header(first.partition(b"\n")[0]) is not None
