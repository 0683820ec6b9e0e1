"""Reading a study's TOML, or the JSON of an export, and changing fields (`--set`), before anything is understood."""

from __future__ import annotations

import copy
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, TypeVar

from autotune.study.references import model_file
from autotune.study.study_table import StudyTable, file_fields, tables_in
from autotune.study.validation_messages import nearest, shown
from costmodel.errors import InputError, Problem
from costmodel.files import read_file
from costmodel.hardware.catalog import GpuTable, PeakTable

_T = TypeVar("_T")
MAX_STUDY_BYTES = 1_000_000
NO_TABLES: Mapping[str, type] = MappingProxyType({})
_DEEP_KEY = re.compile(r"""(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){64}""")
"""A dotted key of 64 parts and more: a study has four, and reading it takes memory by the square of their number."""


def read_document(path: Path) -> dict[str, Any]:
    """Content of a TOML file, or of a JSON file (`.json`, as `autotune export` writes it).

    Raises:
        InputError: not readable, larger than `MAX_STUDY_BYTES`, not UTF-8, or not TOML or JSON (with the line).
    """
    raw = read_file(path, MAX_STUDY_BYTES)
    form = "JSON" if path.suffix == ".json" else "TOML"
    try:
        text = raw.decode("utf-8-sig")
        return _json(text) if form == "JSON" else _toml(text)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError.single(
            str(path), f"must be UTF-8, got byte 0x{raw[error.start]:02x} in line {line}"
        ) from error
    except RecursionError as error:
        raise InputError.single(str(path), f"is not {form}: nested too deeply") from error
    except ValueError as error:
        raise InputError.single(str(path), f"is not {form}: {error}") from error


def _toml(text: str) -> dict[str, Any]:
    if _DEEP_KEY.search(text):
        raise RecursionError
    read = tomllib.loads(text)
    copy.deepcopy(read)  # goes deeper on the stack than reading
    return read


def _json(text: str) -> dict[str, Any]:
    read = json.loads(text)
    copy.deepcopy(read)
    if not isinstance(read, dict):
        raise ValueError("must be an object")
    return read


def override(document: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A copy of the document with `a.b.c=VALUE` applied in order.

    VALUE is a TOML value; what is not one is taken as a string; nothing after `=` takes the field out.
    A path is relative to the working directory, as everywhere on a command line; those in the file are relative to it.
    A field of a GPU given by name (`cluster.gpu.hbm_gib=96`) makes a table of it, with that name as `base`.

    Raises:
        InputError: every setting that is not of that form or names no field of a study, with the nearest.
    """
    return read_overridden(document, settings, lambda changed: changed)


def read_overridden(
    document: dict[str, Any],
    settings: Sequence[str],
    read: Callable[[dict[str, Any]], _T],
    *,
    more: Mapping[str, type] = NO_TABLES,
) -> _T:
    """What `read` makes of a document with settings applied, as `override` does.

    `more`: tables by name that the document may have beside those of a study.

    Raises:
        InputError: every problem of the settings, and every one that `read` finds with the others applied.
    """
    changed = copy.deepcopy(document)
    known = [*field_paths(), *more, *(path for name, table in more.items() for path in _paths(table, f"{name}."))]
    problems = [p for setting in settings if (p := _apply(changed, setting, known)) is not None]
    try:
        found = read(changed)
    except InputError as error:
        raise InputError([*problems, *error.problems]) from error
    if problems:
        raise InputError(problems)
    return found


def field_paths() -> list[str]:
    """Every field of a study, as `--set` spells it; below `model` anything goes."""
    paths = _paths(StudyTable, "")
    gpu = [f"cluster.gpu.{name}" for name in (*GpuTable.model_fields, "base")]
    return sorted([*paths, *gpu, *(f"cluster.gpu.peak_tflops.{name}" for name in PeakTable.model_fields)])


def _paths(table: type, prefix: str) -> list[str]:
    found = []
    for name, annotation in file_fields(table).items():
        found.append(prefix + name)
        for below in tables_in(annotation):
            found += _paths(below, f"{prefix}{name}.")
    return found


def _apply(document: dict[str, Any], setting: str, known: Sequence[str]) -> Problem | None:
    where, equals, text = setting.partition("=")
    where = where.strip().removeprefix("$.")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", where):
        return Problem(path="--set", message=f"must read path.to.field=VALUE, got {setting!r}")
    parts = where.split(".")
    free = parts[0] == "model" or where.startswith(("cluster.gpu.sources.", "prices."))
    if where not in known and not free:
        leaf = [path for path in known if path.rpartition(".")[2] == parts[-1]]
        near = f"; the nearest is {' or '.join(leaf)}" if leaf else nearest(where, known)
        return Problem(path=f"--set {where}", message=f"is not a field of a study{near}")
    table = document
    for depth, part in enumerate(parts[:-1]):
        below = table.get(part)
        if below is None and text.strip():
            below = table.setdefault(part, {})
        elif isinstance(below, str) and parts[: depth + 1] == ["cluster", "gpu"]:
            below = table[part] = {"base": below}
        if below is None:
            return None
        if not isinstance(below, dict):
            path = ".".join(parts[: depth + 1])
            return Problem(path=f"--set {where}", message=f"{path} is not a table, got {shown(below)}")
        table = below
    if text.strip():
        table[parts[-1]] = _from_here(where, _text(text.strip()) if where in _texts() else _value(text.strip()))
    else:
        table.pop(parts[-1], None)
    return None


def _from_here(where: str, value: Any) -> Any:
    """The value, a path in it made absolute."""
    if not isinstance(value, str) or not value:
        return value
    if where == "calibration":
        return os.path.abspath(value)
    file = model_file(value, Path()) if where == "model" else None
    return value if file is None else os.path.abspath(file)


@lru_cache(maxsize=1)
def _texts() -> frozenset[str]:
    """Fields of a study that hold text and nothing else."""
    found = (name for name, annotation in file_fields(StudyTable).items() if _is_text(annotation))
    return frozenset(found)


def _is_text(annotation: Any) -> bool:
    arms = getattr(annotation, "__args__", ())
    return annotation is str or (bool(arms) and all(arm is NoneType or _is_text(arm) for arm in arms))


def _text(text: str) -> str:
    """A text that may stand in quotes: a version of two numbers is no number, and 0.10 not 0.1."""
    read = _value(text)
    return read if isinstance(read, str) else text


def _value(text: str) -> Any:
    try:
        read = _toml(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return read["value"] if set(read) == {"value"} else text
