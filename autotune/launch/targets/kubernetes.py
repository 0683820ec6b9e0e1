"""Kubernetes: a Kustomize base. A Deployment where replicas fit a node, a LeaderWorkerSet where they span several.

API of LeaderWorkerSet (kubernetes-sigs/lws, api/leaderworkerset/v1): `LWS_LEADER_ADDRESS` is the leader's name in
every pod, the label `worker-index` the pod's place in its group. The label `nvidia.com/gpu.clique` names the NVLink
domain of a node (NVIDIA's DRA driver and GPU feature discovery).
"""

from __future__ import annotations

from typing import Any

from autotune.files import OutFile
from autotune.launch.plan import LaunchPlan
from autotune.launch.quoting import one_line, to_yaml
from autotune.launch.targets.bench_job import FILE as BENCH
from autotune.launch.targets.bench_job import RESULT_MARK, bench_job
from autotune.launch.targets.container import (
    bench_image,
    files_name,
    image_of,
    instance_name,
    mounted_model,
    needs_rdma,
    plain,
)
from autotune.launch.targets.kubernetes_pod import (
    INDEX_LABEL,
    NAME,
    PORT_NAME,
    labels,
    pod_spec,
    server_container,
)
from autotune.launch.targets.kubernetes_router import router_documents
from autotune.launch.targets.scripts import config_files, rank_file
from costmodel.hardware import Cluster

SERVERS = "servers.yaml"
SERVICE = "service.yaml"
ROUTER = "router.yaml"
KUSTOMIZATION = "kustomization.yaml"
SERVICE_PORT = 8000
HOST = "kubernetes.io/hostname"
DOMAIN = "nvidia.com/gpu.clique"
GROUP_LABEL = "leaderworkerset.sigs.k8s.io/group-index"


def kubernetes_files(plan: LaunchPlan) -> dict[str, OutFile]:
    """Manifests, the Kustomization over them, and what every GPU holds.

    Raises:
        InputError: `container_image` or `mpi_over_containers`.
    """
    resources = {SERVERS: [servers(plan)], SERVICE: [service(plan)]}
    if plan.router is not None and plan.engine.router is not None:
        resources[ROUTER] = router_documents(plan, plan.engine.router)
    files = {name: OutFile(text=_yaml(documents)) for name, documents in resources.items()}
    files |= config_files(plan)
    files[KUSTOMIZATION] = OutFile(text=_yaml([kustomization(plan, list(resources))]))
    job = bench_job(plan, base_url=_address(plan), image=bench_image(plan.service))
    files[BENCH] = OutFile(text=to_yaml(job))
    files["ranks.json"] = rank_file(plan, pod_names(plan))
    return files


def _yaml(documents: list[dict[str, Any]]) -> str:
    return "---\n".join(to_yaml(document) for document in documents)


def spans_nodes(plan: LaunchPlan) -> bool:
    """Whether a replica takes several nodes."""
    return len(plan.replicas[0].nodes) > 1


def pod_names(plan: LaunchPlan) -> dict[int, str]:
    """What stands for a node: the pod on it."""
    _, instance = instance_name(plan.service)
    if not spans_nodes(plan):
        return dict.fromkeys(range(len(plan.nodes)), f"whichever node pods {instance}-… land on")
    return {
        node: f"{instance}-{r.index}" + (f"-{place}" if place else "")
        for r in plan.replicas
        for place, node in enumerate(r.nodes)
    }


def servers(plan: LaunchPlan) -> dict[str, Any]:
    """The Deployment, or the LeaderWorkerSet, of all replicas."""
    _, instance = instance_name(plan.service)
    metadata = {
        "name": instance,
        "labels": labels(plan),
        "annotations": {"autotune/plan": plan.service.plan, "autotune/study": one_line(plan.service.name)},
    }
    make = _leader_worker_set if spans_nodes(plan) else _deployment
    return plain(make(plan, metadata))


def _deployment(plan: LaunchPlan, metadata: dict[str, Any]) -> dict[str, Any]:
    own = labels(plan, component="server")
    template = {
        "metadata": {"labels": own},
        "spec": pod_spec(plan, server_container(plan, plan.replicas[0].processes[0])),
    }
    template["spec"]["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": domain_key(plan.service.cluster),
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": own},
        }
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": len(plan.replicas),
            # loading weights takes longer than Kubernetes' ten minutes
            "progressDeadlineSeconds": plan.start_s + 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": own},
            "template": template,
        },
    }


