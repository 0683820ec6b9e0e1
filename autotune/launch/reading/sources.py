"""What `autotune import` reads: a command, a script, a Compose file, Kubernetes manifests, an exported folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.option_reader import Command
from autotune.engines.options import version_key
from autotune.launch.files import is_export
from autotune.launch.reading.containers import Container, containers
from autotune.launch.reading.parse import find_engine, parse_command, programs_in_words, split_command
from autotune.text.safe_yaml import MAX_BYTES, read_yaml
from costmodel.errors import InputError
from costmodel.files import read_file

MAX_SCRIPTS = 20_000
_EXPORT = re.compile(r"^(?:export\s+)?([A-Za-z_]\w*)=(.*)$")


def read_source(source: str, version: str | None) -> list[tuple[Command, int]]:
    """Processes that a file, a folder or a command starts, each with how many times it runs.

    Raises:
        InputError: nothing of the kind, too large, or no server in it.
    """
    path = Path(source)
    kind = _kind(path)
    if kind == "folder":
        found, folder = _exported(path, version), path
    elif kind == "file":
        found, folder = _file(path, version), path.parent
    elif find_engine(source.split()) is None and not re.search(r"\s", source.strip()):
        raise InputError.single(
            "FILE|COMMAND", f"must be a file, a folder or the command of a server; there is no file {source[:200]!r}"
        )
    else:
        found, folder = [(parse_command(split_command(source), version=version), 1)], Path()
    if not found:
        raise InputError.single(str(path), f"must start {programs_in_words()}; it starts none")
    return [(with_config(command, folder), copies) for command, copies in found]


def _kind(path: Path) -> str | None:
    try:
        return "folder" if path.is_dir() else "file" if path.is_file() else None
    except (OSError, ValueError):  # a command is too long for a name, or holds a NUL
        return None


def read_text(path: Path) -> str:
    """Content of a text file of bounded size. Raises `InputError`."""
    raw = read_file(path, MAX_BYTES)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError.single(str(path), f"must be UTF-8 text, got byte 0x{raw[error.start]:02x}") from error


def _file(path: Path, version: str | None) -> list[tuple[Command, int]]:
    text = read_text(path)
    keys = re.search(r"^(apiVersion|services|version|kind):", text, re.MULTILINE)
    if path.suffix.lower() in (".yaml", ".yml") or (keys is not None and not text.startswith("#!")):
        found = containers(read_yaml(text, str(path)), str(path))
        return [(_command(c, version), c.copies) for c in found if c.copies]
    return [(command, 1) for command in script_commands(text, version)]


def _exported(folder: Path, version: str | None) -> list[tuple[Command, int]]:
    """What the scripts of an export start, or its manifests."""
    if not is_export(folder):
        raise InputError.single(str(folder), "must be a folder that `autotune export` wrote, or name a file in it")
    scripts, manifests = sorted(folder.glob("*.sh"))[:MAX_SCRIPTS], sorted(folder.rglob("*.y*ml"))
    return [pair for path in scripts for pair in _file(path, version)] or [
        pair for path in manifests if path.is_file() for pair in _file(path, version)
    ]


def _command(container: Container, version: str | None) -> Command:
    """Its command, as the version reads it that is given, or that the image's tag says and whose options are known."""
    command = parse_command(container.words, env=container.env, version=version)
    tag = container.version
    if version is not None or tag is None:
        return command
    oldest = ENGINES[command.engine].versions()[-1]
    if version_key(tag) < version_key(oldest):
        assumption = f"the image has {command.engine} {tag}, older than any whose options are known ({oldest})"
        return replace(command, assumptions=(*command.assumptions, assumption))
    read = parse_command(container.words, env=container.env, version=tag)
    return replace(read, assumptions=(f"engine version {tag}: of the image's tag", *read.assumptions))


def script_commands(text: str, version: str | None) -> list[Command]:
    """Every server that a shell script starts, with the variables it sets before. Nothing is run."""
    env: dict[str, str] = {}
    found = []
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if (match := _EXPORT.match(stripped)) is not None and find_engine(stripped.split()) is None:
            words = split_command(match[2]) if match[2].count("'") % 2 == 0 and match[2].count('"') % 2 == 0 else []
            env[match[1]] = words[0] if words else ""
            continue
        if any(program[0] in stripped for engine in ENGINES.values() for program in engine.programs):
            words = split_command(stripped)
            if find_engine(words) is not None:
                found.append(parse_command(words, env=env, version=version))
    return found


def with_config(command: Command, folder: Path) -> Command:
    """A command with the fields of the file that it names (`Engine.config_option`), which override its options."""
    engine = ENGINES[command.engine]
    named = None if engine.config_option is None else command.values.get(engine.config_option)
    if not isinstance(named, str):
        return command
    # the file where the command runs, or of that name beside the source
    path = next((p for p in (Path(named), folder / Path(named).name) if _kind(p) == "file"), None)
    if path is None:
        assumption = f"the file {named[:200]!r} is not here: its fields are not read"
        return replace(command, assumptions=(*command.assumptions, assumption))
    documents = read_yaml(read_text(path), str(path))
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise InputError.single(str(path), "must be one mapping: the fields of the configuration")
    fields = _flat(documents[0])
    known = {
        k: v for k, v in fields.items() if k in command.options.fields or k.partition(".")[0] in engine.config_tables
    }
    unknown = tuple(f"{path.name}: {k}" for k in fields if k not in known)
    return replace(command, values=dict(command.values) | known, unknown=(*command.unknown, *unknown))


def _flat(table: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out |= _flat(value, f"{name}.")
        elif isinstance(value, list):
            out[name] = ",".join(map(str, value))
        elif value is not None:
            out[name] = value if isinstance(value, bool) else str(value)
    return out
