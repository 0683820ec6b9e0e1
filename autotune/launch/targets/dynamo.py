"""NVIDIA Dynamo: a DynamoGraphDeployment of a frontend and the plan's replicas, or workers of both pools.

The operator (deploy/operator/internal/dynamo/backend_*.go) adds to a worker's command what joins its nodes. To vLLM's:
`--nnodes --node-rank --master-addr` where a data-parallel rank spans nodes, `--data-parallel-size-local
--data-parallel-start-rank --data-parallel-address --data-parallel-hybrid-lb` where several fit one; it reads tensor,
pipeline and data parallelism from the arguments and runs them through a shell. To SGLang's: `--dist-init-addr --nnodes
--node-rank`. TensorRT-LLM's it starts by MPI over ssh; sizes and layout stand in a file of a ConfigMap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autotune.engines import ENGINES, DynamoBackend
from autotune.engines.command_line import FilePath
from autotune.engines.service import Service
from autotune.files import OutFile
from autotune.launch.plan import LaunchPlan, NodeProcess
from autotune.launch.quoting import one_line, to_yaml
from autotune.launch.targets.bench_job import FILE as BENCH
from autotune.launch.targets.bench_job import RESULT_MARK, bench_job
from autotune.launch.targets.container import (
    FILES_AT,
    SHM_GIB,
    amd,
    files_name,
    instance_name,
    mounted_model,
    needs_rdma,
    plain,
)
from autotune.launch.targets.kubernetes_pod import (
    MAY_PIN,
    PROBE_S,
    hf_token,
    model_mount,
    model_volume,
    placed,
    resources,
    toleration,
    with_device,
    with_rdma,
)
from autotune.launch.targets.scripts import rank_file
from autotune.study.wider_search import LocalPrefill
from costmodel.errors import InputError

FILE = "dynamographdeployment.yaml"
WORKER = "worker"
RELEASE = "1.6.1"
PORT = 8000
SYSTEM_PORT = "system"
"""Name of the port at which the operator's workers say that they live (deploy/operator/internal/consts/consts.go)."""
USER = 1000
CACHE = "/home/dynamo/.cache/huggingface"
"""Dynamo's images run as this user, who has the hub's cache there (docs/backends/sglang, container/templates)."""
_SAFE = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._/@:+=, -]*")
"""Names that every operator with this API hands on whole: its quoting leaves `;`, `&` and `|` to the shell."""
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+)(?![\w.])")
"""A tag that says Dynamo's version, as NVIDIA's do; of others the operator needs it said."""


def dynamo_files(plan: LaunchPlan) -> dict[str, OutFile]:
    """The deployment and a job that measures it.

    Raises:
        InputError: `dynamo_backend`, `dynamo_shell_names`, `dynamo_context_parallel` or `container_image`.
    """
    return graph_files(plan, {WORKER: plan})


def graph_files(
    whole: LaunchPlan, workers: Mapping[str, LaunchPlan], local: LocalPrefill | None = None
) -> dict[str, OutFile]:
    """The same of a plan whose workers are of several kinds; raises the same.

    `local`: prompts that the frontend sends straight to workers that decode; None: none.
    """
    for plan in workers.values():
        _check(plan.service, len(plan.replicas[0].nodes))
    places = {node: f"worker {r.index}, node {i}" for r in whole.replicas for i, node in enumerate(r.nodes)}
    client = whole.engine.bench_image() or image_of(whole.service)
    job = bench_job(whole, base_url=frontend_address(whole), image=client, openai_alone=True)
    return {
        "ranks.json": rank_file(whole, places),
        FILE: OutFile(text="---\n".join(to_yaml(d) for d in documents(whole.service, workers, local))),
        BENCH: OutFile(text=to_yaml(job)),
    }


def _check(service: Service, nodes: int) -> None:
    backend(service)
    if service.hybrid_lb:
        raise InputError.single("--hybrid-lb", "dynamo_hybrid_lb: the operator decides which nodes answer")
    if not _SAFE.fullmatch(service.model):
        raise InputError.single(
            "--model",
            "dynamo_shell_names: the operator runs the command of several nodes through a shell, so that a model's "
            f"name must hold letters, digits, spaces and ._/@:+=,- only, got {one_line(service.model)!r}",
        )
    if backend(service).counts_degrees and service.layout.attn_cp > 1 and nodes > 1:
        raise InputError.single(
            "plan",
            "dynamo_context_parallel: the operator counts tensor x pipeline x data parallelism when it joins nodes, "
            f"got attn_cp={service.layout.attn_cp} over {nodes} nodes",
        )


