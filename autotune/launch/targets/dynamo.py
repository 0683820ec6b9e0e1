"""NVIDIA Dynamo: a DynamoGraphDeployment for the vLLM backend, a frontend and the plan's replicas as workers.

The operator (deploy/operator/internal/dynamo/backend_vllm.go) adds to a worker's command what joins its nodes:
`--nnodes --node-rank --master-addr` where a data-parallel rank spans nodes, `--data-parallel-size-local
--data-parallel-start-rank --data-parallel-address --data-parallel-hybrid-lb` where several fit one. It reads tensor,
pipeline and data parallelism from the arguments and runs them through a shell.
"""

from __future__ import annotations

import json
import re
from typing import Any

from autotune.files import OutFile
from autotune.launch.bench import Drive, bench_command, requests
from autotune.launch.plan import LaunchPlan, NodeProcess, Service
from autotune.launch.quoting import one_line, to_yaml
from autotune.launch.targets.kubernetes import RESULT_MARK
from autotune.launch.targets.kubernetes_pod import CACHE_ON_NODE, CPUS_PER_GPU, MEMORY_GIB_PER_GPU, hf_token
from autotune.launch.targets.pods import CACHE_AT, SHM_GIB, amd, device, instance_name, mounted_model, plain
from autotune.launch.targets.scripts import rank_file
from costmodel.errors import InputError

FILE = "dynamographdeployment.yaml"
BENCH = "bench-job.yaml"
RELEASE = "1.6.1"
VLLM = "0.31.0"
"""vLLM of that release (docs.nvidia.com/dynamo/v1.6.1/reference/compatibility)."""
IMAGE = f"nvcr.io/nvidia/ai-dynamo/vllm-runtime:{RELEASE}"
PORT = 8000
NODE_FLAGS = {
    "--data-parallel-size-local": 1,
    "--data-parallel-address": 1,
    "--data-parallel-rpc-port": 1,
    "--data-parallel-start-rank": 1,
    "--data-parallel-hybrid-lb": 0,
    "--nnodes": 1,
    "--node-rank": 1,
    "--master-addr": 1,
    "--master-port": 1,
    "--headless": 0,
    "--host": 1,
    "--port": 1,
}
"""Options that the operator or the runtime sets by itself -> how many values they take."""
_SAFE = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._/@:+=, -]*")
"""Names that every operator with this API hands on whole: its quoting leaves `;`, `&` and `|` to the shell."""


def dynamo_files(plan: LaunchPlan) -> dict[str, OutFile]:
    """The deployment and a job that measures it.

    Raises:
        InputError: `dynamo_backend`, `dynamo_shell_names`, `dynamo_context_parallel` or `container_image`.
    """
    _check(plan)
    places = {node: f"worker {r.index}, node {i}" for r in plan.replicas for i, node in enumerate(r.nodes)}
    return {
        "ranks.json": rank_file(plan, places),
        FILE: OutFile(text=to_yaml(document(plan))),
        BENCH: OutFile(text=to_yaml(bench_job(plan))),
    }


def _check(plan: LaunchPlan) -> None:
    service = plan.service
    if service.engine != "vllm":
        raise InputError.single("--target", f"dynamo_backend: dynamo is written for vLLM, got {service.engine}")
    if service.hybrid_lb:
        raise InputError.single("--hybrid-lb", "dynamo_hybrid_lb: the operator decides which nodes answer")
    if not _SAFE.fullmatch(service.model):
        raise InputError.single(
            "--model",
            "dynamo_shell_names: the operator runs the command of several nodes through a shell, so that a model's "
            f"name must hold letters, digits, spaces and ._/@:+=,- only, got {one_line(service.model)!r}",
        )
    if service.layout.attn_cp > 1 and len(plan.replicas[0].nodes) > 1:
        raise InputError.single(
            "plan",
            "dynamo_context_parallel: the operator counts tensor x pipeline x data parallelism when it joins nodes, "
            f"got attn_cp={service.layout.attn_cp} over {len(plan.replicas[0].nodes)} nodes",
        )


def image_of(service: Service) -> str:
    """The image. Raises `InputError`: `container_image`."""
    if service.image is not None:
        return service.image
    if amd(service):
        raise InputError.single("--image", "container_image: no image of Dynamo is known for AMD GPUs: name one")
    return IMAGE


