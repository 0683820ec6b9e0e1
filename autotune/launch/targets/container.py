"""What a plan's processes are as containers: images, devices, addresses, and text that no container system expands."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from autotune.engines import ENGINES
from autotune.engines.command_line import Arg, FilePath, NodeHost, NodeRank
from autotune.engines.service import Service
from autotune.launch.plan import LaunchPlan, NodeProcess
from autotune.launch.quoting import dns_label
from costmodel.errors import InputError

FILES_AT = "/etc/autotune"
"""Where configuration files lie in a container."""
CACHE_AT = "/root/.cache/huggingface"
SHM_GIB = 16
"""Shared memory of a server: NCCL and the engines' own processes talk through it."""
STOP_S = 120
"""Time to finish requests after being told to stop."""


def needs_rdma(plan: LaunchPlan) -> bool:
    """Whether kernels of a replica over several nodes write into other nodes' memory by themselves."""
    return any(len(r.nodes) > 1 for r in plan.replicas) and plan.engine.low_latency_tokens(plan.service) is not None


def amd(service: Service) -> bool:
    """Whether the GPUs are AMD's."""
    return service.cluster.gpu.is_amd


def device(service: Service) -> str:
    """Resource by which Kubernetes hands out the GPUs."""
    return "amd.com/gpu" if amd(service) else "nvidia.com/gpu"


def image_of(service: Service) -> tuple[str, tuple[str, ...]]:
    """The image, and what was assumed.

    Raises:
        InputError: `container_image`: none is known for these GPUs.
    """
    if service.image is not None:
        return service.image, ()
    if amd(service):
        raise InputError.single(
            "--image",
            f"container_image: no image of {service.engine} {service.version} is known for AMD GPUs, got "
            f"{service.cluster.gpu.name}: name one",
        )
    engine = ENGINES[service.engine]
    image = engine.image.format(version=service.version)
    return image, (f"image not given: {image}; tags that there are: {engine.image_tags}",)


def bench_image(service: Service) -> str:
    """Image of the benchmark's client, most often the server's."""
    return ENGINES[service.engine].bench_image() or image_of(service)[0]


def literal(text: str) -> str:
    """Text that Kubernetes and Compose hand on as it is: both take `$$` for a dollar sign that expands nothing."""
    return text.replace("$", "$$")


def instance_name(service: Service) -> tuple[str, str]:
    """Name of the service, and of this plan of it, the one that was asked for or else one of its own: two plans of one
    study can run side by side."""
    name = dns_label(service.name)[:40].strip("-")
    return name, service.instance or f"{name}-{_started_hash(service)}"


def files_name(service: Service) -> str:
    """Name of the ConfigMap of a plan's files, which always tells what is started: other content is another name."""
    _, instance = instance_name(service)
    return f"{instance}-files" if service.instance is None else f"{instance}-{_started_hash(service)}-files"


def _started_hash(service: Service) -> str:
    """What is started decides: the same plan exported again is the same object."""
    identity = f"{service.plan}|{service.version}|{service.model}|{service.limits}"
    return hashlib.sha256(identity.encode()).hexdigest()[:6]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """How a container finds the others."""

    leader: str
    """Address of the replica's first node, in the words of the system."""
    rank: str | None = None
    """Reference to the node's rank; None: written as a number."""


def container_argv(process: NodeProcess, spot: Spot) -> tuple[list[str], str | None]:
    """Words of the command, and what a shell has to add to them: options whose value is computed from the rank."""
    words: list[str] = []
    computed: list[str] = []
    for arg in process.argv:
        if isinstance(arg, NodeRank) and spot.rank is not None and arg.rank:
            if arg.each == 1:
                words.append(f"$({spot.rank})")
            else:
                computed += [words.pop(), f'"$$(({spot.rank} * {arg.each}))"']
        else:
            words.append(_word(arg, spot))
    return words, " ".join(computed) or None


def _word(arg: Arg, spot: Spot) -> str:
    if isinstance(arg, FilePath):
        return f"{FILES_AT}/{arg.name}"
    if isinstance(arg, NodeHost):
        return arg.scheme + spot.leader + ("" if arg.port is None else f":{arg.port}")
    if isinstance(arg, NodeRank):
        return str(arg.rank * arg.each)
    if isinstance(arg, str):
        return literal(arg)
    raise InputError.single(
        "plan",
        "mpi_over_containers: the ranks of other nodes are started by MPI over ssh, for which containers have no "
        "common way: export scripts, with the engine's name as --target, or a plan whose replicas fit a node",
    )


def own_network(process: NodeProcess, port: int) -> NodeProcess:
    """The process where it has an address and numbered GPUs of its own: its port is the first one's."""
    argv = list(process.argv)
    if "--port" in argv:
        argv[argv.index("--port") + 1] = str(port)
    env = {k: v for k, v in process.env.items() if k != "CUDA_VISIBLE_DEVICES"}
    return replace(process, argv=tuple(argv), env=env, http_port=None if process.http_port is None else port)


def environment(process: NodeProcess) -> dict[str, str]:
    """Variables of a process."""
    return {name: literal(value) for name, value in process.env.items()}


def mounted_model(service: Service) -> str | None:
    """A model's folder on the nodes that containers are given at the same path; None: the hub's cache.

    Only a path that the user named: a study is read from elsewhere, and must not open the node's files to a container.
    """
    path = service.model
    plain = path.startswith("/") and path.rstrip("/") and ".." not in path.split("/") and path.isprintable()
    return path if service.model_given and plain and not set(path) & set(":\\\"'$") else None


def health_command(port: int, path: str) -> list[str]:
    """Asks a server whether it is ready, with what every engine's image has: Python."""
    return ["python3", "-c", f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}{path}', timeout=5)"]


def plain(document: Any) -> Any:
    """A document without fields that hold nothing."""
    if isinstance(document, dict):
        return {k: v for k, value in document.items() if (v := plain(value)) not in (None, {}, [])}
    return [plain(item) for item in document] if isinstance(document, list) else document
