"""Docker Compose: every replica of a plan that fits one node."""

from __future__ import annotations

from typing import Any

from autotune.files import OutFile
from autotune.launch.bench import fixed_command
from autotune.launch.plan import LaunchPlan, NodeProcess, Replica
from autotune.launch.quoting import to_yaml
from autotune.launch.targets.container import (
    CACHE_AT,
    FILES_AT,
    STOP_S,
    Spot,
    amd,
    bench_image,
    container_argv,
    environment,
    health_command,
    image_of,
    instance_name,
    literal,
    mounted_model,
    own_network,
    plain,
)
from autotune.launch.targets.scripts import config_files, rank_file
from costmodel.errors import InputError

FILE = "compose.yaml"
RESULTS_AT = "/results"


def compose_files(plan: LaunchPlan) -> dict[str, OutFile]:
    """The Compose file, the configuration it mounts, and what every GPU holds.

    Raises:
        InputError: `one_node`: the plan needs more than one.
    """
    if len(plan.nodes) > 1:
        raise InputError.single(
            "plan",
            f"one_node: Docker Compose starts containers on one node, got {len(plan.nodes)} nodes of "
            f"{plan.gpus_per_node} GPUs: use --target k8s, or the engine's scripts",
        )
    files = {FILE: OutFile(text=_HEAD + to_yaml(document(plan)))}
    files |= config_files(plan)
    files["ranks.json"] = rank_file(plan, {0: "this node"})
    return files


_HEAD = "# Written by autotune export; README.md says how to start it. IMAGE and HF_TOKEN come from the environment.\n"


def document(plan: LaunchPlan) -> dict[str, Any]:
    """The Compose file's content."""
    image, _ = image_of(plan.service)
    services: dict[str, Any] = {f"replica{r.index}": _server(plan, r, image) for r in plan.replicas}
    if plan.router is not None:
        services["router"] = _router(plan, plan.router, image)
    services["bench"] = _bench(plan)
    name, _ = instance_name(plan.service)
    return {"name": name, "services": services}


def _common(plan: LaunchPlan, image: str) -> dict[str, Any]:
    model = mounted_model(plan.service)
    cache = f"${{HF_HOME:-${{HOME}}/.cache/huggingface}}:{CACHE_AT}"
    return {
        "image": f"${{IMAGE:-{image}}}",
        "volumes": [cache if model is None else {"type": "bind", "source": model, "target": model, "read_only": True}],
        "environment": {"HF_TOKEN": "${HF_TOKEN:-}"},
    }


def _server(plan: LaunchPlan, replica: Replica, image: str) -> dict[str, Any]:
    process = replica.head
    port = process.http_port or 0
    words, _ = container_argv(own_network(process, port), Spot(leader="127.0.0.1"))
    common = _common(plan, image)
    common["volumes"] += [f"./{name}:{FILES_AT}/{name}:ro" for name in sorted(plan.files)]
    return plain(
        common
        | {
            "entrypoint": words[: plan.program_words],
            "command": words[plan.program_words :],
            "environment": common["environment"] | environment(own_network(process, port)) | _visible(plan, process),
            **_gpus(plan, process),
            "ports": [f"{port}:{port}"],
            "ipc": "host",
            "ulimits": {"memlock": -1, "stack": 67108864},
            "healthcheck": {
                "test": ["CMD", *health_command(port, plan.engine.health_path)],
                "interval": "10s",
                "timeout": "10s",
                "retries": 6,
                "start_period": f"{plan.start_s}s",
            },
            "restart": "unless-stopped",
            "stop_grace_period": f"{STOP_S}s",
        }
    )


def _gpus(plan: LaunchPlan, process: NodeProcess) -> dict[str, Any]:
    """The GPUs of a replica; inside, they are numbered from 0."""
    if amd(plan.service):
        return {"devices": ["/dev/kfd", "/dev/dri"], "group_add": ["video"]}
    reserved = {"driver": "nvidia", "device_ids": [str(g) for g in process.gpus], "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [reserved]}}}}


def _visible(plan: LaunchPlan, process: NodeProcess) -> dict[str, str]:
    return {"HIP_VISIBLE_DEVICES": ",".join(map(str, process.gpus))} if amd(plan.service) else {}


def _router(plan: LaunchPlan, router: NodeProcess, image: str) -> dict[str, Any]:
    port = router.http_port or 0
    by_port = {
        f"http://replica:{r.head.http_port}": f"http://replica{r.index}:{r.head.http_port}" for r in plan.replicas
    }
    argv, _ = container_argv(router, Spot(leader="replica"))
    program = next(i for i, word in enumerate(argv) if word.startswith("--"))
    return {
        "image": f"${{IMAGE:-{image}}}",
        "entrypoint": argv[:program],
        "command": [by_port.get(word, word) for word in argv[program:]],
        "ports": [f"{port}:{port}"],
        "depends_on": {f"replica{r.index}": {"condition": "service_healthy"} for r in plan.replicas},
        "restart": "unless-stopped",
    }


def address(plan: LaunchPlan) -> tuple[str, int]:
    """Where the benchmark goes in the Compose network, and how many replicas that reaches."""
    if plan.router is not None:
        return f"http://router:{plan.router.http_port}", len(plan.replicas)
    return f"http://replica0:{plan.replicas[0].head.http_port}", 1


def _bench(plan: LaunchPlan) -> dict[str, Any]:
    base_url, reached = address(plan)
    command = fixed_command(plan.service, base_url=base_url, folder=RESULTS_AT, replicas=reached, of=len(plan.replicas))
    words = [literal(a) for a in command.argv if isinstance(a, str)]
    program = len(plan.engine.bench_options(plan.service.version).command.split())
    common = _common(plan, bench_image(plan.service))
    if plan.engine.bench_image() is not None:
        common["image"] = bench_image(plan.service)  # IMAGE is the server's
    waits = {"router": {"condition": "service_started"}} if plan.router is not None else {}
    return common | {
        "profiles": ["bench"],
        "entrypoint": words[:program],
        "command": words[program:],
        "volumes": [*common["volumes"], f"./:{RESULTS_AT}"],
        "depends_on": {"replica0": {"condition": "service_healthy"}} | waits,
    }


def words(plan: LaunchPlan) -> dict[str, Any]:
    """What the README's template asks for."""
    service = plan.service
    return {
        "amd": amd(service),
        "hidden_path": mounted_model(service) is None and service.model.startswith("/"),
        "in_place": False,
    }
