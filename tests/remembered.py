"""Functions of values alone, asked once for each of their arguments: what many tests ask of one study is found once."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which is not asked again for arguments that it was given before."""
    known: dict[bytes, T] = {}

    def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        key = pickle.dumps((args, sorted(kwargs.items())))
        if key not in known:
            known[key] = function(*args, **kwargs)
        return known[key]

    return asked
