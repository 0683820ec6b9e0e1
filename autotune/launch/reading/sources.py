"""What `autotune import` reads: commands, scripts, Compose files, manifests, values of charts, exported folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.option_reader import Command
from autotune.engines.options import version_key
from autotune.launch.files import is_export
from autotune.launch.reading.compose import DOT_ENV, is_compose, with_variables
from autotune.launch.reading.containers import Container, Place, config_maps, container_of, containers, named
from autotune.launch.reading.front import file_of_router, is_pools, pools
from autotune.launch.reading.parse import (
    find_engine,
    inner_script,
    parse_command,
    parts_of,
    programs_in_words,
    read_fields,
    split_command,
    starts_something,
)
from autotune.launch.reading.python_file import read_python
from autotune.launch.reading.roles import Process, role_of
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
    reader = Reader(version=version, given=dict(given or {}))
    path = Path(source)
    kind = kind_of(path)
    if kind == "folder":
        found, folder = reader.exported(path), path
    elif kind == "file":
        found, folder = reader.file(path), path.parent
    elif find_engine(source.split()) is None and not re.search(r"\s", source.strip()):
        raise InputError.single(
            "FILE|COMMAND", f"must be a file, a folder or the command of a server; there is no file {source[:200]!r}"
        )
    else:
        found, folder = reader.script(source), Path()
        found = found or [reader.command(split_command(source))]
    found = reader.behind_routers(found, folder)
    if not found:
        raise InputError.single(str(path), f"must start {programs_in_words()}; it starts none ({READ} are read)")
    return [replace(p, command=with_config(p.command, folder, reader.files)) for p in found]


def texts_of(source: str) -> Iterator[str]:
    """The command, or what stands in the file or in the files of an exported folder, beside what people read alone."""
    path = Path(source)
    kind = kind_of(path)
    if kind is None:
        yield source
        return
    found = [path] if kind == "file" else sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".sh"))
    yield from (read_text(p) for p in found)


def kind_of(path: Path) -> str | None:
    """`folder`, `file`, or None where there is neither."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads what is within a source: processes that it starts."""

    version: str | None
    """Of the engine; None: as the source says."""
    given: Mapping[str, str]
    """Variables that hold whatever a script sets."""
    files: dict[str, str] = field(default_factory=dict)
    """Name -> content of those that were met within the source."""

    def command(self, words: Sequence[str], place: Place = ALONE) -> Process:
        """What a command starts."""
        return Process(command=parse_command(words, env=self.given, version=self.version), place=place)

    def file(self, path: Path) -> list[Process]:
        """What a file starts."""
        text = read_text(path)
        if path.suffix.lower() in (".bat", ".cmd", ".ps1"):  # lines of Windows' shells go on after these
            text = re.sub(r"[\^`][ \t]*\r?\n", " ", text)
        if path.suffix == ".py":
            return self._python(text, str(path))
        keys = re.search(r"^(apiVersion|services|version|kind|applications|servingEngineSpec):", text, re.MULTILINE)
        if path.suffix.lower() in (".yaml", ".yml", ".json") or (keys is not None and not text.startswith("#!")):
            if re.search(r"\{\{-? *(include |template |toYaml |\$?\.(Values|Release|Chart|Capabilities)\b)", text):
                raise InputError.single(
                    str(path),
                    "is a template of a Helm chart: import what `helm template CHART -f VALUES.yaml` makes of it",
                )
            documents, said = _with_variables(read_yaml(text, str(path)), path, self.given)
            self.files.update(config_maps(documents))
            if len(documents) == 1 and is_pools(documents[0]):
                return self._pools(documents[0], str(path))
            found = containers(documents, str(path))
            if not found and len(documents) == 1 and (words := command_of_config(documents[0], path)) is not None:
                return [self.command(words)]
            return [p.saying(after=said) for c in found if c.place.copies for p in self._of_container(c)]
        return self.script(script_of_unit(text) or text)

    def _python(self, text: str, path: str) -> list[Process]:
        read = read_python(text, self.given, path)
        self.files.update(read.files)
        found = [p for c in containers(read.services, path) for p in self._of_container(c)]
        return found + [p for s, times in read.scripts for p in self.script(s, Place(copies=times))]

    def exported(self, folder: Path) -> list[Process]:
        """What the scripts of an export start, or its manifests."""
        if not is_export(folder):
            raise InputError.single(str(folder), "must be a folder that `autotune export` wrote, or name a file in it")
        scripts, manifests = sorted(folder.glob("*.sh"))[:MAX_SCRIPTS], sorted(folder.rglob("*.y*ml"))
        started = [(path, found) for path in scripts for found in self.file(path)]
        # the file's name says the pool, where the engine's options do not
        return [replace(f, place=f.place if f.place.role else named(f.place, path.stem)) for path, f in started] or [
            found for path in manifests if path.is_file() for found in self.file(path)
        ]

    def behind_routers(self, found: list[Process], folder: Path) -> list[Process]:
        """Without TensorRT-LLM's routers, which are no servers; the file of a lone one says what is behind it."""
        routed = [file_of_router(process.command) for process in found]
        servers = [process for process, file in zip(found, routed, strict=True) if file is None]
        if servers or not found:
            return servers
        where = str(routed[0])
        path = next((p for p in (Path(where), folder / Path(where).name) if kind_of(p) == "file"), None)
        if path is None:
            raise InputError.single(where[:200] or "-c", "is not here, and says which servers there are: put it beside")
        documents = read_yaml(read_text(path), where)
        if len(documents) != 1 or not is_pools(documents[0]):
            raise InputError.single(where, "must be one mapping with context_servers and generation_servers")
        return self._pools(documents[0], where)

    def _pools(self, document: Mapping[str, Any], where: str) -> list[Process]:
        made, held = pools(document, where)
        self.files.update(held)
        return [p for container in made for p in self._of_container(container)]

    def _of_container(self, container: Container) -> list[Process]:
        """Its commands, by the version that is given, else that of the image's tag if its options are known."""
        shared = {name: value for name, value in self.files.items() if name.isidentifier() and "\n" not in value}
        env = {**shared, **container.env, **self.given}  # of ConfigMaps, as `envFrom` takes them
        said: tuple[str, ...] = ()
        version = self.version
        if version is None and container.version is not None:
            engine, tag = container.version
            oldest = ENGINES[engine].versions()[-1]
            if version_key(tag) < version_key(oldest):
                said = (f"the image has {engine} {tag}, older than any whose options are known ({oldest})",)
            else:
                version, said = tag, (f"engine version {tag}: of the image's tag",)
        inside, text = replace(self, version=version, given=env), inner_script(container.words)
        found = [] if text is None else inside.script(text, container.place)
        found = found or [inside.command(container.words, container.place)]
        # they share the container's GPUs
        if sum(not ENGINES[p.command.engine].is_worker(p.command) for p in found) > 1:
            found = [replace(p, place=replace(p.place, gpus=None)) for p in found]
        return [p.saying(before=said) for p in found]

    def script(self, text: str, place: Place = ALONE) -> list[Process]:
        """Every server that a shell script starts, with the variables it sets before. Nothing is run.

        `place`: where the script is run.
        """
        script = read_script(text, self.given)
        self.files.update(script.files)
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
                for process in self._started(words, script.env, where):
                    other = _in_another_branch(process, line.branches, first)
                    left_out = left_out or other
                    found += [] if other else [process]
                    repeated = repeated or any(program in words for program in REPEATING)
        said = ("of servers in several branches of a condition the first counts",) * left_out
        said += (f"how often {', '.join(REPEATING)} run a command is not known: once is taken",) * repeated
        return [p.saying(after=said) for p in found]

    def _started(self, words: list[str], env: Mapping[str, str], place: Place) -> list[Process]:
        """What one command of a script starts; `env`: the script's variables."""
        node = container_of_run(words)
        if node is not None:
            node = {key: _expanded(value, env) for key, value in node.items()}
            stated = _stated_gpus(node)
            container = container_of(node, place if stated is None else replace(place, gpus=stated))
            if container is None:
                return []
            return self._of_container(replace(container, env={**env, **container.env}))
        text = inner_script(words)
        if text is not None:
            return replace(self, given={**env, **self.given}).script(text, place)
        if find_engine(words) is None:
            return []
        return [replace(self, given=env).command(words, place)]


