"""llm-d: both pools as patches of its Kustomize bases, or as one DisaggregatedSet.

Read in llm-d main (guides/pd-disaggregation/modelserver, guides/recipes/modelserver/base/single-host/pd; 027a053). A
prefill server answers on 8000. Before a decode server, on 8200, stands the routing proxy of llm-d on 8000, which sends
a prompt to the prefill server that the router names and has its cache pulled from there. The router finds pods by
their labels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autotune.files import OutFile
from autotune.launch.plan import LaunchPlan, Replica
from autotune.launch.pools.connect import pool_ports
from autotune.launch.pools.make import PoolLaunch
from autotune.launch.quoting import dns_label, one_line, to_yaml
from autotune.launch.targets.container import image_of, instance_name, own_network, plain
from autotune.launch.targets.kubernetes_pod import pod_spec, server_container, with_device
from autotune.space.pool_plan import ROLES
from costmodel.errors import InputError

ENGINES_TAKEN = ("vllm", "sglang")
BASE = "https://github.com/llm-d/llm-d//guides/recipes/modelserver/base/single-host/pd/{engine}?ref=main"
SIDECAR = "ghcr.io/llm-d/llm-d-routing-sidecar:v0.8.0"
"""Takes `--vllm-port` and `--secure-proxy`, which later ones keep as other names of theirs (llm-d-router, 2142 and
2908); by itself it looks for the server at 8001."""
SIDECAR_IMAGE = (
    "https://github.com/llm-d/llm-d//guides/recipes/modelserver/components/images/routing-sidecar/release?ref=main"
)
"""llm-d's choice of it for the base of the same revision, which has a placeholder."""
GUIDE = "pd-disaggregation"
NAME = "modelserver"
"""Of the container and of its port, as the bases have them."""
PORTS = {"prefill": 8000, "decode": 8200}
CONNECTORS = {"vllm": "nixlv2", "sglang": "sglang"}
"""What the routing proxy is told of how the engine moves caches."""
ENVIRONMENT: dict[str, list[dict[str, Any]]] = {
    "vllm": [
        {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        # longer than the routing proxy keeps an idle connection, which is 90 s
        {"name": "VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "value": "120"},
    ],
    "sglang": [],
}
KUSTOMIZE_HOW = (
    "`kubectl apply -k .` after llm-d's router is installed with the values of its guide pd-disaggregation "
    "(guides/recipes/router); it finds the pods by their labels."
)
SET_HOW = (
    "`kubectl apply -f disaggregatedset.yaml` with a controller of LeaderWorkerSet that knows DisaggregatedSet, after "
    "llm-d's router is installed with the values of its guide pd-disaggregation; it finds the pods by their labels."
)


def kustomize_files(launch: PoolLaunch) -> dict[str, OutFile]:
    """A Kustomization over llm-d's base of the engine, and a patch of each pool.

    Raises:
        InputError: `llm_d_engine`, or `llm_d_single_host`: the bases are Deployments, whose pods are one node each.
    """
    _check(launch)
    service = launch.joined.service
    wide = {role: len(plan.replicas[0].nodes) for role, plan in launch.pools.items()}
    if max(wide.values()) > 1:
        raise InputError.single(
            "--target",
            "llm_d_single_host: llm-d's bases for Kustomize have one node for each worker, got workers of "
            f"{wide['prefill']} and {wide['decode']} nodes: take disaggregatedset",
        )
    image, colon, tag = image_of(service)[0].rpartition(":")
    named = {"newName": image, "newTag": tag} if colon and "/" not in tag else {"newName": image_of(service)[0]}
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [BASE.format(engine=service.engine)],
        "namePrefix": f"{instance_name(service)[1]}-",
        "components": [SIDECAR_IMAGE],
        "images": [{"name": "REPLACE_MODEL_SERVER_IMAGE", **named}],
        "labels": [{"pairs": labels(launch), "includeSelectors": True, "includeTemplates": True}],
        "patches": [{"path": f"patch-{role}.yaml"} for role in ROLES],
    }
    files = {"kustomization.yaml": OutFile(text=to_yaml(made))}
    for role in ROLES:
        files[f"patch-{role}.yaml"] = OutFile(text=to_yaml(patch(launch, role)))
    return files


def set_files(launch: PoolLaunch) -> dict[str, OutFile]:
    """One DisaggregatedSet. Raises `InputError`: `llm_d_engine`."""
    _check(launch)
    return {"disaggregatedset.yaml": OutFile(text=to_yaml(disaggregated_set(launch)))}


OF_ANY_POD = ("llm-d.ai/model", "llm-d.ai/engine-type")
"""Labels that select no pod."""


def labels(launch: PoolLaunch) -> dict[str, str]:
    """What llm-d's router selects by, and what says which engine and model they are."""
    service = launch.joined.service
    return {
        "llm-d.ai/inference-serving": "true",
        "llm-d.ai/guide": GUIDE,
        "llm-d.ai/model": dns_label(service.model.rpartition("/")[2])[:63],
        "llm-d.ai/engine-type": service.engine,
    }


def patch(launch: PoolLaunch, role: str) -> dict[str, Any]:
    """What the Deployment of a pool has that llm-d's does not: replicas, command, variables and GPUs."""
    plan = _listening(launch.pools[role], role)
    spec = _pod(plan, role, 0)
    return plain(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": role},
            "spec": {"replicas": len(plan.replicas), "template": {"spec": spec}},
        }
    )


def disaggregated_set(launch: PoolLaunch) -> dict[str, Any]:
    """Both pools as roles of one slice, each a LeaderWorkerSet whose groups are workers."""
    service = launch.joined.service
    return plain(
        {
            "apiVersion": "disaggregatedset.x-k8s.io/v1",
            "kind": "DisaggregatedSet",
            "metadata": {
                "name": instance_name(service)[1],
                "labels": labels(launch),
                "annotations": {"autotune/plan": service.plan, "autotune/study": one_line(service.name)},
            },
            "spec": {"slices": 1, "roles": [_role(launch, role) for role in ROLES]},
        }
    )


def _role(launch: PoolLaunch, role: str) -> dict[str, Any]:
    plan = _listening(launch.pools[role], role)
    replica = plan.replicas[0]

    def template(index: int) -> dict[str, Any]:
        spec, own = _pod(plan, role, index), labels(launch) | {"llm-d.ai/role": role}
        if replica.processes[index].http_port is None:  # the router sends requests to every pod that it selects
            own = {name: value for name, value in own.items() if name in OF_ANY_POD}
        elif role == "decode":
            spec["initContainers"] = [_routing_proxy(plan.service.engine)]
        return {"metadata": {"labels": own}, "spec": spec}

    many = len(replica.nodes) > 1
    return {
        "name": role,
        "spec": {
            "replicas": len(plan.replicas),
            "groupIdentity": "Hash",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "leaderWorkerTemplate": {
                "size": len(replica.nodes),
                **({"leaderTemplate": template(0)} if many else {}),
                "workerTemplate": template(1 if many else 0),
            },
        },
    }


def _routing_proxy(engine: str) -> dict[str, Any]:
    return {
        "name": "routing-proxy",
        "image": SIDECAR,
        "args": [
            "--port=8000",
            f"--vllm-port={PORTS['decode']}",
            f"--kv-connector={CONNECTORS[engine]}",
            "--secure-proxy=false",
        ],
        "ports": [{"name": "sidecar", "containerPort": 8000}],
        "restartPolicy": "Always",
        "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True},
    }


def _check(launch: PoolLaunch) -> None:
    engine = launch.joined.service.engine
    if engine not in ENGINES_TAKEN:
        raise InputError.single(
            "--target", f"llm_d_engine: llm-d's guide has pools of {' and '.join(ENGINES_TAKEN)}, got {engine}"
        )


def _listening(plan: LaunchPlan, role: str) -> LaunchPlan:
    """The pool with its servers on the port that llm-d expects."""

    def moved(replica: Replica) -> Replica:
        return replace(replica, processes=tuple(own_network(p, PORTS[role]) for p in replica.processes))

    return replace(plan, replicas=tuple(moved(r) for r in plan.replicas))


def _pod(plan: LaunchPlan, role: str, index: int) -> dict[str, Any]:
    """The pod of one node of a worker."""
    container = server_container(plan, plan.replicas[0].processes[index])
    container["name"] = NAME
    container["env"] += ENVIRONMENT[plan.service.engine]
    if "ports" in container:
        container["ports"] = [{"name": NAME, "containerPort": PORTS[role]}, *_pool_port(plan.service.engine, role)]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            container[probe]["httpGet"] = container[probe]["httpGet"] | {"port": NAME}
    return pod_spec(plan, with_device(container))


def _pool_port(engine: str, role: str) -> list[dict[str, Any]]:
    """Where the other pool asks for caches."""
    return [{"name": "caches", "containerPort": port} for port in pool_ports(engine, role, 0, 1, head=True)]
