"""YAML from outside, bounded: plain values only, no aliases that multiply, no depth that breaks the stack."""

from __future__ import annotations

from typing import Any

import yaml

from costmodel.errors import InputError

MAX_BYTES = 1_000_000
MAX_EVENTS = 200_000
MAX_DEPTH = 60
MAX_ALIASES = 200
MAX_MERGED = 5_000
_BASE: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_BASE):  # type: ignore[misc]  # PyYAML ships no types
    """The safe loader with a limit on what `<<` may pile up."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_MERGED:
            raise yaml.constructor.ConstructorError(
                None, None, f"merges more than {MAX_MERGED:,} keys into one", node.start_mark
            )


def read_yaml(text: str, path: str) -> list[Any]:
    """Every document of a file.

    Raises:
        InputError: larger, deeper or with more aliases than allowed, tags of programs, or no YAML (with the line).
    """
    if len(text) > MAX_BYTES:
        raise InputError.single(path, f"must be at most {MAX_BYTES:,} characters, got {len(text):,}")
    try:
        _check(text, path)
        return [d for d in yaml.load_all(text, Loader=_Loader) if d is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "not readable"
        raise InputError.single(path, f"is not YAML of plain values{where}: {str(what)[:200]}") from error
    except RecursionError as error:
        raise InputError.single(path, "is not YAML of plain values: nested too deeply") from error
    except ValueError as error:  # an impossible date, a number of too many digits
        raise InputError.single(path, f"is not YAML of plain values: {str(error)[:200]}") from error


def _check(text: str, path: str) -> None:
    depth = aliases = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        aliases += isinstance(event, yaml.AliasEvent)
        for what, number, most in (
            ("values", count, MAX_EVENTS),
            ("levels", depth, MAX_DEPTH),
            ("aliases", aliases, MAX_ALIASES),
        ):
            if number > most:
                raise InputError.single(path, f"must hold at most {most:,} {what}, holds more")
