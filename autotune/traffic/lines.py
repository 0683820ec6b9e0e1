"""Whole lines out of pieces of bytes."""

from __future__ import annotations

from collections.abc import Iterator

MAX_LINE_BYTES = 1 << 24
"""Longer lines are no request; they are passed over without being held."""


def whole_lines(pieces: Iterator[bytes], first: bytes = b"") -> Iterator[tuple[bytes, bool]]:
    """Blocks of whole lines, and whether the block is the end of a file without its last newline.

    A line longer than `MAX_LINE_BYTES` comes out as its beginning alone.
    """
    rest, skipping = first, False
    for piece in pieces:
        if skipping:
            _, newline, piece = piece.partition(b"\n")
            if not newline:
                continue
            skipping = False
        cut = piece.rfind(b"\n") + 1
        if cut == 0:
            rest += piece
            if len(rest) > MAX_LINE_BYTES:
                yield rest[:64] + b"\n", False
                rest, skipping = b"", True
            continue
        yield rest + piece[:cut], False
        rest = piece[cut:]
    if rest:
        # `first` may hold whole lines before the one without its newline
        cut = rest.rfind(b"\n") + 1
        if cut:
            yield rest[:cut], False
        if rest[cut:]:
            yield rest[cut:] + b"\n", True
