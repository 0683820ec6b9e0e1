"""NVIDIA Dynamo: a DynamoGraphDeployment of a frontend and the plan's replicas, for engines that it has a backend for.

The operator (deploy/operator/internal/dynamo/backend_vllm.go) adds to a worker's command what joins its nodes:
`--nnodes --node-rank --master-addr` where a data-parallel rank spans nodes, `--data-parallel-size-local
--data-parallel-start-rank --data-parallel-address --data-parallel-hybrid-lb` where several fit one. It reads tensor,
pipeline and data parallelism from the arguments and runs them through a shell.
"""

from __future__ import annotations

import json
import re
from typing import Any

from autotune.engines import ENGINES, DynamoBackend
from autotune.engines.service import Service
from autotune.files import OutFile
from autotune.launch.plan import LaunchPlan, NodeProcess
from autotune.launch.quoting import one_line, to_yaml
from autotune.launch.targets.bench_job import FILE as BENCH
from autotune.launch.targets.bench_job import RESULT_MARK, bench_job
from autotune.launch.targets.container import SHM_GIB, amd, instance_name, needs_rdma, plain
from autotune.launch.targets.kubernetes_pod import (
    MAY_PIN,
    PROBE_S,
    hf_token,
    model_mount,
    model_volume,
    resources,
    start_s,
    toleration,
    with_rdma,
)
from autotune.launch.targets.scripts import rank_file
from costmodel.errors import InputError

FILE = "dynamographdeployment.yaml"
RELEASE = "1.6.1"
PORT = 8000
SYSTEM_PORT = "system"
"""Name of the port at which the operator's workers say that they live (deploy/operator/internal/consts/consts.go)."""
_SAFE = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._/@:+=, -]*")
"""Names that every operator with this API hands on whole: its quoting leaves `;`, `&` and `|` to the shell."""
_VERSION = re.compile(r"v?(\d+\.\d+\.\d+)(?![\w.])")
"""A tag that says Dynamo's version, as NVIDIA's do; of others the operator needs it said."""


def dynamo_files(plan: LaunchPlan) -> dict[str, OutFile]:
    """The deployment and a job that measures it.

    Raises:
        InputError: `dynamo_backend`, `dynamo_shell_names`, `dynamo_context_parallel` or `container_image`.
    """
    _check(plan.service, len(plan.replicas[0].nodes))
    places = {node: f"worker {r.index}, node {i}" for r in plan.replicas for i, node in enumerate(r.nodes)}
    job = bench_job(plan, base_url=frontend_address(plan), image=image_of(plan.service))
    return {
        "ranks.json": rank_file(plan, places),
        FILE: OutFile(text=to_yaml(document(plan))),
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
    if service.layout.attn_cp > 1 and nodes > 1:
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
    return (f"image not given: {image_of(service)}, which has {title} {backend(service).version}",)


def worker_argv(service: Service, process: NodeProcess, program_words: int) -> list[str]:
    """Arguments of the worker: the server's own, without those that the operator adds."""
    known = backend(service)
    own = [a if isinstance(a, str) else "" for a in process.argv][program_words:]
    out = ["--model", own.pop(0)] if ENGINES[service.engine].model_is_positional else []
    rest = iter(own)
    for word in rest:
        if word in known.operator_options:
            for _ in range(known.operator_options[word]):
                next(rest)
        elif word in known.table_options:
            out += [f"{word}.{key}={value}" for key, value in json.loads(next(rest)).items()]
        else:
            out.append(word)
    return out


def document(plan: LaunchPlan) -> dict[str, Any]:
    """The DynamoGraphDeployment, of the API version that the operator stores."""
    service = plan.service
    name, instance = instance_name(service)
    image = image_of(service)
    replica = plan.replicas[0]
    worker: dict[str, Any] = {
        "name": "worker",
        "type": "worker",
        "runtimeVersionOverride": runtime_version(image),
        "replicas": len(plan.replicas),
        "sharedMemorySize": f"{SHM_GIB}Gi",
        "podTemplate": {"spec": _worker_pod(plan, image)},
    }
    if len(replica.nodes) > 1:
        worker["multinode"] = {"nodeCount": len(replica.nodes)}
    frontend = {
        "name": "Frontend",
        "type": "frontend",
        "runtimeVersionOverride": runtime_version(image),
        "replicas": 1,
        "podTemplate": {"spec": {"containers": [{"name": "main", "image": image, "env": [hf_token()]}]}},
    }
    metadata = {
        "name": instance,
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "autotune"},
        "annotations": {"autotune/plan": service.plan, "autotune/study": one_line(service.name)}
        | dict(backend(service).annotations),
    }
    return plain(
        {
            "apiVersion": "nvidia.com/v1beta1",
            "kind": "DynamoGraphDeployment",
            "metadata": metadata,
            "spec": {"backendFramework": backend(service).framework, "components": [frontend, worker]},
        }
    )


def _worker_pod(plan: LaunchPlan, image: str) -> dict[str, Any]:
    service, process = plan.service, plan.replicas[0].head
    env = [{"name": k, "value": v} for k, v in process.env.items() if k != "CUDA_VISIBLE_DEVICES"]
    container: dict[str, Any] = {
        "name": "main",
        "image": image,
        "command": ["python3", "-m", backend(service).module],
        "args": worker_argv(service, process, plan.program_words),
        "env": [*env, hf_token()],
        "resources": resources(service, len(process.gpus)),
        "volumeMounts": [model_mount(service)],
    }
    # the operator's own gives up after two hours, which fetching a large model may take
    container["startupProbe"] = {
        "httpGet": {"path": "/live", "port": SYSTEM_PORT},
        "periodSeconds": PROBE_S,
        "timeoutSeconds": PROBE_S,
        "failureThreshold": start_s(plan) // PROBE_S,
    }
    if len(plan.replicas[0].nodes) > 1:
        container["securityContext"] = MAY_PIN
    spec = {"tolerations": [toleration(service)], "containers": [container], "volumes": [model_volume(service)]}
    return with_rdma(spec, plan) if needs_rdma(plan) else spec


def frontend_address(plan: LaunchPlan) -> str:
    """The Service that the operator makes for the frontend (`GetDCDResourceName`: lower-case DEPLOYMENT-COMPONENT)."""
    _, instance = instance_name(plan.service)
    return f"http://{instance}-frontend:{PORT}"


def words(plan: LaunchPlan) -> dict[str, Any]:
    """What the README's template asks for."""
    return {
        "instance": instance_name(plan.service)[1],
        "release": RELEASE,
        "manifest": FILE,
        "address": frontend_address(plan),
        "rdma": needs_rdma(plan),
        "in_place": False,
        "result_mark": RESULT_MARK,
    }