def _with_variables(documents: list[Any], path: Path, env: Mapping[str, str]) -> tuple[list[Any], list[str]]:
    """Documents, Compose files among them with their variables, and what is to be said of these."""
    beside = path.parent / DOT_ENV
    text = read_text(beside) if any(map(is_compose, documents)) and kind_of(beside) == "file" else None
    filled = [with_variables(document, path, env, text) for document in documents]
    return [document for document, _ in filled], [said for _, said in filled if said is not None]


def _in_another_branch(process: Process, branches: Branches, first: dict[tuple[int, str | None], int]) -> bool:
    """Whether a server stands where only one of several is started: the same is in an earlier branch of a condition.

    `first`: condition and role -> the branch in which such a server stood first.
    """
    if not branches or ENGINES[process.command.engine].is_worker(process.command):
        return False
    role = role_of(process)
    return any(first.setdefault((condition, role), branch) != branch for condition, branch in branches.items())


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


def command_of_config(document: Any, path: Path) -> list[str] | None:
    """The command of a server whose options are a file of their own (`vllm serve --config FILE`); None: it is none."""
    if not isinstance(document, Mapping) or not {"model", "model-path", "model_path"} & document.keys():
        return None
    for engine in ENGINES.values():
        options, _ = engine.choose_version(None)
        if engine.config_is_options and not read_fields(engine, options, document).unknown:
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
        path = next((p for p in (Path(named), folder / name) if kind_of(p) == "file"), None)
        if path is None:
            raise InputError.single(
                named[:200], "is not here, and its fields decide about the plan: put the file beside what is imported"
            )
        text, where = read_text(path), str(path)
    documents = read_yaml(text, where)
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise InputError.single(where, "must be one mapping: the fields of the configuration")
    off: Mapping[str, str] = {}
    if engine.config_is_options:
        read = read_fields(engine, command.options, documents[0])
        known, left, off = read.values, read.unknown, read.turned_off
    else:
        fields = engine.config_values(documents[0])
        known = {k: v for k, v in fields.items() if engine.knows_field(k, command.options)}
        left = tuple(k for k in fields if k not in known)
    unknown = (*command.unknown, *(f"{name}: {k}" for k in left))
    values = {**command.values, **known} if engine.config_overrides else {**known, **command.values}
    model = command.model or next((str(known[k]) for k in ("model", "model_path") if k in known), None)
    return replace(command, values=values, model=model, unknown=unknown, turned_off={**off, **command.turned_off})
