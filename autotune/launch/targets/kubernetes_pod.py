"""The pods of a plan on Kubernetes: containers, probes, resources, volumes, labels."""

from __future__ import annotations

from typing import Any

from autotune.engines.service import Service
from autotune.launch.gpu_types import node_selector
from autotune.launch.plan import LaunchPlan, NodeProcess
from autotune.launch.targets.container import (
    CACHE_AT,
    FILES_AT,
    SHM_GIB,
    STOP_S,
    Spot,
    container_argv,
    device,
    environment,
    files_name,
    image_of,
    instance_name,
    mounted_model,
    needs_rdma,
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
RDMA = "rdma/ib"
"""Resource by which device plugins hand out RDMA; clusters name it as they like."""
CACHE_ON_NODE = "/var/lib/huggingface"
"""Where a node keeps what it has loaded from the hub, so that a pod that is started again need not."""


NOBODY = 65534
"""User of pods that need no root."""
RESTRICTED_POD = {
    "runAsNonRoot": True,
    "runAsUser": NOBODY,
    "runAsGroup": NOBODY,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""The security contexts that Kubernetes' Pod Security Standard `restricted` asks for."""
MAY_PIN = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}}
"""Of a container whose NCCL and RDMA pin memory."""
NETWORK = "network"
_INTERFACES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
HOME_OF_NOBODY = {"name": "HOME", "value": "/tmp"}  # noqa: S108  # of the container


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
    env.append(hf_token())
    container: dict[str, Any] = {
        "name": "server",
        "image": image,
        # what is computed from the rank is added by a shell, which gets everything else as arguments
        "command": ["bash", "-c", f'exec "$$@" {computed}', "server"] if computed else words[:1],
        "args": words if computed else words[1:],
        "env": env,
        "resources": resources(plan.service, len(process.gpus)),
        "volumeMounts": _mounts(plan),
    }
    # the images keep caches and compile kernels below /root, so that their user stays root
    container["securityContext"] = MAY_PIN if plan.reaches_nodes else RESTRICTED_CONTAINER
    if process.http_port is not None:
        container |= {"ports": [{"name": PORT_NAME, "containerPort": port}]} | _probes(plan)
        # requests still come for a moment after the pod has left the Service
        container["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", "15"]}}}
    return container


def resources(service: Service, gpus: int) -> dict[str, Any]:
    """What a container with so many GPUs asks for."""
    asked = {device(service): str(gpus), "cpu": str(CPUS_PER_GPU * gpus), "memory": f"{MEMORY_GIB_PER_GPU * gpus}Gi"}
    return {"limits": {device(service): str(gpus)}, "requests": asked}


def hf_token() -> dict[str, Any]:
    """Variable with a token for models that need one, if the cluster has the secret."""
    secret = {"name": "hf-token", "key": "token", "optional": True}
    return {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}}


def _probes(plan: LaunchPlan) -> dict[str, Any]:
    get = {"path": plan.engine.health_path, "port": PORT_NAME}

    def probe(period_s: int, failures: int) -> dict[str, Any]:
        return {"httpGet": get, "periodSeconds": period_s, "timeoutSeconds": PROBE_S, "failureThreshold": failures}

    return {
        "startupProbe": probe(PROBE_S, plan.start_s // PROBE_S),
        "readinessProbe": probe(PROBE_S, 3),
        "livenessProbe": probe(30, 6),
    }


def pod_spec(plan: LaunchPlan, container: dict[str, Any]) -> dict[str, Any]:
    """The pod around a server's container."""
    spec = {
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": STOP_S,
        **placed(plan),
        "tolerations": [toleration(plan.service)],
        "containers": [container],
        "volumes": _volumes(plan),
    }
    return with_rdma(spec, plan) if needs_rdma(plan) else spec


def placed(plan: LaunchPlan) -> dict[str, Any]:
    """The field of a pod that says on which nodes it may be; none where any will do."""
    selector = node_selector(plan)
    return {"nodeSelector": selector} if selector else {}


def with_rdma(spec: dict[str, Any], plan: LaunchPlan) -> dict[str, Any]:
    """A pod that writes into other nodes' memory: in its node's network, with the device, and told its address.

    The interface is what the cluster's ConfigMap `network` names, where there is one.
    """
    (container,) = spec["containers"]
    interface = {"name": NETWORK, "key": "interface", "optional": True}
    env = [{"name": name, "valueFrom": {"configMapKeyRef": interface}} for name in _INTERFACES]
    if plan.engine.host_variable is not None:
        env.append({"name": plan.engine.host_variable, "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}})
    container = with_device({**container, "env": [*container["env"], *env]})
    return {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet", **spec, "containers": [container]}


def with_device(container: dict[str, Any]) -> dict[str, Any]:
    """A container with an RDMA device, which may pin memory."""
    limits = {**container["resources"]["limits"], RDMA: "1"}
    return {**container, "resources": {**container["resources"], "limits": limits}, "securityContext": MAY_PIN}


def toleration(service: Service) -> dict[str, Any]:
    """Nodes with GPUs are often kept for pods that ask for them."""
    return {"key": device(service), "operator": "Exists", "effect": "NoSchedule"}


def model_volume(service: Service) -> dict[str, Any]:
    """The model's folder on the node, or the hub's cache there."""
    model = mounted_model(service)
    held = {"path": model, "type": "Directory"} if model else {"path": CACHE_ON_NODE, "type": "DirectoryOrCreate"}
    return {"name": "model", "hostPath": held}


def model_mount(service: Service, cache: str = CACHE_AT) -> dict[str, Any]:
    """Where a container sees `model_volume`, whose user has the hub's cache in the folder `cache`."""
    model = mounted_model(service)
    return {"name": "model"} | ({"mountPath": model, "readOnly": True} if model else {"mountPath": cache})


def _volumes(plan: LaunchPlan) -> list[dict[str, Any]]:
    """Shared memory, the model, and configuration files."""
    shared = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{SHM_GIB}Gi"}}
    out: list[dict[str, Any]] = [shared, model_volume(plan.service)]
    if plan.files:
        out.append({"name": "files", "configMap": {"name": files_name(plan.service)}})
    return out


def _mounts(plan: LaunchPlan) -> list[dict[str, Any]]:
    """Where a container sees `_volumes`."""
    out = [{"name": "shm", "mountPath": "/dev/shm"}, model_mount(plan.service)]  # noqa: S108  # of the container
    if plan.files:
        out.append({"name": "files", "mountPath": FILES_AT, "readOnly": True})
    return out