def backend(service: Service) -> DynamoBackend:
    """Dynamo's backend of the engine. Raises `InputError`: `dynamo_backend`."""
    found = ENGINES[service.engine].dynamo
    if found is None:
        raise InputError.single("--target", f"dynamo_backend: dynamo is not written for {service.engine}")
    return found


def image_of(service: Service) -> str:
    """The image. Raises `InputError`: `container_image`."""
    if service.image is not None:
        return service.image
    if amd(service):
        raise InputError.single("--image", "container_image: no image of Dynamo is known for AMD GPUs: name one")
    return backend(service).image.format(release=RELEASE)


def runtime_version(image: str) -> str:
    """Dynamo's version in an image, which the operator needs to know: by its tag, else the release written for."""
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    found = _VERSION.match(tag)
    return RELEASE if found is None else found[1]


def image_assumptions(service: Service) -> tuple[str, ...]:
    """What was assumed of the image."""
    if service.image is not None:
        version = runtime_version(service.image)
        return (f"Dynamo in the image: {version} (`runtimeVersionOverride`)",)
    title = ENGINES[service.engine].title
    seen = f"docs.nvidia.com/dynamo/v{RELEASE}/reference/compatibility"
    return (f"image not given: {image_of(service)}, which has {title} {backend(service).version} ({seen})",)


def worker_argv(service: Service, process: NodeProcess, role: str = WORKER) -> list[str]:
    """Arguments of the worker: the server's own, without those that the operator adds, and its role."""
    known, engine = backend(service), ENGINES[service.engine]
    own = list(process.argv)
    own = own[own.index(engine.programs[0][-1]) + 1 :]
    out = [known.model_option, str(own.pop(0))] if engine.model_is_positional else []
    rest = iter(own)
    for word in rest:
        if word in known.operator_options:
            for _ in range(known.operator_options[str(word)]):
                next(rest)
        elif word in known.table_options:
            out += [f"{word}.{key}={value}" for key, value in json.loads(str(next(rest))).items()]
        elif isinstance(word, FilePath):
            out[-1:] = [known.file_option, f"{FILES_AT}/{word.name}"]
        else:
            out.append(str(word))
    said = [] if role == WORKER or known.roles_are_the_servers else ["--disaggregation-mode", role]
    return [*out, *known.own_options, *said]


def document(plan: LaunchPlan) -> dict[str, Any]:
    """The DynamoGraphDeployment of a plan of one kind of replica."""
    return documents(plan.service, {WORKER: plan})[-1]


def documents(
    service: Service, workers: Mapping[str, LaunchPlan], local: LocalPrefill | None = None
) -> list[dict[str, Any]]:
    """The DynamoGraphDeployment, of the API version that the operator stores, behind the files that workers read.

    `workers`: of each kind: `worker` where all do everything, else by role; `local` as that of `graph_files`.
    """
    routed = [] if local is None else _router_environment(local)
    name, instance = instance_name(service)
    image = image_of(service)
    frontend = {
        "name": "Frontend",
        "type": "frontend",
        "runtimeVersionOverride": runtime_version(image),
        "replicas": 1,
        "podTemplate": {"spec": {"containers": [{"name": "main", "image": image, "env": [*routed, hf_token()]}]}},
    }
    metadata = {
        "name": instance,
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "autotune"},
        "annotations": {"autotune/plan": service.plan, "autotune/study": one_line(service.name)}
        | dict(backend(service).annotations),
    }
    files_at = files_name(service)
    components = [frontend, *(_component(role, plan, image, files_at) for role, plan in workers.items())]
    if local is not None:
        for worker in components[1:]:
            worker["podTemplate"]["spec"]["containers"][0]["args"] += backend(service).event_arguments
    graph = {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": "DynamoGraphDeployment",
        "metadata": metadata,
        "spec": {"backendFramework": backend(service).framework, "components": components},
    }
    files = {_file(role, name): to_yaml(held) for role, plan in workers.items() for name, held in plan.files.items()}
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": files_at}, "data": files}
    return [plain(d) for d in ([held] if files else []) + [graph]]


