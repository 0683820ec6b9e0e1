"""Resources that say in fields of their own what a server's command would: charts' values, KServe, Ray Serve.

Each is turned into the command that it stands for, and read as one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from autotune.launch.reading.parse import plain_words
from autotune.text.safe_yaml import read_yaml

SERVE = ("vllm", "serve")
_SNAKE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_FLAGS = frozenset(("extraargs", "v1", "v0"))
_PARALLEL: Mapping[str, str] = {
    "tensor": "tensor-parallel-size",
    "pipeline": "pipeline-parallel-size",
    "data": "data-parallel-size",
    "dataLocal": "data-parallel-size-local",
}
"""Fields of `parallelism`, as llm-d's chart and KServe have them -> options."""

Node = Mapping[str, Any]


def one_by_one(documents: list[Any]) -> list[Any]:
    """Documents one by one, where lists hold them: those of YAML, and `kind: List` as `kubectl get` prints it."""
    return [
        item
        for whole in documents
        for part in (whole if isinstance(whole, list) else [whole])
        for item in (part["items"] if isinstance(part, Mapping) and isinstance(part.get("items"), list) else [part])
    ]


def with_autoscaling(documents: list[Any]) -> list[Any]:
    """Documents one by one, with the least replicas that an autoscaler among them keeps."""
    single = _with_runtimes(one_by_one(documents))
    least: dict[str, Any] = {}
    for document in single:
        spec = _table(_table(document).get("spec"))
        target = _table(spec.get("scaleTargetRef")).get("name")
        if target is not None:
            least[str(target)] = spec.get("minReplicas", spec.get("minReplicaCount", 1))
    return [_scaled(document, least) for document in single] if least else single


def _with_runtimes(documents: list[Any]) -> list[Any]:
    """Documents in which KServe's InferenceServices that name a ServingRuntime among them are its container."""
    runtimes = {
        str(_table(d.get("metadata")).get("name")): _table(d.get("spec")).get("containers")
        for d in documents
        if isinstance(d, Mapping) and str(d.get("kind")).endswith("ServingRuntime")
    }
    out, used = [], set()
    for document in documents:
        predictor = _table(_table(_table(document).get("spec")).get("predictor"))
        model = _table(predictor.get("model"))
        name = str(model.get("runtime"))
        held = runtimes.get(name)
        if not isinstance(held, list) or not held or "workerSpec" in predictor:
            out.append(document)
            continue
        used.add(name)
        args = [*plain_words(held[0].get("args")), *plain_words(model.get("args"))]
        more = {key: model[key] for key in ("env", "resources") if key in model}
        out.append({"replicas": predictor.get("minReplicas", 1), "service": {**held[0], "args": args, **more}})
    return [d for d in out if not used or str(_table(_table(d).get("metadata")).get("name")) not in used]


def _scaled(document: Any, least: Node) -> Any:
    name = str(_table(_table(document).get("metadata")).get("name"))
    if name not in least or "scaleTargetRef" in _table(document["spec"]):
        return document
    return {**document, "spec": {"replicas": least[name], **document["spec"]}}


def expanded(document: Any, path: str) -> list[Any]:
    """A document as services with commands, where it is one of these; else the document itself."""
    if not isinstance(document, Mapping):
        return [document]
    if "servingEngineSpec" in document:
        return list(_production_stack(document))
    if "modelArtifacts" in document and ("decode" in document or "prefill" in document):
        return list(_model_service(document))
    kind = document.get("kind")
    spec = _table(document.get("spec"))
    release = _values_of_release(document, spec, path)
    if release is not None:
        return [node for inner in release for node in expanded(inner, path)]
    if kind == "Model" and "kubeai" in str(document.get("apiVersion")):
        return list(_kubeai(spec))
    if isinstance(_table(document.get("Config")).get("Image"), str):
        return [_inspected(document)]
    if isinstance(document.get("run"), str) or (isinstance(document.get("commands"), list) and "resources" in document):
        return [_task(document)]
    if kind == "LLMInferenceService":
        return list(_llm_inference_service(spec))
    if kind == "InferenceService":
        return list(_inference_service(spec, document))
    if kind in ("RayService",) and isinstance(spec.get("serveConfigV2"), str):
        return [node for inner in read_yaml(spec["serveConfigV2"], path) for node in expanded(inner, path)]
    if isinstance(document.get("applications"), list):
        return list(_ray_serve(document["applications"]))
    return [document]


