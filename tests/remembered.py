"""Functions of values alone, asked once for each of their arguments: what many tests ask of one study is found once."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, TypeVar

import pytest

from autotune.storage import Store

T = TypeVar("T")
WAITING = ("executor", "progress")
"""What an answer is found by, which changes nothing in it."""


def remembered(function: Callable[..., T]) -> Callable[..., T]:
    """The function, which is not asked again for arguments that it was given before.

    What is kept in a storage is: there it may be found or not.
    """
    known: dict[bytes, T] = {}
    shape = signature(function)

    def asked(*values: Any, **options: Any) -> T:
        given = shape.bind(*values, **options)
        given.apply_defaults()
        if any(isinstance(value, Store) for value in given.arguments.values()):
            return function(*values, **options)
        question = {name: value for name, value in given.arguments.items() if name not in WAITING}
        key = pickle.dumps(question)
        if key not in known:
            known[key] = function(*values, **{name: value for name, value in options.items() if name not in WAITING})
        return known[key]

    return asked


@contextmanager
def asked_once(*places: tuple[object, str]) -> Iterator[None]:
    """Within it the functions that modules know by these names are remembered, each with all its names together."""
    functions = {getattr(module, name) for module, name in places}
    ours = {function: remembered(function) for function in functions}
    with pytest.MonkeyPatch.context() as patch:
        for module, name in places:
            patch.setattr(module, name, ours[getattr(module, name)])
        yield
