"""Addresses of logs, and how they are told without what they keep secret."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit, urlunsplit

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