def _values_of_release(document: Node, spec: Node, path: str) -> list[Any] | None:
    """The values in Flux's HelmRelease or Argo CD's Application; None: the document is none of them."""
    if document.get("kind") == "HelmRelease":
        return [spec.get("values")]
    if document.get("kind") != "Application":
        return None
    sources = spec.get("sources")
    found = []
    for source in sources if isinstance(sources, list) else [spec.get("source")]:
        helm = _table(_table(source).get("helm"))
        found += [helm.get("valuesObject")] if helm.get("valuesObject") else []
        found += read_yaml(helm["values"], path) if isinstance(helm.get("values"), str) else []
    return found


def _production_stack(values: Node) -> Iterator[Node]:
    """Helm values of vLLM's production stack."""
    specs = _table(values["servingEngineSpec"]).get("modelSpec")
    for spec in specs if isinstance(specs, list) else [specs]:
        if not isinstance(spec, Mapping) or not spec.get("modelURL"):
            continue
        config = _table(spec.get("vllmConfig"))
        named = {name: value for name, value in config.items() if name.lower() not in _NO_FLAGS}
        command = [*SERVE, str(spec["modelURL"]), *_flags(named), *plain_words(config.get("extraArgs"))]
        cache = _table(spec.get("lmcacheConfig"))
        role = {"kv_producer": "prefill", "kv_consumer": "decode"}.get(str(cache.get("kvRole")))
        replicas, pods = spec.get("replicaCount", 1), 1
        head = _table(spec.get("raySpec")).get("headNode")
        if isinstance(head, Mapping) and isinstance(replicas, int):  # a cluster of Ray, of which these are the workers
            replicas, pods = 1, replicas + 1
        yield _service(command, spec, role=role, gpus=spec.get("requestGPU"), replicas=replicas, pods=pods)


def _model_service(values: Node) -> Iterator[Node]:
    """Helm values of llm-d's model service."""
    model = _model_of(_table(values["modelArtifacts"]))
    for role in ("prefill", "decode"):
        part = _table(values.get(role))
        if not part or part.get("create") is False or part.get("enabled") is False:
            continue
        yield from _pods(model, part, part.get("containers"), role)


def _llm_inference_service(spec: Node) -> Iterator[Node]:
    """KServe's LLMInferenceService, with or without a pool for prefill."""
    model = _model_of(_table(spec.get("model")))
    prefill = _table(spec.get("prefill"))
    for role, part in (("decode" if prefill else None, spec), ("prefill", prefill)):
        if part:
            yield from _pods(model, part, _table(part.get("template")).get("containers"), role)


def _pods(model: str, part: Node, containers: Any, role: str | None) -> Iterator[Node]:
    """Pods of one role: their command where they have one, else vLLM with the model and the degrees that are given."""
    found = [c for c in containers if isinstance(c, Mapping)] if isinstance(containers, list) else []
    main = next((c for c in found if str(c.get("name")) in ("main", "vllm")), found[0] if found else {})
    degrees = _table(part.get("parallelism"))
    flags = [word for key, option in _PARALLEL.items() if key in degrees for word in (f"--{option}", str(degrees[key]))]
    if degrees.get("expert") is True:
        flags.append("--enable-expert-parallel")
    given = [*plain_words(main.get("command")), *plain_words(main.get("args"))]
    env = main.get("env")
    more = [
        word
        for item in (env if isinstance(env, list) else ())
        if isinstance(item, Mapping) and item.get("name") in ("VLLM_ADDITIONAL_ARGS", "VLLM_EXTRA_ARGS")
        for word in plain_words(item.get("value"))
    ]
    flags = [word for i, word in enumerate(flags) if not _said(flags, i, given)]
    whole = any(word in ("serve", "-c") or "vllm" in word or "sglang" in word for word in given)
    command = [*given, *more] if whole else [*SERVE, model, *flags, *given, *more]
    local, data = degrees.get("dataLocal"), degrees.get("data")
    several = isinstance(local, int) and isinstance(data, int) and 0 < local < data
    pods = data // local if several and isinstance(local, int) and isinstance(data, int) else 1
    replicas = part.get("replicas", _table(part.get("scaling")).get("minReplicas", 1))
    yield _service(command, {**main, "env": env}, role=role, gpus=None, replicas=replicas, pods=pods)


