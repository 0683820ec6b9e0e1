"""SGLang's router on Kubernetes: it finds the servers by their labels, for which it may read pods."""

from __future__ import annotations

from typing import Any

from autotune.launch.engines.command import CommandLine
from autotune.launch.engines.options import option_list, versions
from autotune.launch.engines.sglang import ROUTER
from autotune.launch.plan import Arg, LaunchPlan, NodeProcess
from autotune.launch.targets.kubernetes_pod import NAME, PORT_NAME, labels
from autotune.launch.targets.pods import image_of, instance_name


def router_documents(plan: LaunchPlan, router: NodeProcess) -> list[dict[str, Any]]:
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


def _deployment(plan: LaunchPlan, router: NodeProcess, metadata: dict[str, Any]) -> dict[str, Any]:
    own = labels(plan, component="router")
    image, _ = image_of(plan.service)
    words = [a for a in _command(plan, router) if isinstance(a, str)]
    probe = {"httpGet": {"path": "/liveness", "port": PORT_NAME}, "periodSeconds": 10, "failureThreshold": 6}
    container = {
        "name": "router",
        "image": image,
        "command": words[:1],
        "args": words[1:],
        "env": [{"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
        "ports": [{"name": PORT_NAME, "containerPort": router.http_port}],
        "readinessProbe": {"httpGet": {"path": "/readiness", "port": PORT_NAME}, "periodSeconds": 10},
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
                "spec": {"serviceAccountName": metadata["name"], "containers": [container]},
            },
        },
    }


def _command(plan: LaunchPlan, router: NodeProcess) -> tuple[Arg, ...]:
    name, _ = instance_name(plan.service)
    line = CommandLine(option_list(ROUTER, versions(ROUTER)[0])).flag("service_discovery")
    line.values("selector", [f"{NAME}={name}", "app.kubernetes.io/component=server"])
    line.value("service_discovery_port", plan.replicas[0].head.http_port or 0)
    line.value("service_discovery_namespace", "$(POD_NAMESPACE)")
    line.value("policy", "cache_aware")
    line.value("host", "0.0.0.0").value("port", router.http_port or 0)  # noqa: S104  # a server for other machines
    return line.done()
