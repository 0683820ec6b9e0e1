"""Records of a CSV whose quoted cells hold newlines, as prompts do: each is made one line."""

from __future__ import annotations

from collections.abc import Iterator

from autotune.traffic.csv_header import cells_of

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
