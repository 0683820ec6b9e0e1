"""Paths and human words for what pydantic finds wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from autotune.study.study_table import file_fields, tables_in
from costmodel.errors import Problem

_MAX_SHOWN = 80
ALSO_GPUS = "; GPUs of another type in the same cluster stand in cluster.also = [{gpus = …, gpu = …}]"
_KINDS = {
    "dataclass_type": "a table",
    "dict_type": "a table",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
}
_LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def shown(value: Any) -> str:
    """A value as it is quoted in a message, cut to a line."""
    try:
        text = repr(value)
    except ValueError:  # more digits than Python is willing to print
        return "a number of thousands of digits"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def join(path: str, part: str | int) -> str:
    """Path of a member: `$.a.b`, `$.a[0]`, `$.a."odd key"`."""
    if isinstance(part, int):
        return f"{path}[{part}]"
    return f"{path}.{part}" if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f"{path}.{part!r}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; the nearest is …` where something known looks like `name`, else nothing."""
    near = difflib.get_close_matches(name, sorted(known), n=2, cutoff=0.6)
    if not near:
        return ""
    return f"; the nearest {'is' if len(near) == 1 else 'are'} {' and '.join(near)}"


def problems_of(error: ValidationError, table: type) -> list[Problem]:
    """Every error of a validation, as problems with `$` paths.

    `table`: what was read; its fields are what misspelt names are compared with.
    """
    problems = []
    errors = error.errors(include_url=False)
    for found in errors:
        if found["type"] == "too_short" and any(
            e["loc"][: len(found["loc"])] == found["loc"] for e in errors if e is not found
        ):
            continue  # what is wrong in it was left out before it was counted
        parts = [p for p in found["loc"] if not (isinstance(p, str) and p.startswith("~"))]
        path = "$"
        for part in parts:
            path = join(path, part)
        problems.append(Problem(path=path, message=_message(found, parts, table)))
    return problems


def _message(found: Mapping[str, Any], parts: list[Any], table: type) -> str:
    kind, context, got = found["type"], found.get("ctx", {}), shown(found["input"])
    if kind == "missing":
        return "is required, got nothing"
    if kind == "unexpected_keyword_argument":
        known = _fields_at(table, parts[:-1])
        listed = "" if not known else f" (known: {', '.join(known)})"
        return f"is not a field{nearest(str(parts[-1]), known) or listed}, got {got}"
    if kind in _KINDS:
        also = ", or {min = …, max = …} for a range" if parts[-1:] in (["isl"], ["osl"]) else ""
        also = ALSO_GPUS if parts == ["cluster", "gpu"] and isinstance(found["input"], list) else also
        also = f", as [{got}]" if kind == "tuple_type" and isinstance(found["input"], (int, float, str)) else also
        return f"must be {_KINDS[kind]}{also}, got {got}"
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        bound = context[key]
        return f"must be {words} {int(bound) if float(bound).is_integer() else bound:,}, got {got}"
    if kind == "literal_error":
        asked = found["input"]
        near = nearest(asked, re.findall(r"'([^']+)'", context["expected"])) if isinstance(asked, str) else ""
        return f"must be one of {context['expected']}, got {got}{near}"
    if kind in ("string_too_short", "too_short"):
        return f"must not be empty, got {got}"
    if kind in ("string_too_long", "too_long"):
        return f"must be at most {context['max_length']:,} long, got {got}"
    if kind == "string_pattern_mismatch":
        return f"must hold neither slashes nor control characters, got {got}"
    return f"{found['msg'][:1].lower()}{found['msg'][1:]}, got {got}"


def _fields_at(table: type, parts: list[Any]) -> list[str]:
    """Fields of the table at a path below `table`."""
    for part in parts:
        annotation = file_fields(table).get(part) if isinstance(part, str) else None
        below = [] if annotation is None else tables_in(annotation)
        if not below:
            return []
        table = below[0]
    return list(file_fields(table))
