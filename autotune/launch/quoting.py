"""Text from a study put safely into shell scripts, YAML and file names. Model paths and names are untrusted input."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from autotune.launch.plan import Arg, FilePath, HostSlots, NodeHost
from costmodel.errors import InputError, Problem

MAX_TEXT = 4096
_WORD = re.compile(r"[^A-Za-z0-9]+")


def shell_word(arg: Arg) -> str:
    """An argument as one word of a POSIX shell; a host is its variable, which the script has checked."""
    if isinstance(arg, FilePath):
        return f'"$HERE"/{shlex.quote(arg.name)}'
    if isinstance(arg, HostSlots):
        return '"' + ",".join(f"${{NODE_{node}}}:{arg.slots}" for node in arg.nodes) + '"'
    if isinstance(arg, NodeHost):
        port = "" if arg.port is None else f":{arg.port}"
        return f'{shlex.quote(arg.scheme) if arg.scheme else ""}"${{NODE_{arg.node}}}{port}"'
    return shlex.quote(arg)


def shell_command(argv: Sequence[Arg], *, indent: str = "    ") -> str:
    """A command over several lines: an option and its values on each."""
    lines: list[list[str]] = [[]]
    for i, arg in enumerate(argv):
        if i and isinstance(arg, str) and arg.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(shell_word(arg))
    return f" \\\n{indent}".join(" ".join(line) for line in lines)


def to_yaml(document: Any) -> str:
    """YAML of plain values, in the given order, by a safe dumper: strings that look like something else are quoted."""
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120)


def one_line(text: str) -> str:
    """Text for a comment or a heading: control characters are shown, so that nothing breaks out of its line."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return shown if len(shown) <= 200 else shown[:199] + "…"


def dns_label(text: str, *, fallback: str = "service") -> str:
    """A name that Kubernetes, Compose and file systems take: lower-case letters, digits and hyphens, at most 40."""
    label = _WORD.sub("-", text.lower()).strip("-")[:40].strip("-")
    if not label or not label[0].isalpha():
        label = f"{fallback}-{label}".strip("-")
    return label


def launch_text_problems(path: str, text: str) -> list[Problem]:
    """What makes a text unfit as an argument of a server: no quoting can carry it, or it would be read as an option.

    An argument may hold anything but NUL; a model's name that begins with a hyphen would be taken for an option.
    """
    if not text.strip():
        return [Problem(path=path, message="must not be empty")]
    problems = []
    if len(text) > MAX_TEXT:
        problems.append(Problem(path=path, message=f"must be at most {MAX_TEXT} characters, got {len(text)}"))
    if "\x00" in text:
        problems.append(Problem(path=path, message="must not hold a NUL character"))
    if text.startswith("-"):
        problems.append(
            Problem(path=path, message=f"must not begin with a hyphen, which reads as an option: {one_line(text)!r}")
        )
    return problems


def check_launch_text(path: str, text: str) -> str:
    """The text itself. Raises `InputError` with every reason why it cannot be an argument."""
    problems = launch_text_problems(path, text)
    if problems:
        raise InputError(problems)
    return text
