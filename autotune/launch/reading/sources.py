"""What `autotune import` reads: commands, scripts, Compose files, manifests, values of charts, exported folders."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.option_reader import Command
from autotune.engines.options import version_key
from autotune.launch.files import is_export
from autotune.launch.reading.containers import ROLES, Container, Place, config_maps, container_of, containers, named
from autotune.launch.reading.parse import find_engine, parse_command, programs_in_words, split_command
from autotune.launch.reading.router_file import file_of_router, is_pools, pools
from autotune.launch.reading.shell import container_of_run, expand, read_script
from autotune.text.safe_yaml import MAX_BYTES, read_yaml
from costmodel.errors import InputError
from costmodel.files import read_file

MAX_SCRIPTS = 20_000
_CONTAINER = re.compile(r"\b(docker|podman|nerdctl)\b.*\brun\b")
READ = (
    "a shell script, a Compose file, Kubernetes manifests, values of the Helm charts of vLLM's production stack or "
    "llm-d, KServe or Ray Serve resources"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Processes that one command starts."""

    command: Command
    place: Place = field(default_factory=Place)


Files = Mapping[str, str]
"""Name -> content of files that stand within a source."""
NO_FILES: Files = MappingProxyType({})


def read_source(source: str, version: str | None, given: Mapping[str, str] | None = None) -> list[Process]:
    """Processes that a file, a folder or a command starts.

    Args:
        source: a path, or the command itself.
        version: of the engine that runs; None: as the source says, or the newest whose options are known.
        given: variables that the source does not say.

    Raises:
        InputError: nothing of the kind, too large, or no server in it.
    """
    env = dict(given or {})
    path = Path(source)
    kind = _kind(path)
    files: dict[str, str] = {}
    if kind == "folder":
        found, folder = _exported(path, version, env, files), path
    elif kind == "file":
        found, folder = _file(path, version, env, files), path.parent
    elif find_engine(source.split()) is None and not re.search(r"\s", source.strip()):
        raise InputError.single(
            "FILE|COMMAND", f"must be a file, a folder or the command of a server; there is no file {source[:200]!r}"
        )
    else:
        found, folder = _script(source, version, env, files), Path()
        found = found or [Process(command=parse_command(split_command(source), env=env, version=version))]
    found = _behind_routers(found, folder, version, env, files)
    if not found:
        raise InputError.single(str(path), f"must start {programs_in_words()}; it starts none ({READ} are read)")
    return [replace(p, command=with_config(p.command, folder, files)) for p in found]


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


def _file(path: Path, version: str | None, env: Mapping[str, str], files: dict[str, str]) -> list[Process]:
    text = read_text(path)
    keys = re.search(r"^(apiVersion|services|version|kind|applications|servingEngineSpec):", text, re.MULTILINE)
    if path.suffix.lower() in (".yaml", ".yml") or (keys is not None and not text.startswith("#!")):
        documents = read_yaml(text, str(path))
        files.update(config_maps(documents))
        if len(documents) == 1 and is_pools(documents[0]):
            return _pools(documents[0], str(path), version, env, files)
        found = containers(documents, str(path))
        return [_of_container(c, version, env) for c in found if c.place.copies]
    return _script(text, version, env, files)


def _exported(folder: Path, version: str | None, env: Mapping[str, str], files: dict[str, str]) -> list[Process]:
    """What the scripts of an export start, or its manifests."""
    if not is_export(folder):
        raise InputError.single(str(folder), "must be a folder that `autotune export` wrote, or name a file in it")
    scripts, manifests = sorted(folder.glob("*.sh"))[:MAX_SCRIPTS], sorted(folder.rglob("*.y*ml"))
    started = [(path, found) for path in scripts for found in _file(path, version, env, files)]
    # the file's name says the pool, where the engine's options do not
    return [replace(f, place=f.place if f.place.role else named(f.place, path.stem)) for path, f in started] or [
        found for path in manifests if path.is_file() for found in _file(path, version, env, files)
    ]


def _behind_routers(
    found: list[Process], folder: Path, version: str | None, env: Mapping[str, str], files: dict[str, str]
) -> list[Process]:
    """Without TensorRT-LLM's routers, which are no servers; the file of one that stands alone says what is behind."""
    routed = [file_of_router(process.command) for process in found]
    servers = [process for process, file in zip(found, routed, strict=True) if file is None]
    if servers or not found:
        return servers
    where = str(routed[0])
    path = next((p for p in (Path(where), folder / Path(where).name) if _kind(p) == "file"), None)
    if path is None:
        raise InputError.single(where[:200] or "-c", "is not here, and says which servers there are: put it beside")
    documents = read_yaml(read_text(path), where)
    if len(documents) != 1 or not is_pools(documents[0]):
        raise InputError.single(where, "must be one mapping with context_servers and generation_servers")
    return _pools(documents[0], where, version, env, files)


def _pools(
    document: Mapping[str, Any], where: str, version: str | None, env: Mapping[str, str], files: dict[str, str]
) -> list[Process]:
    made, held = pools(document, where)
    files.update(held)
    return [_of_container(container, version, env) for container in made]


