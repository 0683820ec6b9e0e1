"""What `autotune import` reads: commands, scripts, Compose files, manifests, values of charts, exported folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.option_reader import Command
from autotune.engines.options import version_key
from autotune.launch.files import is_export
from autotune.launch.reading.compose import DOT_ENV, is_compose, with_variables
from autotune.launch.reading.containers import ROLES, Container, Place, config_maps, container_of, containers, named
from autotune.launch.reading.parse import (
    find_engine,
    inner_script,
    parse_command,
    parts_of,
    programs_in_words,
    split_command,
    starts_something,
)
from autotune.launch.reading.python_file import read_python
from autotune.launch.reading.router_file import file_of_router, is_pools, pools
from autotune.launch.reading.shell import Branches, read_script
from autotune.launch.reading.units import (
    REPEATING,
    container_of_run,
    hosts_of_shell,
    script_of_unit,
    tasks_of_srun,
)
from autotune.launch.reading.variables import expand
from autotune.text.safe_yaml import MAX_BYTES, read_yaml
from costmodel.errors import InputError
from costmodel.files import read_file

MAX_SCRIPTS = 20_000
ALONE = Place()
READ = (
    "a shell script, a Compose file, Kubernetes manifests, values of the Helm charts of vLLM's production stack or "
    "llm-d, KServe or Ray Serve resources, a Python file"
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

    `version`: of the engine that runs; None: as the source says, or the newest whose options are known. `given`:
    variables that the source does not say.

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


def texts_of(source: str) -> Iterator[str]:
    """The command, or what stands in the file or in the files of an exported folder, beside what people read alone."""
    path = Path(source)
    kind = _kind(path)
    if kind is None:
        yield source
        return
    found = [path] if kind == "file" else sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".sh"))
    yield from (read_text(p) for p in found)


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
    if path.suffix.lower() in (".bat", ".cmd", ".ps1"):  # lines of Windows' shells go on after these
        text = re.sub(r"[\^`][ \t]*\r?\n", " ", text)
    if path.suffix == ".py":
        return _python(text, str(path), version, env, files)
    keys = re.search(r"^(apiVersion|services|version|kind|applications|servingEngineSpec):", text, re.MULTILINE)
    if path.suffix.lower() in (".yaml", ".yml", ".json") or (keys is not None and not text.startswith("#!")):
        if re.search(r"\{\{-? *(include |template |toYaml |\$?\.(Values|Release|Chart|Capabilities)\b)", text):
            raise InputError.single(
                str(path), "is a template of a Helm chart: import what `helm template CHART -f VALUES.yaml` makes of it"
            )
        documents, said = _with_variables(read_yaml(text, str(path)), path, env)
        files.update(config_maps(documents))
        if len(documents) == 1 and is_pools(documents[0]):
            return _pools(documents[0], str(path), version, env, files)
        found = containers(documents, str(path))
        if not found and len(documents) == 1 and (words := command_of_config(documents[0], path)) is not None:
            return [Process(command=parse_command(words, env=env, version=version))]
        servers = [p for c in found if c.place.copies for p in _of_container(c, version, env, files)]
        return [replace(p, command=replace(p.command, assumptions=(*p.command.assumptions, *said))) for p in servers]
    return _script(script_of_unit(text) or text, version, env, files)


def _with_variables(documents: list[Any], path: Path, env: Mapping[str, str]) -> tuple[list[Any], list[str]]:
    """Documents, Compose files among them with their variables, and what is to be said of these."""
    beside = path.parent / DOT_ENV
    text = read_text(beside) if any(map(is_compose, documents)) and _kind(beside) == "file" else None
    filled = [with_variables(document, path, env, text) for document in documents]
    return [document for document, _ in filled], [said for _, said in filled if said is not None]


def _python(text: str, path: str, version: str | None, env: Mapping[str, str], files: dict[str, str]) -> list[Process]:
    read = read_python(text, env, path)
    files.update(read.files)
    found = [p for c in containers(read.services, path) for p in _of_container(c, version, env, files)]
    return found + [p for s, times in read.scripts for p in _script(s, version, env, files, Place(copies=times))]


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
    return [p for container in made for p in _of_container(container, version, env, files)]


def _of_container(
    container: Container, version: str | None, given: Mapping[str, str], files: dict[str, str]
) -> list[Process]:
    """Its commands, as the version reads them that is given, else that of the image's tag if its options are known."""
    shared = {name: value for name, value in files.items() if name.isidentifier() and "\n" not in value}
    env = {**shared, **container.env, **given}  # of ConfigMaps, as `envFrom` takes them
    said: tuple[str, ...] = ()
    if version is None and container.version is not None:
        engine, tag = container.version
        oldest = ENGINES[engine].versions()[-1]
        if version_key(tag) < version_key(oldest):
            said = (f"the image has {engine} {tag}, older than any whose options are known ({oldest})",)
        else:
            version, said = tag, (f"engine version {tag}: of the image's tag",)
    text = inner_script(container.words)
    found = [] if text is None else _script(text, version, env, files, container.place)
    found = found or [Process(command=parse_command(container.words, env=env, version=version), place=container.place)]
    if sum(not ENGINES[p.command.engine].is_worker(p.command) for p in found) > 1:  # they share the container's GPUs
        found = [replace(p, place=replace(p.place, gpus=None)) for p in found]
    return [replace(p, command=replace(p.command, assumptions=(*said, *p.command.assumptions))) for p in found]


