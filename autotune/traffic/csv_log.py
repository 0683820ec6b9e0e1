"""Request logs as CSV: the Azure LLM inference traces, and others whose header names a time and two token counts.

Whole blocks of lines are parsed at once with numpy; a line that does not look like the others (quotes, signs, spaces,
an unusual time) is parsed alone, and counted by kind where that fails.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autotune.traffic.lines import whole_lines
from autotune.traffic.problems import MALFORMED, MAX_TOKENS, NO_TIME, TRUNCATED, token_problem
from autotune.traffic.requests import Gathered
from autotune.traffic.times import believable, iso_seconds, unit_of
from costmodel.errors import InputError
from costmodel.plan.columns import Floats, Ints

TIME_NAMES = ("timestamp", "time", "ts", "arrival_time", "arrived_at", "start_time", "created", "created_at")
PROMPT_NAMES = (
    "contexttokens",
    "context_tokens",
    "input_length",
    "prompt_tokens",
    "input_tokens",
    "request tokens",
    "request_tokens",
    "isl",
)
OUTPUT_NAMES = (
    "generatedtokens",
    "generated_tokens",
    "output_length",
    "completion_tokens",
    "output_tokens",
    "response tokens",
    "response_tokens",
    "osl",
)
Bytes = NDArray[np.uint8]
_NEWLINE, _RETURN, _COMMA, _POINT, _ZERO = 10, 13, 44, 46, 48
_MAX_DIGITS = 8
_FRACTION_DIGITS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Which columns matter, and how times are written."""

    width: int
    time: int
    prompt: int
    output: int
    iso: bool = True
    unit_s: float = 1.0


def read_header(line: bytes) -> Header | None:
    """Columns by their names; None: it names no time, prompt and output tokens."""
    names = [name.strip().strip('"').lower() for name in line.decode("utf-8-sig", "replace").strip().split(",")]
    found = [
        next((names.index(n) for n in known if n in names), -1) for known in (TIME_NAMES, PROMPT_NAMES, OUTPUT_NAMES)
    ]
    if min(found) < 0:
        return None
    return Header(width=len(names), time=found[0], prompt=found[1], output=found[2])


def read_csv(name: str, first: bytes, pieces: Iterator[bytes], gathered: Gathered) -> tuple[str, ...]:
    """Read a log into `gathered`; returns what was assumed.

    Args:
        name: of the log, for messages.
        first: its beginning, the header's line at least.
        pieces: the rest.
        gathered: what is filled.

    Raises:
        InputError: the header names no time, prompt tokens or output tokens.
    """
    head, _, rest = first.partition(b"\n")
    header = read_header(head)
    if header is None:
        raise InputError.single(name, "must have a header with a time, prompt tokens and output tokens")
    assumption: str | None = None
    started = False
    for block, cut_off in whole_lines(pieces, rest):
        if not started:
            header, assumption, started = _with_times(header, block)
        _read_block(header, block, gathered, cut_off=cut_off)
    return () if assumption is None else (assumption,)


def _with_times(header: Header, block: bytes) -> tuple[Header, str | None, bool]:
    """How times are written, by the first line that has one; without any the block says nothing."""
    for line in block.split(b"\n", 64)[:64]:
        cells = _cells(line)
        if len(cells) != header.width:
            continue
        text = cells[header.time]
        if iso_seconds(text) is not None and not text.isdigit():
            return header, None, True
        try:
            unit_s, assumption = unit_of(float(text), relative_s=1.0)
        except ValueError:
            continue
        return replace(header, iso=False, unit_s=unit_s), assumption, True
    return header, None, False


def _cells(line: bytes) -> list[str]:
    text = line.decode("utf-8", "replace").strip("\r\n")
    if '"' not in text:
        return [cell.strip() for cell in text.split(",")]
    try:
        return [cell.strip() for cell in next(csv.reader([text], strict=True), [])]
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
    if plain.all():
        gathered.add(times, tokens[0], tokens[1])
        return
    good = plain.copy()
    odd = np.flatnonzero(~plain)
    for i in odd:
        line = block[starts[i] : ends[i]]
        parsed = _parse_line(header, line, cut_off=cut_off and i == starts.size - 1)
        if isinstance(parsed, str):
            gathered.problems[parsed] += 1
            continue
        times[i], tokens[0][i], tokens[1][i] = parsed
        good[i] = True
    gathered.add(times[good], tokens[0][good], tokens[1][good])


def _parse_line(header: Header, line: bytes, *, cut_off: bool) -> tuple[float, int, int] | str:
    """One line alone; the kind of its problem where it has one."""
    cells = _cells(line)
    if len(cells) != header.width:
        return TRUNCATED if cut_off or 0 < len(cells) < header.width else MALFORMED
    seconds = _seconds(header, cells[header.time])
    if seconds is None:
        return NO_TIME
    try:
        prompt, output = (float(cells[at]) for at in (header.prompt, header.output))
    except ValueError:
        return TRUNCATED if cut_off or not cells[-1] else MALFORMED
    if prompt != prompt or output != output:  # NaN
        return MALFORMED
    return token_problem(prompt, output) or (seconds, int(prompt), int(output))


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
) -> tuple[Floats, tuple[NDArray[np.int32], NDArray[np.int32]], NDArray[np.bool_]]:
    """All lines at once: times, prompts and outputs, and which lines were plain enough for that."""
    commas = np.append(np.flatnonzero(data == _COMMA), data.size)
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
    plain &= (prompt >= 1) & (prompt <= MAX_TOKENS) & (output >= 1) & (output <= MAX_TOKENS)
    return times, (prompt.astype(np.int32), output.astype(np.int32)), plain


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


def needed_columns() -> Sequence[str]:
    """One line per column that a header must name, for messages."""
    return [" | ".join(names) for names in (TIME_NAMES, PROMPT_NAMES, OUTPUT_NAMES)]