def _said(flags: list[str], i: int, given: list[str]) -> bool:
    """Whether a flag, or the flag that a word is the value of, stands among the arguments as well."""
    flag = flags[i] if flags[i].startswith("--") else flags[i - 1]
    return any(word.partition("=")[0] == flag for word in given)


def _inference_service(spec: Node, document: Node) -> Iterator[Node]:
    """KServe's InferenceService: a predictor with a model, or with a container of its own."""
    predictor = _table(spec.get("predictor"))
    model = _table(predictor.get("model"))
    if not model:
        yield {**document, "spec": {**spec, "predictor": {"replicas": predictor.get("minReplicas", 1), **predictor}}}
        return
    args = plain_words(model.get("args"))
    named = [word.partition("=")[2] for word in args if word.startswith("--model_id=")]
    named += [args[i + 1] for i, word in enumerate(args[:-1]) if word == "--model_id"]
    own = ("--model_name", "--model_id", "--model_dir", "--backend")
    kept = [w for i, w in enumerate(args) if w.partition("=")[0] not in own and (i == 0 or args[i - 1] not in own)]
    workers = _table(predictor.get("workerSpec"))
    sizes = {name: workers[name] for name in ("tensorParallelSize", "pipelineParallelSize") if name in workers}
    uri = re.sub(r"^\w+://", "", str(model.get("storageUri", "")))
    command = [*SERVE, *([named[0]] if named else [uri] if uri else []), *_flags(sizes), *kept]
    stages, replicas = workers.get("pipelineParallelSize"), predictor.get("minReplicas", 1)
    pods = stages if isinstance(stages, int) else 1
    yield _service(command, model, role=None, gpus=None, replicas=replicas, pods=pods)


def _ray_serve(applications: list[Any]) -> Iterator[Node]:
    """Ray Serve's LLM applications, with or without apart prefill and decode."""
    for application in applications:
        args = _table(_table(application).get("args"))
        configs = args.get("llm_configs", [args.get("llm_config")])
        parts: list[tuple[str | None, Any]] = [(None, c) for c in (configs if isinstance(configs, list) else ())]
        parts += [(role, args[f"{role}_config"]) for role in ("prefill", "decode") if f"{role}_config" in args]
        for role, config in parts:
            if not isinstance(config, Mapping):
                continue
            loading = _table(config.get("model_loading_config"))
            deployment = _table(config.get("deployment_config"))
            scaling = _table(deployment.get("autoscaling_config"))
            replicas = deployment.get("num_replicas", scaling.get("min_replicas", 1))
            source = loading.get("model_source", loading.get("model_id", ""))
            name = source if isinstance(source, str) else loading.get("model_id", "")
            command = [*SERVE, str(name), *_flags(_table(config.get("engine_kwargs")))]
            environment = _table(_table(config.get("runtime_env")).get("env_vars"))
            yield _service(command, {"environment": environment}, role=role, gpus=None, replicas=replicas)


def _kubeai(spec: Node) -> Iterator[Node]:
    """KubeAI's Model, as vLLM serves it."""
    if spec.get("engine") != "VLLM":
        return
    count = str(spec.get("resourceProfile", "")).rpartition(":")[2]
    command = [*SERVE, _model_of({"uri": spec.get("url")}), *plain_words(spec.get("args"))]
    replicas = spec.get("replicas", spec.get("minReplicas", 1))
    yield _service(command, spec, role=None, gpus=count if count.isdecimal() else None, replicas=replicas)