def _leader_worker_set(plan: LaunchPlan, metadata: dict[str, Any]) -> dict[str, Any]:
    replica = plan.replicas[0]

    def template(index: int) -> dict[str, Any]:
        process = replica.processes[index]
        component = "server" if process.http_port is not None else "worker"
        return {
            "metadata": {"labels": labels(plan, component=component)},
            "spec": pod_spec(plan, server_container(plan, process)) | placement(plan, leader=index == 0),
        }

    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata,
        "spec": {
            "replicas": len(plan.replicas),
            "startupPolicy": "LeaderCreated",  # the leader waits for its workers
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxUnavailable": 1, "maxSurge": 0},
            },
            "leaderWorkerTemplate": {
                "size": len(replica.nodes),
                "restartPolicy": "RecreateGroupOnPodRestart",
                # with one process on the replica's nodes, MPI starts the others: refused before
                "leaderTemplate": template(0),
                "workerTemplate": template(min(1, len(replica.processes) - 1)),
            },
        },
    }


def domain_key(cluster: Cluster) -> str:
    """Node label whose value is the NVLink domain: the host, or the rack where the domain is larger than a host."""
    return DOMAIN if cluster.domain_gpus > cluster.gpus_per_node else HOST


def placement(plan: LaunchPlan, *, leader: bool) -> dict[str, Any]:
    """Where the pods of a group go: a node each; where the NVLink domain is larger than a node, workers follow their
    leader into its domain, and leaders spread over domains.

    Workers name the leader, not each other: the first pod of a group could else pin it to a domain without the leader.
    """
    cluster, size = plan.service.cluster, len(plan.replicas[0].nodes)
    spread = {
        "maxSkew": 1,
        "topologyKey": HOST,
        "whenUnsatisfiable": "DoNotSchedule",
        "nodeTaintsPolicy": "Honor",
        "labelSelector": {"matchLabels": labels(plan)},
    }
    domain = domain_key(cluster)
    if domain == HOST:
        return {"topologySpreadConstraints": [spread]}
    first = {"matchLabels": labels(plan) | {INDEX_LABEL: "0"}}
    if leader:
        apart = {"maxSkew": 1, "topologyKey": domain, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": first}
        return {"topologySpreadConstraints": [spread, apart]}
    term = {"labelSelector": first, "matchLabelKeys": [GROUP_LABEL], "topologyKey": domain}
    inside = size * cluster.gpus_per_node <= cluster.domain_gpus
    affinity = (
        {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        if inside
        else {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    )
    return {"topologySpreadConstraints": [spread], "affinity": {"podAffinity": affinity}}


def service(plan: LaunchPlan) -> dict[str, Any]:
    """One address for all servers that are ready, of this plan and of others of the same study while one is rolled."""
    name, _ = instance_name(plan.service)
    component = "server" if plan.router is None else "router"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {NAME: name}},
        "spec": {
            "selector": {NAME: name, "app.kubernetes.io/component": component},
            "ports": [{"name": PORT_NAME, "port": SERVICE_PORT, "targetPort": PORT_NAME}],
        },
    }


def kustomization(plan: LaunchPlan, resources: list[str]) -> dict[str, Any]:
    """The base: `kubectl apply -k`."""
    image, _ = image_of(plan.service)
    made: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
    }
    if plan.files:
        made["configMapGenerator"] = [{"name": files_name(plan.service), "files": sorted(plan.files)}]
        made["generatorOptions"] = {"disableNameSuffixHash": True}  # the name holds a hash of what is started
    bare, _, digest = image.partition("@")
    name, colon, tag = bare.rpartition(":")
    if digest:
        made["images"] = [{"name": name if colon else bare, "digest": digest}]
    elif colon and "/" not in tag:
        made["images"] = [{"name": name, "newTag": tag}]
    return made


def words(plan: LaunchPlan) -> dict[str, Any]:
    """What the README's template asks for."""
    name, instance = instance_name(plan.service)
    return {
        "many": spans_nodes(plan),
        "privileges": _privileges(plan),
        "rdma": needs_rdma(plan),
        "mounted": mounted_model(plan.service) is not None,
        "name": name,
        "instance": instance,
        "named": plan.service.instance is not None,
        "address": _address(plan),
        "domain": DOMAIN,
        "nvlink_between_nodes": domain_key(plan.service.cluster) == DOMAIN,
        "in_place": False,
        "result_mark": RESULT_MARK,
    }


def _privileges(plan: LaunchPlan) -> list[str]:
    """What servers do that the Pod Security Standards `baseline` and `restricted` do not allow."""
    out = ["run as root, the user of the engine's image, which writes caches and compiled kernels below `/root`"]
    out.append("have the model from the node (`hostPath`)")
    if spans_nodes(plan):
        out.append("pin memory for RDMA (`IPC_LOCK`)")
    if needs_rdma(plan):
        out.append("use the network of the node (`hostNetwork`)")
    return out


def _address(plan: LaunchPlan) -> str:
    return f"http://{instance_name(plan.service)[0]}:{SERVICE_PORT}"
