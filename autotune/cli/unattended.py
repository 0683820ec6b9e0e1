"""Command lines that run where nobody is: cron has another folder and another PATH than who asked."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from click.core import ParameterSource

_PATHS = ("calibration", "model")
"""Fields of a study whose `--set` may name a file in the working folder."""


def program() -> tuple[str, ...]:
    """What starts this program from any folder."""
    found = shutil.which("autotune")
    return (absolute(found),) if found else (sys.executable, "-m", "autotune")


def absolute(path: str) -> str:
    """A path as seen from the root."""
    return str(Path(path).absolute())


def source(text: str, place: Callable[[str], str]) -> str:
    """Where traffic comes from: an address as it stands, a file placed."""
    return text if "://" in text else place(text)


def said(context: click.Context, names: Sequence[str], place: Callable[[str], str]) -> list[str]:
    """Options of these parameter names that were given, as words, with files as `place` has them."""
    words: list[str] = []
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is not ParameterSource.DEFAULT
        if parameter.name not in names or not given:
            continue
        value = context.params[parameter.name]
        if isinstance(value, bool):
            words += [parameter.opts[0]] if value else []
        else:
            for one in value if isinstance(value, tuple) else (value,):
                words += [parameter.opts[0], _placed(str(one), place)]
    return words


def _placed(text: str, place: Callable[[str], str]) -> str:
    """A value with the file placed that it is, or that its setting (`model=config.json`) names."""
    field, equals, value = text.partition("=")
    if equals and field in _PATHS:
        return f"{field}={place(value)}" if Path(value).exists() else text
    return place(text) if Path(text).is_file() else text