def _router_environment(local: LocalPrefill) -> list[dict[str, str]]:
    """Variables of Dynamo's frontend: prompts with fewer tokens to compute than the threshold skip the prefill pool."""
    config = {"policy": "isl_bounding", "eff_isl_threshold": local.max_tokens + 1, "eff_isl_ratio_threshold": 1.0}
    values = {
        "DYN_ROUTER_MODE": "kv",
        "DYN_ROUTER_CONDITIONAL_DISAGG": "true",
        "DYN_ROUTER_CONDITIONAL_DISAGG_CONFIG": json.dumps(config, separators=(",", ":")),
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def _file(role: str, name: str) -> str:
    return name if role == WORKER else f"{role}-{name}"


def _component(role: str, plan: LaunchPlan, image: str, files_at: str) -> dict[str, Any]:
    replica = plan.replicas[0]
    worker: dict[str, Any] = {
        "name": role,
        "type": role,
        "runtimeVersionOverride": runtime_version(image),
        "replicas": len(plan.replicas),
        "sharedMemorySize": f"{SHM_GIB}Gi",
        "podTemplate": {"spec": _worker_pod(role, plan, image, files_at)},
    }
    if len(replica.nodes) > 1:
        worker["multinode"] = {"nodeCount": len(replica.nodes)}
    return worker


def _worker_pod(role: str, plan: LaunchPlan, image: str, files_at: str) -> dict[str, Any]:
    service, process = plan.service, plan.replicas[0].head
    process = replace(
        process, argv=tuple(FilePath(name=_file(role, a.name)) if isinstance(a, FilePath) else a for a in process.argv)
    )
    env: list[dict[str, Any]] = [{"name": k, "value": v} for k, v in process.env.items() if k != "CUDA_VISIBLE_DEVICES"]
    if role != WORKER and (variable := backend(service).address_variable):
        env.append({"name": variable, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    container: dict[str, Any] = {
        "name": "main",
        "image": image,
        "command": ["python3", "-m", backend(service).module],
        "args": worker_argv(service, process, role),
        "env": [*env, hf_token()],
        "resources": resources(service, len(process.gpus)),
        "volumeMounts": [model_mount(service, CACHE)],
    }
    # the operator's own gives up after two hours, which fetching a large model may take
    container["startupProbe"] = {
        "httpGet": {"path": "/live", "port": SYSTEM_PORT},
        "periodSeconds": PROBE_S,
        "timeoutSeconds": PROBE_S,
        "failureThreshold": plan.start_s // PROBE_S,
    }
    if plan.reaches_nodes:
        container["securityContext"] = MAY_PIN
    if role != WORKER:  # caches go from pool to pool by RDMA; pods may share a node, and so have networks of their own
        container = with_device(container)
    volumes = [model_volume(service)]
    if plan.files:
        container["volumeMounts"].append({"name": "files", "mountPath": FILES_AT, "readOnly": True})
        volumes.append({"name": "files", "configMap": {"name": files_at}})
    spec = {**placed(plan), "tolerations": [toleration(service)], "containers": [container], "volumes": volumes}
    if mounted_model(service) is None:
        spec["initContainers"] = [_cache_owner(service, image)]
    return with_rdma(spec, plan) if needs_rdma(plan) else spec


def _cache_owner(service: Service, image: str) -> dict[str, Any]:
    """Gives the folder on the node, which the kubelet makes as root, to the user who writes into it."""
    return {
        "name": "cache-owner",
        "image": image,
        "command": ["chown", str(USER), CACHE],
        "volumeMounts": [model_mount(service, CACHE)],
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
        },
    }


def frontend_address(plan: LaunchPlan) -> str:
    """The Service that the operator makes for the frontend (`GetDCDResourceName`: lower-case DEPLOYMENT-COMPONENT)."""
    _, instance = instance_name(plan.service)
    return f"http://{instance}-frontend:{PORT}"


def _privileges(plan: LaunchPlan) -> list[str]:
    """What workers do that the Pod Security Standards `baseline` and `restricted` do not allow."""
    out = ["have the model from the node (`hostPath`)"]
    if mounted_model(plan.service) is None:
        out.append(f"give its folder to the image's user {USER} in a container of root")
    if plan.reaches_nodes:
        out.append("pin memory for RDMA (`IPC_LOCK`)")
    if needs_rdma(plan):
        out.append("use the network of the node (`hostNetwork`)")
    return out


def words(plan: LaunchPlan) -> dict[str, Any]:
    """What the README's template asks for."""
    return {
        "instance": instance_name(plan.service)[1],
        "named": plan.service.instance is not None,
        "release": RELEASE,
        "manifest": FILE,
        "address": frontend_address(plan),
        "rdma": needs_rdma(plan),
        "privileges": _privileges(plan),
        "in_place": False,
        "result_mark": RESULT_MARK,
    }
