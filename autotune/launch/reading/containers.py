"""Containers in a Compose file or Kubernetes manifests: what each runs, with which variables, how many times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotune.engines import ENGINES
from autotune.launch.reading.parse import find_engine, split_command
from costmodel.errors import InputError

MAX_CONTAINERS = 2_000
MAX_VISITED = 200_000
MAX_REPLICAS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container that runs a server's process."""

    words: tuple[str, ...]
    env: Mapping[str, str]
    copies: int
    """Replicas of what it stands in."""
    version: str | None
    """Of the engine, where the image's tag says it."""


def containers(documents: list[Any], path: str) -> list[Container]:
    """Every container that starts a server, in file order.

    Takes any mapping with a `command`, `entrypoint` or `args`: services of Compose, containers of every kind of
    Kubernetes workload, LeaderWorkerSet and DynamoGraphDeployment alike. `replicas` of the mappings around it multiply.

    Raises:
        InputError: more than can be meant.
    """
    found: list[Container] = []
    visited = 0
    stack: list[tuple[Any, int]] = [(d, 1) for d in reversed(documents)]
    while stack:
        node, copies = stack.pop()
        visited += 1
        if visited > MAX_VISITED or len(found) > MAX_CONTAINERS:
            raise InputError.single(
                path, f"must hold at most {MAX_CONTAINERS:,} containers in a plain file, holds more"
            )
        if isinstance(node, list):
            stack += [(item, copies) for item in reversed(node)]
        if not isinstance(node, Mapping):
            continue
        copies = _multiplied(copies, node, path)
        if "leaderTemplate" in node:  # of a LeaderWorkerSet, whose workers are further nodes of the same server
            node = {key: value for key, value in node.items() if key != "workerTemplate"}
        container = _container(node, copies)
        if container is not None:
            found.append(container)
        stack += [(value, copies) for value in reversed(list(node.values()))]
    return found


def _multiplied(copies: int, node: Mapping[Any, Any], path: str) -> int:
    deploy = node.get("deploy")
    given = node.get("replicas", deploy.get("replicas") if isinstance(deploy, Mapping) else None)
    if isinstance(given, bool) or not isinstance(given, int):
        return copies
    if not 0 <= given * copies <= MAX_REPLICAS:
        raise InputError.single(path, f"replicas must lie between 0 and {MAX_REPLICAS:,}, got {given}")
    return copies * given


def _container(node: Mapping[Any, Any], copies: int) -> Container | None:
    lines = [part for key in ("entrypoint", "command", "args") for part in _words(node.get(key))]
    if not lines:
        return None
    image = str(node.get("image", ""))
    if find_engine(lines) is None and not _shell(lines):
        # Compose's `command` is the arguments of the image's program, Kubernetes' replaces it
        replaced = "entrypoint" in node or ("command" in node and ("args" in node or "name" in node))
        program = [] if replaced else _image_program(image)
        if not program:
            return None
        lines = [*program, *lines]
    return Container(words=tuple(lines), env=_environment(node), copies=copies, version=_tag(image))


def _image_program(image: str) -> list[str]:
    """What an image that an engine's makers publish runs by itself."""
    last = image.rpartition("/")[2]
    return [word for engine in ENGINES.values() if last.startswith(engine.image_name) for word in engine.image_program]


def _tag(image: str) -> str | None:
    """The engine's version, where the tag of such an image says it."""
    names = "|".join(re.escape(engine.image_name) for engine in ENGINES.values())
    found = re.search(rf"(?:{names}):v?(\d{{1,5}}\.\d{{1,5}}\.\d{{1,5}})\b", image)
    return None if found is None else found[1]


def _shell(lines: list[str]) -> bool:
    return any(find_engine(line.replace("\\\n", " ").split()) is not None for line in lines)


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return split_command(value.replace("$$", "$"))
    if isinstance(value, list):
        return [_text(item) for item in value if not isinstance(item, (list, dict))]
    return []


def _text(value: Any) -> str:
    """As the process gets it: both systems take `$$` for a dollar sign."""
    return str(value).lower() if isinstance(value, bool) else str(value).replace("$$", "$")


def _environment(node: Mapping[Any, Any]) -> dict[str, str]:
    out: dict[str, str] = {}
    for key in ("environment", "env", "envs"):
        given = node.get(key)
        if isinstance(given, Mapping):
            out.update({str(k): _text(v) for k, v in given.items() if not isinstance(v, (list, dict))})
        for item in given if isinstance(given, list) else ():
            if isinstance(item, str):
                name, _, value = item.partition("=")
                out[name] = _text(value)
            elif isinstance(item, Mapping) and isinstance(item.get("value"), (str, int, float, bool)):
                out[str(item.get("name"))] = _text(item["value"])
    return out
