"""Variables of Compose files: `.env` beside the file, filled in as Compose does it before anything is started."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.launch.reading.variables import NAME, expand
from costmodel.errors import InputError, Problem

DOT_ENV = ".env"
MAX_DIGITS = 10
_LINE = re.compile(rf"(?:export\s+)?(?P<name>{NAME}|[\w.-]+)\s*(?:[=:]\s*(?P<value>.*))?", re.DOTALL)
_QUOTED = re.compile(r"(?P<quote>['\"])(?P<value>.*?)(?<!\\)(?P=quote)\s*(?:#.*)?", re.DOTALL)


def is_compose(document: Any) -> bool:
    """Whether a document is a Compose file."""
    return isinstance(document, Mapping) and isinstance(document.get("services"), Mapping)


def variables_of_file(text: str, where: str, given: Mapping[str, str]) -> dict[str, str]:
    """Variables of a `.env` file, without those that `given` has, which the values may name.

    Values in single quotes are taken as they are, others with the variables that are known by then.

    Raises:
        InputError: every line that is neither empty, a comment nor a variable.
    """
    found: dict[str, str] = {}
    problems = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            problems.append(Problem(path=f"{where}:{number}", message=f"must read NAME=VALUE, got {line[:60]!r}"))
        elif match["value"] is not None:  # a name alone is taken from the environment, which is not known here
            found[match["name"]] = _value(match["value"], {**found, **given})
    if problems:
        raise InputError(problems)
    return {name: value for name, value in found.items() if name not in given}


def _value(text: str, known: Mapping[str, str]) -> str:
    quoted = _QUOTED.fullmatch(text)
    if quoted is None:
        return expand(re.sub(r"\s+#.*$", "", text), known)
    return quoted["value"] if quoted["quote"] == "'" else expand(quoted["value"].replace('\\"', '"'), known)


class _Looked(dict[str, str]):
    """Variables that remember which of them were taken."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.taken: set[str] = set()

    def __getitem__(self, name: str) -> str:
        value = super().__getitem__(name)
        self.taken.add(name)
        return value


def filled_in(value: Any, env: Mapping[str, str], known: dict[int, Any] | None = None) -> Any:
    """A value of a Compose file with the variables that are known; `$$` stands for a dollar sign and stays.

    A text that becomes a number is one, as the field for it says. `known`: what was filled in already, by its id, as
    aliases of YAML may stand in many places, within themselves too.
    """
    known = {} if known is None else known
    if isinstance(value, str):
        filled = "$$".join(expand(part, env) for part in value.split("$$"))
        return int(filled) if filled != value and filled.isdecimal() and len(filled) < MAX_DIGITS else filled
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, list):
        items = known[id(value)] = list[Any]()
        items += [filled_in(item, env, known) for item in value]
        return items
    if isinstance(value, Mapping):
        table = known[id(value)] = dict[Any, Any]()
        table.update({key: filled_in(inner, env, known) for key, inner in value.items()})
        return table
    return value


def with_variables(document: Any, path: Path, given: Mapping[str, str], beside: str | None) -> tuple[Any, str | None]:
    """A document, if it is a Compose file with its variables, and what is to be said of where they are from.

    `given` go before those of `beside`, the text of the file `.env` in the same folder; None: there is none.
    """
    if not is_compose(document):
        return document, None
    where = path.parent / DOT_ENV
    env = _Looked({} if beside is None else variables_of_file(beside, str(where), given))
    filled = filled_in(document, ChainMap(dict(given), env))
    if not env.taken:
        return filled, None
    return filled, f"{', '.join(sorted(env.taken))} of {where}, as Compose takes them"
