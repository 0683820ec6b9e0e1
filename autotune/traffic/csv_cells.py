"""Cells of a CSV as numbers and times, for all lines at once with numpy, and which of them were plain enough."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from autotune.traffic.csv_header import cells_of
from costmodel.plan.columns import Floats, Ints

QUOTE = b'"'
MOST_LINES, MOST_BYTES = 20_000, 1 << 22
"""Of a record. What is longer has a quote too many, and its first line is taken by itself."""


def whole_records(blocks: Iterator[tuple[bytes, bool]], width: int, delimiter: str) -> Iterator[tuple[bytes, bool]]:
    """Blocks of whole lines such that no record of `width` cells goes on beyond its line: a space for each newline.

    A line with a quote that nothing closes stays as it is, so that a torn one costs no line but itself. The second of a
    pair is whether the block is the end of a file without its last newline.
    """
    held = b""
    for block, cut_off in blocks:
        block = held + block
        held = b""
        if QUOTE in block:
            block, held = _joined(block, width, delimiter)
        if block:
            yield block, cut_off and not held
    if held:
        yield _joined(held, width, delimiter, last=True)[0], True


def _joined(block: bytes, width: int, delimiter: str, *, last: bool = False) -> tuple[bytes, bytes]:
    """The records of a block as lines, and its end, where a record is open and may go on; with `last` none may."""
    lines = block.removesuffix(b"\n").split(b"\n")
    odd = [i for i, line in enumerate(lines) if line.count(QUOTE) % 2]
    if not odd:
        return block, b""
    out: list[bytes] = []
    done = 0
    for at, i in enumerate(odd):
        if i < done:
            continue
        out += lines[done:i]
        done = i + 1
        if at + 1 == len(odd):
            rest = lines[i:]
            if not last and len(rest) <= MOST_LINES and sum(map(len, rest)) <= MOST_BYTES:
                return b"".join(line + b"\n" for line in out), b"".join(line + b"\n" for line in rest)
            out.append(lines[i])
            continue
        record = b" ".join(line.rstrip(b"\r") for line in lines[i : odd[at + 1] + 1])
        whole = len(record) <= MOST_BYTES and len(cells_of(record, delimiter)) == width
        out.append(record if whole else lines[i])
        done = odd[at + 1] + 1 if whole else i + 1
    out += lines[done:]
    return b"".join(line + b"\n" for line in out), b""


Bytes = NDArray[np.uint8]
_POINT, _ZERO = 46, 48
_MAX_DIGITS = 8
_FRACTION_DIGITS = 9


def equal(data: Bytes, begin: Ints, end: Ints, word: bytes) -> NDArray[np.bool_]:
    """Cells that hold just the word."""
    same = end - begin == len(word)
    for place, byte in enumerate(word):
        same &= data[np.minimum(begin + place, data.size - 1)] == byte
    return same


def whole_number(data: Bytes, begin: Ints, end: Ints) -> tuple[Ints, NDArray[np.bool_]]:
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


def _fraction(data: Bytes, point: Ints, end: Ints) -> tuple[Floats, Ints]:
    """Digits after a point up to `end`: their value, and where they stop."""
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
    return value, stop


def decimal(data: Bytes, begin: Ints, end: Ints) -> tuple[Floats, NDArray[np.bool_]]:
    """Numbers such as 1700158666 or 12.25."""
    width = end - begin
    value, at, going = np.zeros(begin.size), begin, np.ones(begin.size, dtype=bool)
    for _ in range(int(min(width.max(initial=0), 16))):
        digit = data[np.minimum(at, data.size - 1)].astype(np.int64) - _ZERO
        going &= (at < end) & (digit >= 0) & (digit <= 9)
        value = np.where(going, value * 10.0 + digit, value)
        at = np.where(going, at + 1, at)
    fraction, stop = _fraction(data, at, end)
    return value + fraction, (at > begin) & (stop == end)


def iso_time(data: Bytes, begin: Ints, end: Ints) -> tuple[Floats, NDArray[np.bool_]]:
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
    fraction, stop = _fraction(data, begin + 19, end)
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