def script_commands(text: str, version: str | None) -> list[Command]:
    """Every server that a shell script starts, with the variables it sets before. Nothing is run."""
    return [found.command for found in _script(text, version, {}, {})]


def _script(
    text: str, version: str | None, given: Mapping[str, str], files: dict[str, str], place: Place = ALONE
) -> list[Process]:
    """Every server that a shell script starts, with the variables it sets before. Nothing is run.

    `place`: where the script is run.
    """
    script = read_script(text, given)
    files.update(script.files)
    found: list[Process] = []
    first: dict[tuple[int, str | None], int] = {}
    left_out = repeated = False
    for line in script.lines:
        if not line.times or not _names_a_program(line.text):
            continue
        for words in parts_of(split_command(line.text)):
            tasks, gpus = tasks_of_srun(words, script.env)
            copies = place.copies * line.times * tasks * hosts_of_shell(words)
            where = replace(place, copies=copies, gpus=place.gpus if gpus is None else gpus)
            for process in _started(words, version, (script.env, given), files, where):
                other = _in_another_branch(process, line.branches, first)
                left_out = left_out or other
                found += [] if other else [process]
                repeated = repeated or any(program in words for program in REPEATING)
    said = ("of servers in several branches of a condition the first counts",) * left_out
    said += (f"how often {', '.join(REPEATING)} run a command is not known: once is taken",) * repeated
    return [replace(p, command=replace(p.command, assumptions=(*p.command.assumptions, *said))) for p in found]


def _in_another_branch(process: Process, branches: Branches, first: dict[tuple[int, str | None], int]) -> bool:
    """Whether a server stands where only one of several is started: the same is in an earlier branch of a condition.

    `first`: condition and role -> the branch in which such a server stood first.
    """
    if not branches or ENGINES[process.command.engine].is_worker(process.command):
        return False
    role = role_of(process)
    return any(first.setdefault((condition, role), branch) != branch for condition, branch in branches.items())


def _started(
    words: list[str],
    version: str | None,
    variables: tuple[Mapping[str, str], Mapping[str, str]],
    files: dict[str, str],
    place: Place,
) -> list[Process]:
    """What one command of a script starts; `variables`: those of the script, and those that hold whatever it sets."""
    env, given = variables
    node = container_of_run(words)
    if node is not None:
        node = {key: _expanded(value, env) for key, value in node.items()}
        stated = _stated_gpus(node)
        container = container_of(node, place if stated is None else replace(place, gpus=stated))
        if container is None:
            return []
        return _of_container(replace(container, env={**env, **container.env}), version, given, files)
    text = inner_script(words)
    if text is not None:
        return _script(text, version, {**env, **given}, files, place)
    if find_engine(words) is None:
        return []
    return [Process(command=parse_command(words, env=env, version=version), place=place)]


def _names_a_program(line: str) -> bool:
    return starts_something(line) or any(program[0] in line for e in ENGINES.values() for program in e.programs)


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


def servers_of(process: Process, gpus: int = 1) -> int:
    """Servers that a process and its copies are: where copies are nodes or ranks of one server, fewer than those.

    `gpus`: of one server, where they are known. More than a copy has make several copies its nodes.
    """
    place, values = process.place, process.command.values
    if place.grouped or place.copies < 2:
        return place.copies
    nodes = str(values.get("nnodes", ""))
    each = int(nodes) if nodes.isdecimal() and len(nodes) < 6 else 1
    if each <= 1:
        whole, local = (str(values.get(f"data_parallel_size{part}", "")) for part in ("", "_local"))
        both = whole.isdecimal() and local.isdecimal() and 0 < int(local[:6]) < int(whole[:6])
        each = int(whole[:6]) // int(local[:6]) if both else 1
    if each <= 1 and place.gpus is not None and gpus > place.gpus:
        each = -(-gpus // place.gpus)
    return place.copies // each if each > 1 and place.copies % each == 0 else place.copies


def command_of_config(document: Any, path: Path) -> list[str] | None:
    """The command of a server whose options are a file of their own (`vllm serve --config FILE`); None: it is none."""
    if not isinstance(document, Mapping) or not {"model", "model-path", "model_path"} & document.keys():
        return None
    for engine in ENGINES.values():
        options, _ = engine.choose_version(None)
        if engine.config_is_options and all(
            engine.knows_field(name, options) for name in engine.config_values(document, options)
        ):
            return [*engine.programs[0], f"--{engine.config_option}", str(path)]
    return None


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
