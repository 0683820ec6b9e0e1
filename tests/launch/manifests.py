"""Manifests against the schemas of their APIs, and read back without a folder around them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from autotune.launch.plan import LaunchPlan
from autotune.launch.reading.containers import containers
from autotune.launch.reading.parse import parse_command
from costmodel.arch import Arch
from costmodel.plan.layout import Layout
from tests.launch.helpers import understood_commands

SCHEMAS = Path(__file__).parent / "schemas"
KUBERNETES = kubernetes_validate.latest_version()


@lru_cache
def schema(name: str) -> jsonschema.Draft7Validator:
    """A validator of one of the schema files."""
    return jsonschema.Draft7Validator(json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8")))


def check(document: dict[str, Any]) -> None:
    """Raises where an object does not keep to its API; fields that the API does not know are wrong too."""
    if document["kind"] == "LeaderWorkerSet":
        schema("leaderworkerset-v1").validate(document)
        template = document["spec"]["leaderWorkerTemplate"]
        check_pod(template["leaderTemplate"])
        check_pod(template["workerTemplate"])
    elif document["kind"] == "DisaggregatedSet":
        schema("disaggregatedset-v1").validate(document)
        for role in document["spec"]["roles"]:
            template = role["spec"]["leaderWorkerTemplate"]
            check_pod(template["workerTemplate"])
            check_pod(template.get("leaderTemplate", template["workerTemplate"]))
    elif document["kind"] == "DynamoGraphDeployment":
        schema("dynamographdeployment-v1beta1").validate(document)
        for component in document["spec"]["components"]:
            check_pod(component["podTemplate"])
    elif document["kind"] != "Kustomization":
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def check_pod(template: dict[str, Any]) -> None:
    """A pod template, as the pod that is made of it."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"} | template.get("metadata", {})}
    kubernetes_validate.validate(pod | {"spec": template["spec"]}, KUBERNETES, strict=True)


def beyond_restricted(spec: dict[str, Any]) -> set[str]:
    """What the pod of a specification does that the Pod Security Standard `restricted` does not allow."""
    pod, out = spec.get("securityContext", {}), set()
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        out.add("host namespaces")
    if any("hostPath" in volume for volume in spec.get("volumes", [])):
        out.add("hostPath")
    for container in spec["containers"]:
        own = container.get("securityContext", {})
        both = pod | own
        if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
            out.add("root")
        if own.get("allowPrivilegeEscalation") is not False:
            out.add("privilege escalation")
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            out.add("capabilities kept")
        if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
            out.add("capabilities added")
        if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            out.add("seccomp")
    return out


def documents(text: str) -> list[dict[str, Any]]:
    """Every document of a file, by another reader than ours."""
    return [d for d in yaml.load_all(text, Loader=yaml.CSafeLoader) if d is not None]


def understood(found: list[Any], plan: LaunchPlan, folder: Path, arch: Arch) -> tuple[Layout, dict[str, Any]]:
    """Layout and knobs that documents say, from their content alone."""
    commands = [
        (parse_command(c.words, env=c.env, version=plan.service.version), c.place.copies)
        for c in containers(found, "manifest")
    ]
    return understood_commands(commands, plan, folder, arch)


def kubelet(text: str, env: dict[str, str]) -> str:
    """Kubernetes' expansion of `$(NAME)` and `$$` (third_party/forked/golang/expansion/expand.go)."""
    out, i = "", 0
    while i < len(text):
        if text.startswith("$$", i):
            out, i = out + "$", i + 2
        elif text.startswith("$(", i) and ")" in text[i:]:
            end = text.index(")", i)
            name = text[i + 2 : end]
            out, i = out + env.get(name, text[i : end + 1]), end + 1
        else:
            out, i = out + text[i], i + 1
    return out
