"""The benchmark as a job of a Kubernetes cluster: it measures from inside and prints the result."""

from __future__ import annotations

from typing import Any

from autotune.launch.bench import fixed_command
from autotune.launch.plan import LaunchPlan
from autotune.launch.targets.container import instance_name, literal, mounted_model, plain
from autotune.launch.targets.kubernetes_pod import (
    HOME_OF_NOBODY,
    NAME,
    RESTRICTED_CONTAINER,
    RESTRICTED_POD,
    hf_token,
    model_mount,
    model_volume,
)

FILE = "bench-job.yaml"
RESULT_MARK = "autotune-result: "
"""Stands in the job's log in front of the result."""
FOLDER = "/tmp"  # noqa: S108  # the container's own


def bench_job(plan: LaunchPlan, *, base_url: str, image: str, openai_alone: bool = False) -> dict[str, Any]:
    """The job, against all replicas behind one address; `image` has the client, `openai_alone` is as in `Drive`."""
    name, instance = instance_name(plan.service)
    replicas = len(plan.replicas)
    command = fixed_command(
        plan.service, base_url=base_url, folder=FOLDER, replicas=replicas, of=replicas, openai_alone=openai_alone
    )
    result = f"{FOLDER}/{plan.engine.bench_result}"
    container: dict[str, Any] = {
        "name": "bench",
        "image": image,
        "command": ["bash", "-c", f'"$$@" >&2 && printf \'{RESULT_MARK}%s\\n\' "$$(cat {result})"', "bench"],
        "args": [literal(a) for a in command.argv if isinstance(a, str)],
        "env": [hf_token(), HOME_OF_NOBODY],
        "resources": {"requests": {"cpu": "4", "memory": "16Gi"}},
        "securityContext": RESTRICTED_CONTAINER,
    }
    spec: dict[str, Any] = {"restartPolicy": "Never", "securityContext": RESTRICTED_POD, "containers": [container]}
    if mounted_model(plan.service) is not None:  # of the hub it fetches the tokenizer alone, which takes no time
        container["volumeMounts"] = [model_mount(plan.service)]
        spec["volumes"] = [model_volume(plan.service)]
    labels = {NAME: name, "app.kubernetes.io/component": "bench"}
    return plain(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"{instance}-bench", "labels": {NAME: name}},
            "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": spec}},
        }
    )
