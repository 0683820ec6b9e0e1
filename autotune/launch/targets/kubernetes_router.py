"""An engine's router on Kubernetes: it finds the servers by their labels, for which it may read pods."""

from __future__ import annotations

from typing import Any

from autotune.engines import Router
from autotune.launch.plan import LaunchPlan
from autotune.launch.targets.container import image_of, instance_name
from autotune.launch.targets.kubernetes_pod import (
    HOME_OF_NOBODY,
    NAME,
    PORT_NAME,
    RESTRICTED_CONTAINER,
    RESTRICTED_POD,
    labels,
)


def router_documents(plan: LaunchPlan, router: Router) -> list[dict[str, Any]]:
    """Account, right to read pods, and the Deployment."""
    _, instance = instance_name(plan.service)
    named = f"{instance}-router"
    metadata = {"name": named, "labels": labels(plan)}
    subject = {"kind": "ServiceAccount", "name": named}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": named},
            "subjects": [subject],
        },
        _deployment(plan, router, metadata),
    ]


def _deployment(plan: LaunchPlan, router: Router, metadata: dict[str, Any]) -> dict[str, Any]:
    own = labels(plan, component="router")
    image, _ = image_of(plan.service)
    name, _ = instance_name(plan.service)
    command = router.discovering_command(
        [f"{NAME}={name}", "app.kubernetes.io/component=server"],
        server_port=plan.replicas[0].head.http_port or 0,
        namespace="$(POD_NAMESPACE)",
    )
    words = [a for a in command if isinstance(a, str)]
    probe = {"httpGet": {"path": router.live_path, "port": PORT_NAME}, "periodSeconds": 10, "failureThreshold": 6}
    container = {
        "name": "router",
        "image": image,
        "command": words[:1],
        "args": words[1:],
        "env": [
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            HOME_OF_NOBODY,
        ],
        "securityContext": RESTRICTED_CONTAINER,
        "ports": [{"name": PORT_NAME, "containerPort": router.port}],
        "readinessProbe": {"httpGet": {"path": router.ready_path, "port": PORT_NAME}, "periodSeconds": 10},
        "livenessProbe": probe,
        "resources": {"requests": {"cpu": "4", "memory": "8Gi"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,  # the prefixes that it remembers are its own
            "selector": {"matchLabels": own},
            "template": {
                "metadata": {"labels": own},
                "spec": {
                    "serviceAccountName": metadata["name"],
                    "securityContext": RESTRICTED_POD,
                    "containers": [container],
                },
            },
        },
    }