def worker_argv(process: NodeProcess) -> list[str]:
    """Arguments of `dynamo.vllm`: the server's own, without those that the operator adds."""
    words = [a if isinstance(a, str) else "" for a in process.argv][2:]  # without `vllm serve`
    out = ["--model", words[0]]
    rest = iter(words[1:])
    for word in rest:
        if word in NODE_FLAGS:
            for _ in range(NODE_FLAGS[word]):
                next(rest)
        elif word == "--eplb-config":  # JSON would have to survive a shell
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
        "replicas": len(plan.replicas),
        "sharedMemorySize": f"{SHM_GIB}Gi",
        "podTemplate": {"spec": _worker_pod(plan, image)},
    }
    if len(replica.nodes) > 1:
        worker["multinode"] = {"nodeCount": len(replica.nodes)}
    frontend = {
        "name": "Frontend",
        "type": "frontend",
        "replicas": 1,
        "podTemplate": {"spec": {"containers": [{"name": "main", "image": image, "env": [_token()]}]}},
    }
    metadata = {
        "name": instance,
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "autotune"},
        "annotations": {
            "autotune/plan": service.plan,
            "autotune/study": one_line(service.name),
            "nvidia.com/vllm-distributed-executor-backend": "mp",
        },
    }
    return plain(
        {
            "apiVersion": "nvidia.com/v1beta1",
            "kind": "DynamoGraphDeployment",
            "metadata": metadata,
            "spec": {"backendFramework": "vllm", "components": [frontend, worker]},
        }
    )


def _token() -> dict[str, Any]:
    return {"name": "HF_TOKEN", "valueFrom": hf_token()}


def _worker_pod(plan: LaunchPlan, image: str) -> dict[str, Any]:
    service = plan.service
    process = plan.replicas[0].processes[0]
    gpus = len(process.gpus)
    model = mounted_model(service)
    held = {"path": model, "type": "Directory"} if model else {"path": CACHE_ON_NODE, "type": "DirectoryOrCreate"}
    at = {"mountPath": model, "readOnly": True} if model else {"mountPath": CACHE_AT}
    env = [{"name": k, "value": v} for k, v in process.env.items() if k != "CUDA_VISIBLE_DEVICES"]
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-m", "dynamo.vllm"],
        "args": worker_argv(process),
        "env": [*env, _token()],
        "resources": {
            "limits": {device(service): str(gpus)},
            "requests": {
                device(service): str(gpus),
                "cpu": str(CPUS_PER_GPU * gpus),
                "memory": f"{MEMORY_GIB_PER_GPU * gpus}Gi",
            },
        },
        "volumeMounts": [{"name": "model"} | at],
    }
    return {
        "tolerations": [{"key": device(service), "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [container],
        "volumes": [{"name": "model", "hostPath": held}],
    }


def frontend_address(plan: LaunchPlan) -> str:
    """The Service that the operator makes for the frontend (`GetDCDResourceName`: lower-case DEPLOYMENT-COMPONENT)."""
    _, instance = instance_name(plan.service)
    return f"http://{instance}-frontend:{PORT}"


def bench_job(plan: LaunchPlan) -> dict[str, Any]:
    """Measures the deployment through its frontend and prints the result."""
    load, replicas = plan.service.load, len(plan.replicas)
    name, instance = instance_name(plan.service)
    by_rate = load.request_rate_per_s is not None
    command = bench_command(
        plan.service,
        Drive(
            base_url=frontend_address(plan),
            result="/tmp/result.json",  # noqa: S108  # the container's own
            load=f"{load.request_rate_per_s:.6g}" if by_rate else str(load.concurrency),
            prompts=str(requests(load, replicas, replicas)),
            warmups="1" if by_rate else str(load.concurrency),
            replicas=str(replicas),
        ),
    )
    words = [a for a in command.argv if isinstance(a, str)]
    model = mounted_model(plan.service)
    held = {"path": model, "type": "Directory"} if model else {"path": CACHE_ON_NODE, "type": "DirectoryOrCreate"}
    container = {
        "name": "bench",
        "image": image_of(plan.service),
        "command": ["bash", "-c", f'"$$@" >&2 && printf \'{RESULT_MARK}%s\\n\' "$$(cat /tmp/result.json)"', "bench"],
        "args": words,
        "env": [_token()],
        "volumeMounts": [{"name": "model", "mountPath": model or CACHE_AT, "readOnly": bool(model)}],
        "resources": {"requests": {"cpu": "4", "memory": "16Gi"}},
    }
    spec = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "model", "hostPath": held}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{instance}-bench", "labels": {"app.kubernetes.io/name": name}},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }
