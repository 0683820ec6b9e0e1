"""The pods of a plan on Kubernetes: containers, probes, resources, volumes, labels."""

from __future__ import annotations

from typing import Any

from autotune.launch.plan import LaunchPlan, NodeProcess
from autotune.launch.targets.pods import (
    CACHE_AT,
    FILES_AT,
    SHM_GIB,
    STOP_S,
    Spot,
    container_argv,
    device,
    environment,
    image_of,
    instance_name,
    mounted_model,
    own_network,
)

NAME = "app.kubernetes.io/name"
PORT_NAME = "http"
INDEX_LABEL = "leaderworkerset.sigs.k8s.io/worker-index"
RANK = "NODE_RANK"
LEADER = "$(LWS_LEADER_ADDRESS)"
CPUS_PER_GPU = 4
MEMORY_GIB_PER_GPU = 16
PROBE_S = 10
CACHE_ON_NODE = "/var/lib/huggingface"
"""Where a node keeps what it has loaded from the hub, so that a pod that is started again need not."""


def labels(plan: LaunchPlan, component: str | None = None) -> dict[str, str]:
    """Labels of a plan's objects; `component` of its pods: `server` answers requests, `worker` does not."""
    name, instance = instance_name(plan.service)
    out = {NAME: name, "app.kubernetes.io/instance": instance, "app.kubernetes.io/managed-by": "autotune"}
    return out if component is None else out | {"app.kubernetes.io/component": component}


def server_container(plan: LaunchPlan, process: NodeProcess) -> dict[str, Any]:
    """One process of a replica as a container, alone in its network."""
    port = plan.replicas[0].head.http_port or 0
    process = own_network(process, port)
    words, computed = container_argv(process, Spot(leader=LEADER, rank=RANK))
    image, _ = image_of(plan.service)
    env: list[dict[str, Any]] = [{"name": k, "value": v} for k, v in environment(process).items()]
    if process.node_rank:
        env.append({"name": RANK, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX_LABEL}']"}}})
    env.append({"name": "HF_TOKEN", "valueFrom": hf_token()})
    gpus = len(process.gpus)
    many = len(plan.replicas[0].nodes) > 1
    container: dict[str, Any] = {
        "name": "server",
        "image": image,
        # what is computed from the rank is added by a shell, which gets everything else as arguments
        "command": ["bash", "-c", f'exec "$$@" {computed}', "server"] if computed else words[:1],
        "args": words if computed else words[1:],
        "env": env,
        "resources": {
            "limits": {device(plan.service): str(gpus)},
            "requests": {
                device(plan.service): str(gpus),
                "cpu": str(CPUS_PER_GPU * gpus),
                "memory": f"{MEMORY_GIB_PER_GPU * gpus}Gi",
            },
        },
        "volumeMounts": volume_mounts(plan),
    }
    if many:
        container["securityContext"] = {"capabilities": {"add": ["IPC_LOCK"]}}  # RDMA pins memory
    if process.http_port is not None:
        container |= {"ports": [{"name": PORT_NAME, "containerPort": port}]} | _probes(plan)
        # requests still come for a moment after the pod has left the Service
        container["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", "15"]}}}
    return container


def hf_token() -> dict[str, Any]:
    """A token for models that need one, if the cluster has the secret."""
    return {"secretKeyRef": {"name": "hf-token", "key": "token", "optional": True}}


def _probes(plan: LaunchPlan) -> dict[str, Any]:
    get = {"path": plan.health.path, "port": PORT_NAME}

    def probe(period_s: int, failures: int) -> dict[str, Any]:
        return {"httpGet": get, "periodSeconds": period_s, "timeoutSeconds": PROBE_S, "failureThreshold": failures}

    return {
        "startupProbe": probe(PROBE_S, int(plan.health.startup_s) // PROBE_S),
        "readinessProbe": probe(PROBE_S, 3),
        "livenessProbe": probe(30, 6),
    }


def pod_spec(plan: LaunchPlan, container: dict[str, Any]) -> dict[str, Any]:
    """The pod around a server's container."""
    return {
        "terminationGracePeriodSeconds": STOP_S,
        "tolerations": [{"key": device(plan.service), "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [container],
        "volumes": volumes(plan),
    }


def volumes(plan: LaunchPlan) -> list[dict[str, Any]]:
    """Shared memory, the model or the hub's cache, and configuration files."""
    _, instance = instance_name(plan.service)
    model = mounted_model(plan.service)
    held = {"path": model, "type": "Directory"} if model else {"path": CACHE_ON_NODE, "type": "DirectoryOrCreate"}
    out: list[dict[str, Any]] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{SHM_GIB}Gi"}},
        {"name": "model", "hostPath": held},
    ]
    if plan.files:
        out.append({"name": "files", "configMap": {"name": f"{instance}-files"}})
    return out


def volume_mounts(plan: LaunchPlan) -> list[dict[str, Any]]:
    """Where a container sees `volumes`."""
    model = mounted_model(plan.service)
    out: list[dict[str, Any]] = [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  # of the container
        {"name": "model", "mountPath": model, "readOnly": True} if model else {"name": "model", "mountPath": CACHE_AT},
    ]
    if plan.files:
        out.append({"name": "files", "mountPath": FILES_AT, "readOnly": True})
    return out
