"""Containers in a Compose file or Kubernetes manifests: what each runs, with which variables, how many times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autotune.engines import ENGINES
from autotune.launch.gpu_types import LABEL
from autotune.launch.reading.charts import expanded, one_by_one, with_autoscaling
from autotune.launch.reading.parse import find_engine, plain_text, plain_words, starts_something
from costmodel.errors import InputError

MAX_CONTAINERS = 2_000
MAX_VISITED = 200_000
MAX_REPLICAS = 100_000
GPU_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu", "gpu")
ROLES = ("prefill", "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the mappings around a container say of it."""

    copies: int = 1
    """Replicas of what it stands in."""
    grouped: bool = False
    """Whether such a copy is a whole group of pods, of which this container is the head."""
    pods: int = 1
    """Pods of each copy."""
    role: str | None = None
    """`prefill` or `decode`, by a name or a label."""
    gpus: int | None = None
    """That its pod asks for."""
    product: str | None = None
    """Label of its nodes' GPUs, where the pod selects them by it."""
    names: tuple[str, ...] = ()
    """By which others may address it: of the Compose service, the container and the workload."""
    ports: tuple[int, ...] = ()
    """Of the host, at which its own are published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container that runs a server's process."""

    words: tuple[str, ...]
    env: Mapping[str, str]
    place: Place
    version: tuple[str, str] | None
    """Engine and its version, where the image's tag says it."""


def containers(documents: list[Any], path: str) -> list[Container]:
    """Every container that starts a server, in file order.

    Takes any mapping with a `command`, `entrypoint` or `args`: services of Compose, containers of every kind of
    Kubernetes workload, LeaderWorkerSet and DynamoGraphDeployment alike, and what `charts` turns into such. `replicas`
    of the mappings around it multiply.

    Raises:
        InputError: more than can be meant.
    """
    found: list[Container] = []
    visited = 0
    stack = [(d, Place()) for whole in reversed(with_autoscaling(documents)) for d in reversed(expanded(whole, path))]
    while stack:
        node, place = stack.pop()
        visited += 1
        if visited > MAX_VISITED or len(found) > MAX_CONTAINERS:
            raise InputError.single(
                path, f"must hold at most {MAX_CONTAINERS:,} containers in a plain file, holds more"
            )
        if isinstance(node, list):
            stack += [(item, place) for item in reversed(node)]
        if not isinstance(node, Mapping):
            continue
        place = _within(place, node, path)
        if "leaderTemplate" in node:  # of a LeaderWorkerSet, whose workers are further nodes of the same server
            node = {key: value for key, value in node.items() if key != "workerTemplate"}
        container = container_of(node, place)
        if container is not None:
            found.append(container)
        inner = [(str(key), value) for key, value in reversed(list(node.items()))]
        # what Compose files keep to be merged into services
        stack += [
            (value, _keyed(place, key, value)) for key, value in inner if not ("services" in node and key[:2] == "x-")
        ]
    return found


def _keyed(place: Place, key: str, value: Any) -> Place:
    """Of a value in a mapping: named by its key, as Compose names its services."""
    is_service = isinstance(value, Mapping) and ("image" in value or "command" in value)
    return named(replace(place, names=(*place.names, key)) if is_service else place, key)


def config_maps(documents: list[Any]) -> dict[str, str]:
    """Files that ConfigMaps among the documents hold: name -> content."""
    out: dict[str, str] = {}
    for document in one_by_one(documents):
        if isinstance(document, Mapping) and document.get("kind") == "ConfigMap":
            data = document.get("data")
            out.update(
                {str(k): v for k, v in (data if isinstance(data, Mapping) else {}).items() if isinstance(v, str)}
            )
    return out


def _within(place: Place, node: Mapping[Any, Any], path: str) -> Place:
    place = replace(place, copies=_multiplied(place.copies, node, path))
    if "leaderWorkerTemplate" in node or "leaderTemplate" in node or isinstance(node.get("multinode"), Mapping):
        place = replace(place, grouped=True)
    pods = node.get("autotune-pods")
    if isinstance(pods, int) and 1 < pods <= MAX_REPLICAS:
        place = replace(place, grouped=True, pods=pods)
    multinode = node.get("multinode")
    size = multinode.get("nodeCount") if isinstance(multinode, Mapping) else node.get("size") if place.grouped else None
    if isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= MAX_REPLICAS:
        place = replace(place, pods=size)
    gpus = _gpus(node)
    if gpus is not None:
        place = replace(place, gpus=gpus)
    selector = node.get("nodeSelector")
    if isinstance(selector, Mapping) and isinstance(selector.get(LABEL), str):
        place = replace(place, product=selector[LABEL])
    metadata = node.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    hints = [node.get("autotune-role"), node.get("subComponentType"), node.get("componentType")]
    hints += [metadata.get("name")] if isinstance(metadata, Mapping) else []
    hints += list(labels.values()) if isinstance(labels, Mapping) else []
    if isinstance(metadata, Mapping) and isinstance(metadata.get("name"), str):
        place = replace(place, names=(*place.names, metadata["name"]))
    for hint in hints:
        place = named(place, str(hint))
    return place


def _at_container(place: Place, node: Mapping[Any, Any]) -> Place:
    """What a container's own names and ports say: they lie closest, so that two in a pod may have two roles."""
    names = [name for key in ("name", "container_name", "hostname") if isinstance(name := node.get(key), str)]
    for name in names:
        place = named(place, name)
    return replace(place, names=(*place.names, *names), ports=_published(node))


def _published(node: Mapping[Any, Any]) -> tuple[int, ...]:
    """Ports of the host that Compose's `ports` or `docker run -p` give a container: `8100:8000`."""
    given = node.get("ports")
    found = []
    for item in given[:MAX_CONTAINERS] if isinstance(given, list) else ():
        text = str(item.get("published", "")) if isinstance(item, Mapping) else str(item).rpartition(":")[0]
        port = text.rpartition(":")[2]
        found += [int(port)] if port.isdecimal() and len(port) < 6 else []
    return tuple(found)


def named(place: Place, name: str) -> Place:
    """With the role that a name says, if it says one."""
    said = [role for role in ROLES if role in name.lower()]
    return replace(place, role=said[0]) if len(said) == 1 else place


def _gpus(node: Mapping[Any, Any]) -> int | None:
    """GPUs that a container or a service asks for."""
    deploy = node.get("deploy")
    resources = node.get("resources", deploy.get("resources") if isinstance(deploy, Mapping) else None)
    for kind in ("limits", "requests", "reservations"):
        table = resources.get(kind) if isinstance(resources, Mapping) else None
        if not isinstance(table, Mapping):
            continue
        devices = table.get("devices")  # of Compose
        wanted = [table.get(name) for name in GPU_RESOURCES]
        for device in devices if isinstance(devices, list) else ():
            if isinstance(device, Mapping):
                ids = device.get("device_ids")
                wanted.append(len(ids) if isinstance(ids, list) else device.get("count"))
        for value in map(str, wanted):
            if value.isdecimal() and 0 < int(value[:6]) <= MAX_REPLICAS:
                return int(value[:6])
    return None


def _multiplied(copies: int, node: Mapping[Any, Any], path: str) -> int:
    deploy = node.get("deploy")
    given = node.get("replicas", node.get("scale", deploy.get("replicas") if isinstance(deploy, Mapping) else None))
    given = node.get("slices", given) if "roles" in node else given  # of a DisaggregatedSet: each has all roles
    if given is None and "template" in node:
        given = node.get("parallelism")  # of a Job
    if isinstance(given, bool) or not isinstance(given, int):
        return copies
    if not 0 <= given * copies <= MAX_REPLICAS:
        raise InputError.single(path, f"replicas must lie between 0 and {MAX_REPLICAS:,}, got {given}")
    return copies * given


def container_of(node: Mapping[Any, Any], place: Place) -> Container | None:
    """What a mapping with a command starts; None: no server."""
    lines = [part for key in ("entrypoint", "command", "args") for part in plain_words(node.get(key))]
    if not lines:
        return None
    image = str(node.get("image") or "")
    if find_engine(lines) is None and not any(starts_something(line) for line in lines if re.search(r"\s", line)):
        # Compose's `command` is the arguments of the image's program, Kubernetes' replaces it
        replaced = "entrypoint" in node or ("command" in node and ("args" in node or "name" in node))
        program = [] if replaced else _image_program(image)
        if not program:
            return None
        lines = [*program, *lines]
    env, place = _environment(node), _at_container(place, node)
    if place.grouped:
        env.setdefault("LWS_GROUP_SIZE", str(place.pods))
    return Container(words=tuple(lines), env=env, place=place, version=_tag(image))


def _image_program(image: str) -> list[str]:
    """What an image that runs an engine runs by itself."""
    last = image.rpartition("/")[2]
    return next((list(e.image_program) for e in ENGINES.values() if e.image_program and e.name in last), [])


def _tag(image: str) -> tuple[str, str] | None:
    """The engine and its version, where the tag of such an image says it."""
    for engine in ENGINES.values():
        found = re.search(rf"{re.escape(engine.image_name)}:v?(\d{{1,5}}\.\d{{1,5}}\.\d{{1,5}})\b", image)
        if found is not None:
            return engine.name, found[1]
    return None


def _environment(node: Mapping[Any, Any]) -> dict[str, str]:
    out: dict[str, str] = {}
    for key in ("environment", "env", "envs"):
        given = node.get(key)
        if isinstance(given, Mapping):
            out.update({str(k): plain_text(v) for k, v in given.items() if not isinstance(v, list | dict)})
        for item in given if isinstance(given, list) else ():
            if isinstance(item, str):
                name, _, value = item.partition("=")
                out[name] = plain_text(value)
            elif isinstance(item, Mapping) and isinstance(item.get("value"), str | int | float | bool):
                out[str(item.get("name"))] = plain_text(item["value"])
    return out
