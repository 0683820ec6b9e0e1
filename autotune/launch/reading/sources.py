"""What `autotune import` reads: a command, a script, a Compose file, Kubernetes manifests, an exported folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.option_reader import Command
from autotune.engines.options import version_key
from autotune.launch.files import is_export
from autotune.launch.reading.containers import Container, containers
from autotune.launch.reading.parse import find_engine, parse_command, programs_in_words, split_command
from autotune.launch.reading.safe_yaml import MAX_BYTES, read_yaml
from costmodel.errors import InputError
from costmodel.files import read_file

MAX_SCRIPTS = 20_000
_EXPORT = re.compile(r"^(?:export\s+)?([A-Za-z_]\w*)=(.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Processes that a source starts."""

    commands: tuple[tuple[Command, int], ...]
    """Each with how many times it runs."""
    folder: Path
    """Of the source, for files that commands name."""


def read_source(source: str, version: str | None) -> Running:
    """Read a file, a folder or a command.

    Raises:
        InputError: nothing of the kind, too large, or no server in it.
    """
    path = Path(source)
    kind = _kind(path)
    if kind == "folder":
        return _folder(path, version)
    if kind == "file":
        return _file(path, version)
    if find_engine(source.split()) is None and not re.search(r"\s", source.strip()):
        raise InputError.single(
            "FILE|COMMAND", f"must be a file, a folder or the command of a server; there is no file {source[:200]!r}"
        )
    command = parse_command(split_command(source), version=version)
    return Running(commands=((command, 1),), folder=Path())


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


def _file(path: Path, version: str | None) -> Running:
    text = read_text(path)
    if path.suffix.lower() in (".yaml", ".yml") or _looks_like_yaml(text):
        return _manifests(path, text, version)
    found = script_commands(text, version)
    if not found:
        raise InputError.single(str(path), f"must start {programs_in_words()}; it starts none")
    return Running(commands=tuple((c, 1) for c in found), folder=path.parent)


def _looks_like_yaml(text: str) -> bool:
    return (
        not text.startswith("#!") and re.search(r"^(apiVersion|services|version|kind):", text, re.MULTILINE) is not None
    )


def _manifests(path: Path, text: str, version: str | None) -> Running:
    commands = _servers(path, text, version)
    if not commands:
        raise _none(path)
    return Running(commands=commands, folder=path.parent)


def _servers(path: Path, text: str, version: str | None) -> tuple[tuple[Command, int], ...]:
    found = containers(read_yaml(text, str(path)), str(path))
    return tuple((_command(c, version), c.copies) for c in found if c.copies)


def _command(container: Container, version: str | None) -> Command:
    """Its command, as the version reads it that is given, or that the image's tag says and whose options are known."""
    command = parse_command(container.words, env=container.env, version=version)
    tag = container.version
    if version is not None or tag is None:
        return command
    oldest = ENGINES[command.engine].versions()[-1]
    if version_key(tag) < version_key(oldest):
        said = f"the image has {command.engine} {tag}, older than any whose options are known ({oldest})"
        return replace(command, assumptions=(*command.assumptions, said))
    read = parse_command(container.words, env=container.env, version=tag)
    return replace(read, assumptions=(f"engine version {tag}: of the image's tag", *read.assumptions))


def _none(path: Path) -> InputError:
    return InputError.single(str(path), f"must hold a container that starts {programs_in_words()}; it holds none")


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


def _folder(path: Path, version: str | None) -> Running:
    if not is_export(path):
        raise InputError.single(str(path), "must be a folder that `autotune export` wrote, or name a file in it")
    scripts = sorted(path.glob("*.sh"))[:MAX_SCRIPTS]
    commands = [c for script in scripts for c in script_commands(read_text(script), version)]
    if not commands:
        manifests = [p for p in sorted(path.rglob("*.y*ml")) if p.is_file()]
        pairs = tuple(pair for p in manifests for pair in _servers(p, read_text(p), version))
        if not pairs:
            raise _none(path)
        return Running(commands=pairs, folder=path)
    return Running(commands=tuple((c, 1) for c in commands), folder=path)


def with_config(command: Command, folder: Path) -> Command:
    """A command with the fields of the file that it names (`Engine.config_option`), which override its options."""
    engine = ENGINES[command.engine]
    named = None if engine.config_option is None else command.values.get(engine.config_option)
    if not isinstance(named, str):
        return command
    path = _config_path(named, folder)
    if path is None:
        return replace(
            command,
            assumptions=(*command.assumptions, f"the file {named[:200]!r} is not here: its fields are not read"),
        )
    documents = read_yaml(read_text(path), str(path))
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise InputError.single(str(path), "must be one mapping: the fields of the configuration")
    fields = _flat(documents[0])
    known = {
        k: v for k, v in fields.items() if k in command.options.fields or k.partition(".")[0] in engine.config_tables
    }
    unknown = tuple(f"{path.name}: {k}" for k in fields if k not in known)
    return replace(command, values=dict(command.values) | known, unknown=(*command.unknown, *unknown))


def _config_path(named: str, folder: Path) -> Path | None:
    """The file where the command runs, or of that name beside the source."""
    for candidate in (Path(named), folder / Path(named).name):
        if _kind(candidate) == "file":
            return candidate
    return None


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