def _of_container(container: Container, version: str | None, given: Mapping[str, str]) -> Process:
    """Its command, as the version reads it that is given, or that the image's tag says and whose options are known."""
    env = {**container.env, **given}
    command = parse_command(container.words, env=env, version=version)
    tag = container.version
    if version is not None or tag is None:
        return Process(command=command, place=container.place)
    oldest = ENGINES[command.engine].versions()[-1]
    if version_key(tag) < version_key(oldest):
        assumption = f"the image has {command.engine} {tag}, older than any whose options are known ({oldest})"
        command = replace(command, assumptions=(*command.assumptions, assumption))
        return Process(command=command, place=container.place)
    read = parse_command(container.words, env=env, version=tag)
    command = replace(read, assumptions=(f"engine version {tag}: of the image's tag", *read.assumptions))
    return Process(command=command, place=container.place)


def script_commands(text: str, version: str | None) -> list[Command]:
    """Every server that a shell script starts, with the variables it sets before. Nothing is run."""
    return [found.command for found in _script(text, version, {}, {})]


def _script(text: str, version: str | None, given: Mapping[str, str], files: dict[str, str]) -> list[Process]:
    """Every server that a shell script starts, with the variables it sets before. Nothing is run."""
    script = read_script(text, given)
    files.update(script.files)
    found: list[Process] = []
    for line, times in script.lines:
        if not times or not (_CONTAINER.search(line) or _names_a_program(line)):
            continue
        words = split_command(line)
        node = container_of_run(words)
        if node is not None:
            node = {key: _expanded(value, script.env) for key, value in node.items()}
            container = container_of(node, Place(copies=times, gpus=_stated_gpus(node)))
            if container is not None:
                known = replace(container, env={**script.env, **container.env})
                found.append(_of_container(known, version, given))
        elif find_engine(words) is not None:
            command = parse_command(words, env=script.env, version=version)
            found.append(Process(command=command, place=Place(copies=times)))
    return found


def _names_a_program(line: str) -> bool:
    return any(program[0] in line for engine in ENGINES.values() for program in engine.programs)


def _expanded(value: Any, env: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return expand(value, env)
    if isinstance(value, list):
        return [expand(item, env) for item in value]
    if isinstance(value, dict):
        return {key: _expanded(inner, env) for key, inner in value.items()}
    return value


def _stated_gpus(node: Mapping[str, Any]) -> int | None:
    limits = node.get("resources", {}).get("limits", {})
    count = str(limits.get("nvidia.com/gpu", ""))
    return int(count) if count.isdecimal() and len(count) < 7 else None


def role_of(process: Process) -> str | None:
    """`prefill` or `decode`, as the options of a disaggregated server say, or its name where it passes caches on."""
    values = process.command.values
    mode = str(values.get("disaggregation_mode", ""))
    if mode in ROLES:
        return mode
    given = " ".join(process.command.own)
    for role in ROLES:
        if re.search(rf"--is-{role}-worker|--disaggregation-mode[ =]{role}", given):
            return role
    try:
        transfer = json.loads(str(values.get("kv_transfer_config", "{}")))
    except (ValueError, RecursionError):
        transfer = {}
    named = {"kv_producer": "prefill", "kv_consumer": "decode"}
    if isinstance(transfer, dict) and str(transfer.get("kv_role")) in named:
        return named[str(transfer["kv_role"])]
    return process.place.role


def servers_of(process: Process) -> int:
    """Servers that a process and its copies are: where copies are nodes or ranks of one server, fewer than those."""
    place, values = process.place, process.command.values
    if place.grouped or place.copies < 2:
        return place.copies
    nodes = str(values.get("nnodes", ""))
    each = int(nodes) if nodes.isdecimal() and len(nodes) < 6 else 1
    if each <= 1:
        whole, local = (str(values.get(f"data_parallel_size{part}", "")) for part in ("", "_local"))
        both = whole.isdecimal() and local.isdecimal() and 0 < int(local[:6]) < int(whole[:6])
        each = int(whole[:6]) // int(local[:6]) if both else 1
    return place.copies // each if each > 1 and place.copies % each == 0 else place.copies


def with_config(command: Command, folder: Path, files: Files = NO_FILES) -> Command:
    """A command with the fields of the file that it names (`Engine.config_option`).

    Raises:
        InputError: the file is not there, or is no mapping.
    """
    engine = ENGINES[command.engine]
    named = None if engine.config_option is None else command.values.get(engine.config_option)
    if not isinstance(named, str):
        return command
    name = Path(named).name
    if name in files:
        text, where = files[name], name
    else:
        # the file where the command runs, or of that name beside the source
        path = next((p for p in (Path(named), folder / name) if _kind(p) == "file"), None)
        if path is None:
            raise InputError.single(
                named[:200], "is not here, and its fields decide about the plan: put the file beside what is imported"
            )
        text, where = read_text(path), str(path)
    documents = read_yaml(text, where)
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise InputError.single(where, "must be one mapping: the fields of the configuration")
    fields = engine.config_values(documents[0], command.options)
    known = {k: v for k, v in fields.items() if engine.knows_field(k, command.options)}
    unknown = tuple(f"{name}: {k}" for k in fields if k not in known)
    values = dict(command.values) | known if engine.config_overrides else known | dict(command.values)
    model = command.model or next((str(known[k]) for k in ("model", "model_path") if k in known), None)
    return replace(command, values=values, model=model, unknown=(*command.unknown, *unknown))
