"""Logs fetched from HTTP(S) addresses."""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
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

from autotune.traffic.address import AUTHORIZATION, HIDDEN, shown_source
from costmodel.errors import InputError


@contextmanager
def fetch(address: str, timeout_s: float) -> Iterator[tuple[BinaryIO, float]]:
    """What an `http://` or `https://` address answers, and until when (`time.monotonic`) it may take.

    Raises:
        InputError: it is no such address, or cannot be had within the time.
    """
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