def _inspected(document: Node) -> Node:
    """A container as `docker inspect` shows it."""
    config = document["Config"]
    requests = _table(document.get("HostConfig")).get("DeviceRequests")
    asked = _table(requests[0]) if isinstance(requests, list) and requests else {}
    count = len(asked["DeviceIDs"]) if isinstance(asked.get("DeviceIDs"), list) else asked.get("Count")
    command = [*plain_words(config.get("Entrypoint")), *plain_words(config.get("Cmd"))]
    return {
        "entrypoint" if config.get("Entrypoint") else "command": command,
        "image": config["Image"],
        "environment": config.get("Env"),
        "resources": {"limits": {"nvidia.com/gpu": count}},
    }


def _task(document: Node) -> Node:
    """A task of SkyPilot or dstack: a script on so many nodes, as a service of so many replicas."""
    resources, service = _table(document.get("resources")), _table(document.get("service"))
    wanted = resources.get("accelerators", resources.get("gpu"))
    each = next(iter(wanted.values()), None) if isinstance(wanted, Mapping) and "count" not in wanted else wanted
    each = str(each.get("count") if isinstance(each, Mapping) else each).rpartition(":")[2]
    nodes = document.get("num_nodes", document.get("nodes", 1))
    replicas = service.get("replicas", _table(service.get("replica_policy")).get("min_replicas"))
    replicas = document.get("replicas", 1) if replicas is None else replicas
    commands = document.get("commands")
    script = document["run"] if commands is None else "\n".join(plain_words(commands))
    sizes = {"SKYPILOT_NUM_NODES": nodes, "DSTACK_NODES_NUM": nodes}
    if each.isdecimal():
        sizes |= {"SKYPILOT_NUM_GPUS_PER_NODE": each, "DSTACK_GPUS_PER_NODE": each, "DSTACK_GPUS_NUM": each}
    given = document.get("envs", document.get("env"))
    pairs = [str(item).partition("=") for item in given] if isinstance(given, list) else []
    environment = {name: value for name, _, value in pairs} or _table(given)
    return _service(
        ["bash", "-c", script],
        {"environment": {**sizes, **environment}, "image": document.get("image")},
        role=None,
        gpus=each if each.isdecimal() else None,
        replicas=int(str(replicas).partition("..")[0]) if str(replicas).partition("..")[0].isdecimal() else 1,
        pods=nodes if isinstance(nodes, int) else 1,
    )


def _service(command: list[str], about: Node, *, role: str | None, gpus: Any, replicas: Any, pods: int = 1) -> Node:
    """A service as Compose has it, in a mapping that says its role."""
    if isinstance(replicas, str) and replicas.isdecimal():
        replicas = int(replicas)
    node: dict[str, Any] = {
        "entrypoint": command,
        "image": _image(about),
        "env": about.get("env"),
        "environment": about.get("environment"),
        "resources": about.get("resources") or ({} if gpus is None else {"limits": {"nvidia.com/gpu": gpus}}),
    }
    return {"replicas": replicas, "autotune-role": role, "autotune-pods": pods, "service": node}


def _image(about: Node) -> str:
    image = about.get("image")
    if isinstance(image, str):
        return image
    repository, tag = about.get("repository"), about.get("tag")
    return f"{repository}:{tag}" if repository and tag else str(repository or "")


def _flags(table: Node) -> list[str]:
    """A mapping as options: `tensorParallelSize: 8` or `tensor_parallel_size: 8` as `--tensor-parallel-size 8`."""
    out: list[str] = []
    for key, value in table.items():
        flag = "--" + _SNAKE.sub("-", str(key)).lower().replace("_", "-")
        if value is True:
            out.append(flag)
        elif value is False:
            out.append(f"--no-{flag[2:]}")
        elif isinstance(value, Mapping):
            out += [flag, json.dumps(value, default=str)]
        elif isinstance(value, list):
            out += [flag, *map(str, value)]
        elif value is not None:
            out += [flag, str(value)]
    return out


def _model_of(table: Node) -> str:
    return re.sub(r"^(hf|oci|s3|pvc(\+hf)?)://", "", str(table.get("uri") or table.get("name") or ""))


def _table(value: Any) -> Node:
    return value if isinstance(value, Mapping) else {}
