"""Database URLs: read without SQLAlchemy's help where a message must not show what stands in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from costmodel.errors import InputError

HIDDEN = "***"
CONNECT_TIMEOUT_S = 10
"""How long a server may take to answer before it counts as unreachable."""
_SECRET = re.compile(r"((?:^|[?&;\s])(?:\w*(?:password|passwd|pwd|secret|token))=)([^&;\s]*)", re.IGNORECASE)
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://(.*)$", re.DOTALL)
_SLIP = re.compile(r"^(postgres(?:ql)?|mysql|mariadb|sqlite|oracle|mssql)(\+\w+)?:", re.IGNORECASE)
_POSTGRES = re.compile(r"^postgres(?:ql)?://", re.IGNORECASE)
LIBPQ = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    # a server that is gone without a word is noticed within half a minute, not after the kernel's two hours
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "autotune",
}
"""Connection parameters of PostgreSQL's libpq, section "Parameter Key Words"; the URL's own go before them."""


def is_url(text: str) -> bool:
    """Whether a location is a database URL and not a path.

    Raises:
        InputError: it begins like a URL and is none, so that a password would become the name of a folder, or a
            part of the password would be read as the host.
    """
    if "://" in text:
        rest = text.partition("://")[2].partition("?")[0]
        if rest.count("@") > 1 or "@" in rest.partition("/")[2]:
            message = f"must have @ and / in a password written as %40 and %2F, got {hide(text)}"
            raise InputError.single("--storage", message)
        return True
    if _SLIP.match(text):
        raise InputError.single("--storage", f"must read scheme://user:password@host/database, got {hide(text)}")
    return False


def hide(text: str) -> str:
    """A URL as it is shown to people: no password, wherever in it that stands."""
    found = _SCHEME.match(text)
    if found is None:
        head, at, tail = text.rpartition("@")
        text = f"{head.partition(':')[0]}:{HIDDEN}@{tail}" if at else text
    else:
        scheme, rest = found.groups()
        # a password may hold anything, an @ or a / that should have been escaped too
        user, at, host = rest.rpartition("@")
        if at:
            name, colon, _ = user.partition(":")
            rest = f"{name}{colon}{HIDDEN if colon else ''}@{host}"
        text = f"{scheme}://{rest}"
    return _SECRET.sub(rf"\g<1>{HIDDEN}", text)


def secrets(url: str) -> tuple[str, ...]:
    """Every form in which a URL's passwords could turn up in somebody else's message, the longest first."""
    found = [match.group(2) for match in _SECRET.finditer(url)]
    matched = _SCHEME.match(url)
    if matched is not None:
        user, at, _ = matched.group(2).rpartition("@")
        found += [user.partition(":")[2]] if at else []
    every = {form for raw in found for form in (raw, unquote(raw)) if form}
    return tuple(sorted(every, key=lambda form: (-len(form), form)))


def scrub(message: str, url: str) -> str:
    """A message without the URL's passwords."""
    for secret in secrets(url):
        message = message.replace(secret, HIDDEN)
    return _SECRET.sub(rf"\g<1>{HIDDEN}", message)


def with_driver(url: str) -> str:
    """PostgreSQL through psycopg 3, which is what the package's extra installs, where the URL names no driver."""
    return _POSTGRES.sub("postgresql+psycopg://", url)


def connect_args(url: str, given: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    """Arguments of a connection, so that nothing is waited for without end.

    Args:
        url: with its driver.
        given: parameters that the URL sets itself.
        timeout_s: how long to wait for another process that writes.
    """
    if url.startswith("sqlite"):
        return {"timeout": timeout_s}
    if not url.startswith("postgresql"):
        return {}
    # a worker that was stopped in a transaction must not keep the others waiting
    options = f"-c lock_timeout={round(timeout_s * 1e3)} -c idle_in_transaction_session_timeout=60000"
    return {name: value for name, value in {**LIBPQ, "options": options}.items() if name not in given}
