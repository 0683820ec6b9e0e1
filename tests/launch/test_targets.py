"""Compose, Kubernetes and Dynamo: valid by their schemas, start what was scored, read back to the same plan."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.engines import ENGINES
from autotune.launch.files import write_export
from autotune.launch.reading.import_plan import import_plan
from autotune.launch.targets import compose, dynamo, kubernetes
from autotune.launch.targets.container import files_name, instance_name
from autotune.launch.targets.registry import find_target, target_files, targets
from costmodel.arch import load_model
from costmodel.errors import InputError
from costmodel.hardware import Cluster, load_gpu
from tests.launch.helpers import MODELS, NODE_RULES, expressible, launched, plans, service
from tests.launch.manifests import beyond_restricted, check, documents, kubelet, schema, understood

RULES = (*NODE_RULES, "one_node", "mpi_over_containers", "dynamo_context_parallel", "dynamo_backend")


def written(target, made):
    """Files of a target, or nothing where a rule that is named forbids it."""
    plan = expressible(made)
    if plan is None:
        return None
    try:
        return target_files(find_target(target), plan, current=None), plan
    except InputError as error:
        if any(rule in str(error) for rule in RULES):
            return None
        raise


@pytest.mark.parametrize("model", MODELS)
def test_every_valid_plan_reads_back_from_dynamo(model, tmp_path):
    """Every valid plan of four nodes that Dynamo's operator can join is read as the same layout with its knobs."""
    arch, count = load_model(model), 0
    for candidate in plans(model, "vllm", 32):
        plan = expressible(service(candidate, arch))
        if plan is not None:
            read, knobs = understood([dynamo.document(plan)], plan, tmp_path, arch)
            assert read == candidate.layout
            assert (knobs["max_num_seqs"], knobs["max_num_batched_tokens"]) == (37, 2048)
            count += 1
    assert count >= 5


@settings(max_examples=15, deadline=None)
@given(
    target=st.sampled_from(["compose", "k8s", "k8s", "dynamo"]),
    engine=st.sampled_from(sorted(ENGINES)),
    model=st.sampled_from(MODELS),
    gpus=st.sampled_from([1, 4, 8, 16, 24, 32, 72]),
    per_node=st.sampled_from([4, 8]),
    data=st.data(),
)
def test_any_folder_is_valid_and_reads_back(target, engine, model, gpus, per_node, data, tmp_path_factory):
    """Any plan, version, node size and target: the written folder keeps to the schemas and imports as the same plan."""
    arch, version = load_model(model), data.draw(st.sampled_from(ENGINES[engine].versions()))
    found = plans(model, engine, gpus, version)
    if not found:
        return
    candidate = data.draw(st.sampled_from(found))
    done = written(target, service(candidate, arch, per_node=per_node, version=version))
    if done is None:
        return
    files, plan = done
    for name, file in files.items():
        if not name.endswith(".yaml") or name in plan.files:
            continue
        for document in documents(file.text):
            if target == "compose":
                schema("compose").validate(document)
            else:
                check(document)
    folder = tmp_path_factory.mktemp("export") / "out"
    write_export(folder, files)
    read = import_plan(str(folder))
    assert read.plan == plan.service.plan
    assert read.layout.stage_layers == candidate.layout.stage_layers
    assert read.unknown == ()
    assert read.engine_version == version


