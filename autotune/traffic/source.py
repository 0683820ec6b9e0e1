"""Bytes of a log from a file, standard input or an HTTP(S) address, decompressed on the way, never held as a whole."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from autotune.traffic.address import is_address, shown_source
from costmodel.errors import InputError
from costmodel.files import open_file

CHUNK_BYTES = 1 << 22
MAX_HTTP_BYTES = 4 << 30
"""Most that is taken from an address."""
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(slots=True)
class Source:
    """An opened log: its bytes in pieces, and what went wrong with the bytes themselves."""

    name: str
    pieces: Iterator[bytes]
    damage: str | None = None
    """Set while the pieces are taken: why they ended early."""
    cut_off: bool = False
    """Set likewise: whether compressed data ended in the middle, as in a log that is still written."""


@contextmanager
def open_source(source: str, *, timeout_s: float) -> Iterator[Source]:
    """Open a file, `-` for standard input, or an `http://` or `https://` address.

    Args:
        source: what to read.
        timeout_s: of an address: for a connection, for each answer, and 20 times it for everything.

    Raises:
        InputError: it cannot be opened or read, is too large, or is neither file nor HTTP(S).
    """
    if is_address(source):
        from autotune.traffic.fetch import fetch  # brings HTTP and TLS along

        with fetch(source, timeout_s) as (stream, deadline):
            yield _source(shown_source(source), stream, deadline=deadline)
        return
    if source == "-":
        yield _source("standard input", sys.stdin.buffer)
        return
    try:
        with open_file(Path(source)) as stream:
            yield _source(source, stream)
    except OSError as error:
        raise InputError.single(source, f"cannot be read: {error.strerror or error}") from error


def _source(name: str, stream: BinaryIO, *, deadline: float | None = None) -> Source:
    out = Source(name, iter(()))
    out.pieces = _plain(_raw(name, stream, deadline), out)
    return out


def _raw(name: str, stream: BinaryIO, deadline: float | None) -> Iterator[bytes]:
    taken = 0
    read = getattr(stream, "read1", stream.read)
    while piece := read(CHUNK_BYTES):
        taken += len(piece)
        if deadline is not None and taken > MAX_HTTP_BYTES:
            raise InputError.single(name, f"must be at most {MAX_HTTP_BYTES >> 30} GiB")
        if deadline is not None and time.monotonic() > deadline:
            raise InputError.single(
                name, f"took too long: {taken:,} bytes were read; a longer timeout helps (--timeout of autotune retune)"
            )
        yield piece


def _plain(raw: Iterator[bytes], source: Source) -> Iterator[bytes]:
    """Decompress where the first bytes say gzip; several members, as appended logs have, follow each other."""
    first = b""
    for piece in raw:
        first += piece
        if len(first) >= len(GZIP_MAGIC):
            break
    if first.startswith(GZIP_MAGIC):
        yield from _unzipped(first, raw, source)
        return
    if first:
        yield first
    yield from raw


def _unzipped(first: bytes, raw: Iterator[bytes], source: Source) -> Iterator[bytes]:
    unzip, begun, pending = zlib.decompressobj(wbits=31), False, first
    try:
        while pending:
            begun = True
            plain = unzip.decompress(pending, CHUNK_BYTES)
            if plain:
                yield plain
            pending = unzip.unconsumed_tail
            if unzip.eof:
                # members may be padded with zeros, as on tapes
                pending = unzip.unused_data.lstrip(b"\0")
                unzip, begun = zlib.decompressobj(wbits=31), False
            pending = pending or next(raw, b"")
        rest = unzip.flush()
    except zlib.error as error:
        source.damage = f"its gzip data is damaged ({error}), nothing after that was read"
        return
    if rest:
        yield rest
    source.cut_off = begun


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
