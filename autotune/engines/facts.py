"""Between which versions of an engine a fact is known to hold."""

from __future__ import annotations

import re
from functools import lru_cache

from autotune.engines.options import version_key, versions

_RELEASE = re.compile(r"v?\d{1,9}(\.\d{1,9})*([-.+_]?[A-Za-z][A-Za-z0-9]*)*([-.+_][A-Za-z0-9]+)*")
_BUILD = re.compile(r"(?:[A-Za-z0-9.]+[-_])*(?:nightly|dev|main)(?:[-_.][A-Za-z0-9]+)*")
_DYNAMO = re.compile(r"dynamo-\d.*")
"""Of measured runs whose records name the release of Dynamo that brought the engine."""


def is_version(text: str) -> bool:
    """Whether a text is the number of a release or the name of a build, as measured runs have them."""
    return any(form.fullmatch(text) for form in (_RELEASE, _BUILD, _DYNAMO))


def holds_in(version: str | None, since: str | None, until: str | None) -> bool:
    """Whether a version lies between the first that a fact holds in and the last; None leaves that side open.

    None, and a build whose name begins with no number, count as newer than every release.
    """
    key = version_key(version or "")
    after = since is None or not key or key >= version_key(since)
    return after and (until is None or (bool(key) and key <= version_key(until)))


@lru_cache(maxsize=32)
def modelled(engine: str, version: str | None) -> str | None:
    """The version, or where none is asked for the newest whose options are known; None: of none they are."""
    return version or next(iter(versions(engine)), None)