def test_a_replica_over_nodes_is_a_leader_with_workers():
    """Two nodes of a DP16 replica: the leader answers, the worker starts at the ranks after the leader's."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", "vllm", 32) if c.layout.attn_dp == 16 and c.layout.replicas == 2)
    spec = kubernetes.servers(launched(service(base, arch)))["spec"]
    assert (spec["replicas"], spec["leaderWorkerTemplate"]["size"]) == (2, 2)
    leader, worker = (
        spec["leaderWorkerTemplate"][f"{who}Template"]["spec"]["containers"][0] for who in ("leader", "worker")
    )
    assert "readinessProbe" in leader
    assert "readinessProbe" not in worker
    assert "--headless" in worker["args"]
    assert leader["args"][leader["args"].index("--data-parallel-address") + 1] == "$(LWS_LEADER_ADDRESS)"
    assert worker["command"][2] == 'exec "$$@" --data-parallel-start-rank "$$((NODE_RANK * 8))"'
    assert leader["resources"]["limits"] == {"nvidia.com/gpu": "8"}


def test_a_workers_shell_counts_its_ranks(tmp_path):
    """As the kubelet and bash run it, a replica's fourth node starts at rank 3 x 8 and gets every argument whole."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", "vllm", 32) if c.layout.attn_dp == 32)
    made = service(base, arch, model="$(HOME)/$HOME 'x'")
    spec = kubernetes.servers(launched(made))["spec"]["leaderWorkerTemplate"]
    container = spec["workerTemplate"]["spec"]["containers"][0]
    env = {"NODE_RANK": "3", "LWS_LEADER_ADDRESS": "first.svc"}
    words = [kubelet(w, env) for w in (*container["command"], *container["args"])]
    program = tmp_path / "vllm"
    program.write_text('#!/usr/bin/env bash\nprintf "%s\\0" "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        words, env=env | {"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, check=True, text=True
    )
    said = done.stdout.split("\0")
    assert said[:2] == ["serve", "$(HOME)/$HOME 'x'"]
    assert said[said.index("--data-parallel-start-rank") + 1] == "24"
    assert said[said.index("--data-parallel-address") + 1] == "first.svc"


def test_workers_follow_their_leader_into_its_nvlink_domain():
    """On racks of 72, required where a group fits a domain and preferred where it does not; on hosts of 8 not."""
    arch = load_model("deepseek-v3")

    def affinity(gpu: str, gpus: int, per_node: int):
        base = next(c for c in plans("deepseek-v3", "vllm", gpus) if c.layout.replicas == 1 and c.layout.pp == 1)
        cluster = Cluster(gpus=gpus, gpu=load_gpu(gpu), gpus_per_node=per_node)
        template = kubernetes.servers(launched(service(base, arch, cluster=cluster)))["spec"]["leaderWorkerTemplate"]
        assert template["workerTemplate"]["spec"]["topologySpreadConstraints"]
        return template["workerTemplate"]["spec"].get("affinity", {}).get("podAffinity", {})

    inside = affinity("gb200", 32, 4)["requiredDuringSchedulingIgnoredDuringExecution"]
    assert inside[0]["topologyKey"] == "nvidia.com/gpu.clique"
    assert inside[0]["labelSelector"]["matchLabels"]["leaderworkerset.sigs.k8s.io/worker-index"] == "0"
    assert "preferredDuringSchedulingIgnoredDuringExecution" in affinity("gb200", 128, 4)
    assert affinity("h100", 32, 8) == {}


def test_one_service_for_every_plan_of_a_study():
    """Objects are named by what is started, the Service by the study: two plans stand side by side behind it."""
    arch = load_model("llama-3.1-70b")
    first, second = (launched(service(c, arch)) for c in plans("llama-3.1-70b", "vllm", 8)[:2])
    assert kubernetes.servers(first)["metadata"]["name"] != kubernetes.servers(second)["metadata"]["name"]
    assert kubernetes.service(first) == kubernetes.service(second)
    for plan in (first, second):
        selector = kubernetes.service(plan)["spec"]["selector"].items()
        assert selector <= kubernetes.servers(plan)["spec"]["template"]["metadata"]["labels"].items()
    assert instance_name(first.service)[1] == instance_name(replace(first.service, image="x/y:1"))[1]
    named = replace(first.service, instance="mine")
    assert instance_name(named) == (instance_name(first.service)[0], "mine")
    # a name that stays must not keep pods on files that they no longer have
    assert files_name(named).startswith("mine-")
    assert files_name(named) != files_name(replace(named, version="0.1"))


def test_the_router_finds_the_servers_and_may():
    """SGLang's replicas get a router: it selects their labels and port, and may read pods."""
    arch = load_model("qwen3-235b")
    base = next(c for c in plans("qwen3-235b", "sglang", 32) if c.layout.replicas == 4)
    plan = launched(service(base, arch))
    files = target_files(find_target("k8s"), plan, current=None)
    account, role, binding, deployment = documents(files["router.yaml"].text)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    chosen = dict(a.split("=") for a in container["args"] if "kubernetes.io" in a)
    servers = kubernetes.servers(plan)["spec"]["template"]
    assert chosen.items() <= servers["metadata"]["labels"].items()
    port = container["args"][container["args"].index("--service-discovery-port") + 1]
    assert int(port) == servers["spec"]["containers"][0]["ports"][0]["containerPort"]
    assert binding["subjects"][0]["name"] == account["metadata"]["name"]
    assert role["rules"][0]["verbs"] == ["get", "list", "watch"]
    assert kubernetes.service(plan)["spec"]["selector"]["app.kubernetes.io/component"] == "router"


