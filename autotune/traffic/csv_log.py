"""Request logs as CSV: the Azure LLM inference traces, and others whose header names a time and two token counts.

Whole blocks of lines are parsed at once with numpy; a line that does not look like the others (quotes, signs, spaces,
an unusual time) is parsed alone, and counted by kind where that fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from autotune.traffic import names
from autotune.traffic.csv_cells import Bytes, decimal, equal, iso_time, whole_number, whole_records
from autotune.traffic.csv_header import (
    Header,
    cells_of,
    outcome,
    read_header,
    when,
    with_times,
    with_usual,
    with_wanted,
)
from autotune.traffic.options import ReadOptions
from autotune.traffic.problems import MALFORMED, MAX_TOKENS, NO_TIME, TRUNCATED, token_problem
from autotune.traffic.requests import UNKNOWN, Gathered, Tokens
from autotune.traffic.source import whole_lines
from autotune.traffic.times import believable, iso_seconds, slashed_seconds
from costmodel.errors import InputError
from costmodel.plan.columns import Floats, Ints

_NEWLINE, _RETURN = 10, 13
SAMPLE = 5_000
"""Lines by which the unit of times is recognised."""
_DIGITS = re.compile(r"\d{1,8}")
_THOUSANDS = re.compile(r",(?=\d{3}(?:,\d{3})*$)")


def read_csv(name: str, first: bytes, pieces: Iterator[bytes], gathered: Gathered, options: ReadOptions) -> list[str]:
    """Read a log into `gathered`; returns what was assumed.

    `first` is its beginning, the header's line at least, `pieces` the rest.

    Raises:
        InputError: the header names no time, prompt tokens or output tokens, or not what is to be matched; or times
            may be in several units.
    """
    head, _, rest = first.partition(b"\n")
    header = read_header(head)
    if header is None:
        raise InputError.single(name, "must have a header with a time, prompt tokens and output tokens")
    header = with_wanted(header, name, head, options)
    said: list[str] = []
    started = False
    for block, cut_off in whole_records(whole_lines(pieces, rest), header.width, header.delimiter):
        if not started:
            rows = [cells_of(line, header.delimiter) for line in block.split(b"\n", SAMPLE)[:SAMPLE]]
            rows = [cells for cells in rows if len(cells) == header.width]
            gathered.models.update(cells[header.model] for cells in rows if header.model >= 0)
            header, said, started = with_times(with_usual(header, rows), name, rows, options)
        _read_block(header, block, gathered, cut_off=cut_off)
    return said


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
    cells = cells_of(line, header.delimiter)
    if len(cells) != header.width:
        return TRUNCATED if cut_off or 0 < len(cells) < header.width else MALFORMED
    if header.kind >= 0 and names.is_other(cells[header.kind], None):
        gathered.other += 1
        return None
    if any(cells[column] != value for column, value in header.wanted):
        gathered.unmatched += 1
        return None
    status = outcome(cells[header.status]) if header.status >= 0 else None
    if names.has_failed(status, cells[header.error] if header.error >= 0 else None):
        gathered.failed += 1
        return None
    seconds = _seconds(header, when(header, cells))
    if seconds is None:
        return NO_TIME
    try:
        prompt, output = (float(_THOUSANDS.sub("", cells[at])) for at in (header.prompt, header.output))
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
    if header.day_first is not None:
        return slashed_seconds(text, day_first=header.day_first)
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

    prompt, prompt_plain = whole_number(data, *bounds(header.prompt))
    output, output_plain = whole_number(data, *bounds(header.output))
    times, times_plain = (iso_time if header.iso else decimal)(data, *bounds(header.time))
    if not header.iso:
        times = times * header.unit_s
        times_plain &= times < 253402300800.0
    plain = fits & prompt_plain & output_plain & times_plain
    for column, word in header.usual:
        plain &= equal(data, *bounds(column), word)
    plain &= (prompt >= 1) & (prompt <= MAX_TOKENS) & (output >= 1) & (output <= MAX_TOKENS)
    cached = np.zeros_like(prompt)
    if header.cached >= 0:
        cached, cached_plain = whole_number(data, *bounds(header.cached))
        plain &= cached_plain
    found = (prompt.astype(np.int32), output.astype(np.int32), np.minimum(cached, prompt).astype(np.int32))
    return times, found, plain
