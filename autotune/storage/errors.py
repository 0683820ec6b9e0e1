"""One message for what storages raise, with the storage named and no password in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from autotune.storage.urls import hide, is_url, scrub
from autotune.version import DISTRIBUTION
from costmodel.errors import InputError

DAMAGED = (ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, RecursionError)
"""What Optuna raises on content that is not a storage's, or was and is damaged."""


@contextmanager
def storage_errors(location: str, refusals: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn errors of the block into `InputError`.

    Args:
        location: file or URL as it was given, password included.
        refusals: what a kind of storage raises when it cannot be used, other than `OSError`.
    """
    shown = hide(location) if is_url(location) else location
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError.single(shown, f"cannot be used as storage: {error.strerror}") from None
    except refusals as error:
        raise InputError.single(shown, f"cannot be used as storage: {_reason(error, location)}") from None
    except DAMAGED as error:
        what = scrub(f"{type(error).__name__}: {error}"[:200], location)
        message = f"is not a readable Optuna storage ({what}): move it away, or give another --storage"
        raise InputError.single(shown, message) from None


def _reason(error: Exception, location: str) -> str:
    if isinstance(error, ImportError):
        driver = (location.partition("://")[0].partition("+")[2] or "its driver").partition("_")[0]
        extra = f': pip install "{DISTRIBUTION}[postgresql]", and name no driver in the URL or this one'
        return f"{driver} is not installed{extra if location.startswith('postgres') else ''}"
    # Optuna wraps what a database says into a sentence that says nothing
    cause = error.__cause__ or error
    lines = str(getattr(cause, "orig", None) or cause).strip().splitlines() or [type(error).__name__]
    return scrub(lines[0], location)