def test_a_plan_over_nodes_is_no_compose_file():
    """More than one node: an error that names the rule and the way out."""
    arch = load_model("deepseek-v3")
    plan = launched(service(plans("deepseek-v3", "vllm", 16)[0], arch))
    with pytest.raises(InputError, match=r"one_node: Docker Compose starts containers on one node, got 2 nodes"):
        target_files(find_target("compose"), plan, current=None)


def test_amd_needs_an_image_and_gets_its_own_devices():
    """For AMD GPUs no image is guessed; with one, the resource and devices are AMD's."""
    arch = load_model("llama-3.1-70b")
    cluster = Cluster(gpus=8, gpu=load_gpu("mi300x"), gpus_per_node=8)
    made = service(plans("llama-3.1-70b", "vllm", 8)[0], arch, cluster=cluster)
    with pytest.raises(InputError, match=r"container_image: no image of vllm .* is known for AMD GPUs"):
        kubernetes.servers(launched(made))
    plan = launched(replace(made, image="rocm/vllm:1"))
    container = kubernetes.servers(plan)["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"amd.com/gpu": str(len(plan.replicas[0].head.gpus))}
    assert compose.document(plan)["services"]["replica0"]["devices"] == ["/dev/kfd", "/dev/dri"]


def test_dynamo_leaves_to_the_operator_what_it_adds():
    """Options that join nodes are not written; redundant experts stand without JSON, which a shell would eat."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", "vllm", 16) if c.layout.attn_dp == 16 and c.layout.moe_ep == 16)
    layout = replace(base.layout, redundant_experts=32)
    document = dynamo.document(launched(service(base, arch, layout=layout)))
    worker = document["spec"]["components"][1]
    args = worker["podTemplate"]["spec"]["containers"][0]["args"]
    assert worker["multinode"] == {"nodeCount": 2}
    assert not set(args) & set(ENGINES["vllm"].dynamo.operator_options)
    assert "--eplb-config.num_redundant_experts=32" in args
    assert args[args.index("--data-parallel-size") + 1] == "16"


@pytest.mark.parametrize(
    ("image", "version"),
    [
        (None, dynamo.RELEASE),
        ("registry.example:5000/vllm-runtime:v1.5.2", "1.5.2"),
        ("registry.example/vllm@sha256:00", dynamo.RELEASE),
    ],
)
def test_the_operator_is_told_dynamos_version(image, version):
    """Every component says it: by the image's tag, else the release that is written for."""
    arch = load_model("llama-3.1-70b")
    made = service(plans("llama-3.1-70b", "vllm", 8)[0], arch, image=image)
    components = dynamo.document(launched(made))["spec"]["components"]
    assert [c["runtimeVersionOverride"] for c in components] == [version, version]


@pytest.mark.parametrize(("engine", "image"), [("sglang", "sglang-runtime"), ("trtllm", "vllm/vllm-openai")])
def test_what_measures_dynamo_is_in_its_image_and_knows_its_api(engine, image):
    """TensorRT-LLM's image has no client, so that vLLM's is taken; SGLang's own API is not behind the frontend."""
    plan = launched(service(plans("llama-3.1-70b", engine, 8)[0], load_model("llama-3.1-70b")))
    (job,) = documents(dynamo.dynamo_files(plan)["bench-job.yaml"].text)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert image in container["image"]
    arguments = container["args"]
    assert arguments[arguments.index("--backend") + 1] in ("openai", "sglang-oai")
    assert "--tokenize-prompt" not in arguments


def test_pods_keep_to_pod_security_but_for_what_is_said():
    """Router and benchmark keep to `restricted`; of servers the README names everything that goes beyond it."""
    arch = load_model("qwen3-235b")
    by_nodes = {1: {"root", "hostPath"}, 2: {"root", "hostPath", "capabilities added"}}
    for nodes, beyond in by_nodes.items():
        base = next(c for c in plans("qwen3-235b", "sglang", 32) if c.layout.width * c.layout.pp == 8 * nodes)
        files = target_files(find_target("k8s"), launched(service(base, arch)), current=None)
        router = documents(files["router.yaml"].text)[-1]["spec"]["template"]["spec"]
        bench = documents(files["bench-job.yaml"].text)[0]["spec"]["template"]["spec"]
        assert beyond_restricted(router) == beyond_restricted(bench) == set()
        spec = documents(files["servers.yaml"].text)[0]["spec"]
        pods = [spec["leaderWorkerTemplate"]["leaderTemplate"]] if nodes > 1 else [spec["template"]]
        assert beyond_restricted(pods[0]["spec"]) == beyond
        text = files["README.md"].text
        assert ("IPC_LOCK" in text) == (nodes > 1)
        assert "hostPath" in text


def test_pods_that_write_into_other_nodes_have_what_that_needs():
    """DeepEP over nodes: the node's network and device, the interface, time to fetch the model; the README says so."""
    arch = load_model("deepseek-v3")
    base = next(c for c in plans("deepseek-v3", "vllm", 32) if c.layout.attn_dp == 32 and c.layout.moe_ep == 32)
    knobs = replace(service(base, arch).knobs, max_num_batched_tokens=256)
    limits = replace(service(base, arch).limits, max_num_batched_tokens=256, kv_room_bytes=1e12)
    plan = launched(service(base, arch, exchange="routed", knobs=knobs, limits=limits))
    leader = kubernetes.servers(plan)["spec"]["leaderWorkerTemplate"]["leaderTemplate"]["spec"]
    worker = dynamo.document(plan)["spec"]["components"][1]["podTemplate"]["spec"]
    for target, pod in (("k8s", leader), ("dynamo", worker)):
        (container,) = pod["containers"]
        assert pod["hostNetwork"] is True
        assert container["resources"]["limits"]["rdma/ib"] == "1"
        assert container["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
        names = {item["name"] for item in container["env"]}
        assert names >= {"NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "VLLM_HOST_IP"}
        probe = container["startupProbe"]
        assert probe["failureThreshold"] * probe["periodSeconds"] > 7200
        text = target_files(find_target(target), plan, current=None)["README.md"].text
        assert "configmap network" in text


@pytest.mark.parametrize(("ranks", "gpus", "said"), [(1, 8, None), (8, 8, "8"), (32, 32, "8")])
def test_servers_with_many_ranks_take_requests_in_several_processes(ranks, gpus, said):
    """As many as the head's node has data-parallel ranks, and none on nodes that do not answer."""
    arch = load_model("deepseek-v3")
    model = "deepseek-v3" if ranks > 1 else "llama-3.1-70b"
    base = next(c for c in plans(model, "vllm", gpus) if c.layout.attn_dp == ranks and c.layout.replicas == 1)
    head, *others = launched(service(base, arch if ranks > 1 else load_model(model))).replicas[0].processes
    name = "--api-server-count"
    assert (head.argv[head.argv.index(name) + 1] if name in head.argv else None) == said
    assert not any(name in p.argv for p in others)


def test_readmes_say_what_starts_and_how_to_check():
    """Every target's README has its sections, its own commands, and no word of files that it does not have."""
    arch = load_model("llama-3.1-70b")
    said = {"compose": "docker compose up -d", "k8s": "kubectl apply -k .", "dynamo": "kubectl apply -f dynamographdep"}
    for target in (name for name, found in targets().items() if not found.pools_alone):
        engine = find_target(target).engine or "sglang"
        plan = launched(service(plans("llama-3.1-70b", engine, 8)[0], arch))
        files = target_files(find_target(target), plan, current=plan.service)
        text = files["README.md"].text
        headings = [line for line in text.splitlines() if line.startswith("## ")]
        assert headings[1:] == [
            "## Start it",
            "## Check it",
            "## Measure it",
            "## Roll it out",
            "## Not checked",
            "## Taken for granted",
        ]
        assert said.get(target, "nodes.env") in text
        assert "autotune verify result.json" in text
        assert "Nothing differs" in text
        for name in ("endpoints.txt", "nodes.env", "health.sh", "bench.sh"):
            assert (name in text) <= (name in files)
        assert json.loads(files["plan.json"].text)["target"] == target
