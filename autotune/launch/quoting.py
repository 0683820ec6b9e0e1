"""Text from a study put safely into shell scripts, YAML and file names. Model paths and names are untrusted input."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from autotune.engines.command_line import Arg, FilePath, HostSlots, NodeHost, NodeRank, Variable
from costmodel.errors import InputError, Problem

MAX_TEXT = 4096
MAX_IMAGE = 500
MOST_OF_NAME = 48
"""Of a label's 63 characters: `-bench`, `-decode` or the hash of a pod come behind it."""
_NAME = re.compile(rf"[a-z](?:[a-z0-9-]{{0,{MOST_OF_NAME - 2}}}[a-z0-9])?")
_WORD = re.compile(r"[^A-Za-z0-9]+")
_IMAGE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._/-]*(:[0-9]+/[A-Za-z0-9._/-]+)?(:[A-Za-z0-9_][A-Za-z0-9._-]*)?(@sha256:[0-9a-f]{64})?"
)
"""Characters of an image reference (distribution/reference); nothing that a shell, Compose or YAML takes for more."""


def shell_word(arg: Arg) -> str:
    """An argument as one word of a POSIX shell; a host is its variable, which the script has checked."""
    if isinstance(arg, FilePath):
        return f'"$HERE"/{shlex.quote(arg.name)}'
    if isinstance(arg, HostSlots):
        return '"' + ",".join(f"${{NODE_{node}}}:{arg.slots}" for node in arg.nodes) + '"'
    if isinstance(arg, NodeHost):
        port = "" if arg.port is None else f":{arg.port}"
        return f'{shlex.quote(arg.scheme) if arg.scheme else ""}"${{NODE_{arg.node}}}{port}"'
    if isinstance(arg, Variable):
        return f'{shlex.quote(arg.before) if arg.before else ""}"${{{arg.name}}}"'
    return str(arg.rank * arg.each) if isinstance(arg, NodeRank) else shlex.quote(arg)


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
    import yaml  # for those who write files

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(
        yaml.dump(document, Dumper=dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=100_000)
    )


def one_line(text: str, *, most: int = 200) -> str:
    """Text for a comment or a heading: control characters are shown, so that nothing breaks out of its line."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def dns_label(text: str, *, fallback: str = "service") -> str:
    """A name that Kubernetes, Compose and file systems take: lower-case letters, digits and hyphens, at most 40."""
    label = _WORD.sub("-", text.lower()).strip("-")[:40].strip("-")
    if not label or not label[0].isalpha():
        label = f"{fallback}-{label}".strip("-")
    return label


def check_name(text: str) -> str:
    """The text itself. Raises `InputError` where objects of Kubernetes and what belongs to them cannot be called so."""
    if not _NAME.fullmatch(text):
        message = f"must be at most {MOST_OF_NAME} lower-case letters, digits and hyphens, a letter first, got"
        raise InputError.single("--name", f"{message} {one_line(text)!r:.100}")
    return text


def check_image(text: str) -> str:
    """The text itself. Raises `InputError` where it cannot be the reference of a container image."""
    if not _IMAGE.fullmatch(text) or len(text) > MAX_IMAGE:
        raise InputError.single(
            "--image", f"must be a container image as registry/name:tag or name@sha256:…, got {one_line(text)!r}"
        )
    return text


def check_launch_text(path: str, text: str) -> str:
    """The text itself, fit as an argument of a server: it may hold anything but NUL.

    Raises:
        InputError: every reason why it cannot be one; what begins with a hyphen would be taken for an option.
    """
    reasons = {
        "must not be empty": not text.strip(),
        f"must be at most {MAX_TEXT} characters, got {len(text)}": len(text) > MAX_TEXT,
        "must not hold a NUL character": "\x00" in text,
        f"must not begin with a hyphen, which reads as an option: {one_line(text)!r}": text.startswith("-"),
    }
    if any(reasons.values()):
        raise InputError(Problem(path=path, message=reason) for reason, holds in reasons.items() if holds)
    return text
