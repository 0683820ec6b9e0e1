"""Bytes of a log from a file, standard input or an HTTP(S) address, decompressed on the way, never held as a whole."""

from __future__ import annotations

import os
import re
import sys
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

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


AUTHORIZATION = "AUTOTUNE_TRAFFIC_AUTHORIZATION"
"""Environment variable whose value goes into the Authorization header of an address: `Bearer TOKEN`, say."""
HIDDEN = "***"
_SHOWN = frozenset(("query", "match[]", "start", "end", "step", "time", "window", "limit", "format"))
"""Parameters of an address that are shown: those of Prometheus' query API. Any other may be a secret."""


_SECRET = re.compile(r"token|key|secret|passw|auth|sig|cred", re.IGNORECASE)


def holds_secret(source: str) -> bool:
    """Whether an address seems to hold a password or a token, which a process list or a unit file would show."""
    if not is_address(source):
        return False
    try:
        parts = urlsplit(source)
    except ValueError:
        return False
    names = [unquote(pair.partition("=")[0]) for pair in parts.query.split("&")]
    return "@" in parts.netloc or any(_SECRET.search(name) for name in names if name not in _SHOWN)


def is_address(text: str) -> bool:
    """Whether it names something to fetch, not a file."""
    return "://" in text


def shown_source(source: str) -> str:
    """A source as it may be told: an address without user, password, and what parameters may keep secret."""
    if not is_address(source):
        return source
    try:
        parts = urlsplit(source)
    except ValueError:
        return source.partition("://")[0] + "://" + HIDDEN
    host = parts.netloc.rpartition("@")[2]
    pairs = [pair.partition("=") for pair in parts.query.split("&")]
    query = "&".join(f"{k}{eq}{v if unquote(k) in _SHOWN or not eq else HIDDEN}" for k, eq, v in pairs)
    if len(pairs) == 1 and not pairs[0][1] and query:
        query = HIDDEN
    return urlunsplit((parts.scheme, host, parts.path, query, HIDDEN if parts.fragment else ""))


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
        with _fetch(source, timeout_s) as (stream, deadline):
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


@contextmanager
def _fetch(address: str, timeout_s: float) -> Iterator[tuple[BinaryIO, float]]:
    shown = shown_source(address)
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise InputError.single(shown, f"is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError.single(shown, "must be a file, or an address that starts with http:// or https://")
    # urllib's own opener would follow to files and FTP as well
    opener = OpenerDirector()
    for handler in (
        ProxyHandler(),
        UnknownHandler(),
        HTTPHandler(),
        HTTPSHandler(),
        HTTPDefaultErrorHandler(),
        HTTPRedirectHandler(),
        HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    bare = urlunsplit((parts.scheme, host if port is None else f"{host}:{port}", parts.path, parts.query, ""))
    headers = {"Accept-Encoding": "gzip", "User-Agent": "autotune"}
    request = Request(bare, headers=headers)  # noqa: S310  # checked
    if credentials := _credentials(parts):
        # not sent on to where an answer redirects
        request.add_unredirected_header("Authorization", credentials)
    deadline = time.monotonic() + 20.0 * timeout_s
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            yield answer, deadline
    except HTTPError as error:
        error.close()
        more = f"; {AUTHORIZATION} takes what it asks for" if error.code in (401, 403) else ""
        raise InputError.single(shown, f"answered {error.code} {error.reason}{more}") from None
    except (URLError, TimeoutError, HTTPException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error.reason if isinstance(error, URLError) else error)[:200]
        # a message may quote the address
        told = HIDDEN if any(part and part in reason for part in (parts.query, parts.password)) else reason
        raise InputError.single(shown, f"cannot be fetched within {timeout_s:g} s: {told}") from None


def _credentials(parts: SplitResult) -> str:
    """Value of the Authorization header; empty: none. What the address holds goes before the environment."""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return "Basic " + b64encode(pair.encode()).decode("ascii")
    given = os.environ.get(AUTHORIZATION, "").strip()
    if not given.isprintable() or not given.isascii():
        raise InputError.single(AUTHORIZATION, "must be printable ASCII, as a header is")
    return given


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
