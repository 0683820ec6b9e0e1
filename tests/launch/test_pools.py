"""Launch files of disaggregated plans: both pools' options, nodes, ports, the front, and Dynamo's deployment."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.engines import ENGINES
from autotune.launch.files import write_export
from autotune.launch.pools.files import pool_files
from autotune.launch.pools.llm_d import disaggregated_set, labels
from autotune.launch.pools.make import make_pool_launch
from autotune.launch.reading.import_plan import import_plan
from autotune.launch.service import LaunchOptions
from autotune.launch.targets.registry import find_target
from autotune.tuning.answer_study import score_named
from costmodel.errors import InputError
from tests.command import autotune
from tests.launch.helpers import FORMS, WHOLE, pool_launch, pools_of, scored_pools
from tests.launch.manifests import check, documents
from tests.studies import FOLDER

PLAN = "P8:TP8+D8:R2/TP4"
STUDY = FOLDER / "llama-70b-16xh100.toml"


def _exported(tmp_path: Path, target: str, *more: str, plan: str = PLAN) -> Path:
    out = tmp_path / target
    engine = "vllm" if target in ("dynamo", "k8s", "llm-d", "disaggregatedset") else target
    found = autotune(
        "export", str(STUDY), "--set", f"engine={engine}", "--set", "workload.request_rate_per_s=1",
        "--plan", plan, "--target", target, "--out", str(out), *more, "--json",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return out


def _script(folder: Path, name: str) -> str:
    text = (folder / name).read_text(encoding="utf-8")
    checked = subprocess.run(["bash", "-n", str(folder / name)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    return text


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_both_pools_start_as_what_they_are(tmp_path: Path, engine: str) -> None:
    """A script for every worker, with the option that names its role; the front names every server of both pools."""
    out = _exported(tmp_path, engine)
    prefill = _script(out, "prefill-replica0-node0.sh")
    decode = [_script(out, f"decode-replica{i}-node0.sh") for i in range(2)]
    front = _script(out, "front.sh")
    if engine == "vllm":
        assert '"kv_role":"kv_producer"' in prefill
        assert all('"kv_role":"kv_consumer"' in text for text in decode)
        ports = [text.partition("SIDE_CHANNEL_PORT=")[2].split()[0] for text in decode]
        assert len(set(ports)) == 2
    staged = ["SGLANG_DISAGG_STAGING_BUFFER" in text for text in (prefill, *decode)]
    assert staged == [engine == "sglang"] * 3  # TP8 and TP4 of a model with KV heads
    if engine == "sglang":
        assert "--disaggregation-mode prefill" in prefill
        assert "--disaggregation-bootstrap-port 8998" in prefill
        assert all("--disaggregation-mode decode" in text for text in decode)
        assert "--pd-disaggregation" in front
        assert front.count("--decode ") == 2
    if engine == "trtllm":
        configs = [yaml.safe_load((out / f"{role}-llm_api.yaml").read_text()) for role in ("prefill", "decode")]
        assert [c.get("disable_overlap_scheduler", False) for c in configs] == [True, False]
        assert all(c["cache_transceiver_config"]["max_tokens_in_buffer"] >= 2000 for c in configs)
        assert "num_instances: 2" in front
        assert "generation_servers" in front
    assert front.count("NODE_1") >= 2
    document = json.loads((out / "plan.json").read_text(encoding="utf-8"))
    assert document["pools"]["decode"]["layout"]["replicas"] == 2
    assert document["nodes"] == ["NODE_0", "NODE_1"]


def test_pools_that_share_a_node_share_no_gpu_and_no_port(tmp_path: Path) -> None:
    """Four GPUs each on one node: disjoint devices, ports and side channels."""
    out = _exported(tmp_path, "vllm", "--set", "cluster.gpus=8", "--set", "baseline.plan=tp8", plan="P4:TP4+D4:R2/TP2")
    texts = [_script(out, f"{name}-node0.sh") for name in ("prefill-replica0", "decode-replica0", "decode-replica1")]
    devices = [text.partition("CUDA_VISIBLE_DEVICES=")[2].split()[0].strip("'\"") for text in texts]
    assert devices == ["0,1,2,3", "4,5", "6,7"]
    for word in ("--port ", "SIDE_CHANNEL_PORT="):
        assert len({text.partition(word)[2].split()[0] for text in texts}) == 3
    assert "ulimit" not in _script(out, "check.sh")  # nothing leaves the node


def test_a_pool_that_begins_within_a_node_goes_on_in_the_next() -> None:
    """The first decode server beside the prefill server, the others on the second node: every GPU and port once."""
    launch = pool_launch("vllm", "P4:TP4+D12:R3/TP4").joined
    placed = [(p.node, gpu) for p in launch.processes if p.role == "head" for gpu in p.gpus]
    assert placed == [(node, gpu) for node in range(2) for gpu in range(8)]
    assert len(launch.nodes) == 2
    ports = [(p.node, p.http_port) for p in launch.processes if p.role == "head"]
    assert len(set(ports)) == len(ports)


def test_dynamo_has_a_component_for_each_pool(tmp_path: Path) -> None:
    """Frontend, prefill and decode, each worker with its role, its connector and the GPUs of one node."""
    out = _exported(tmp_path, "dynamo")
    document: dict[str, Any] = yaml.safe_load((out / "dynamographdeployment.yaml").read_text(encoding="utf-8"))
    assert (document["apiVersion"], document["kind"]) == ("nvidia.com/v1beta1", "DynamoGraphDeployment")
    found = {c["name"]: c for c in document["spec"]["components"]}
    assert {name: c["type"] for name, c in found.items()} == {
        "Frontend": "frontend",
        "prefill": "prefill",
        "decode": "decode",
    }
    assert found["decode"]["replicas"] == 2
    for role, gpus in (("prefill", "8"), ("decode", "4")):
        spec = found[role]["podTemplate"]["spec"]
        container, owner = spec["containers"][0], spec["initContainers"][0]
        assert container["volumeMounts"] == owner["volumeMounts"]
        assert owner["command"] == ["chown", "1000", container["volumeMounts"][0]["mountPath"]]
        arguments = container["args"]
        assert arguments[arguments.index("--disaggregation-mode") + 1] == role
        assert "--kv-transfer-config" in arguments
        assert container["resources"]["limits"] == {"nvidia.com/gpu": gpus, "rdma/ib": "1"}
        assert "IPC_LOCK" in container["securityContext"]["capabilities"]["add"]


@pytest.mark.parametrize("plan", ["P8:R2/TP4+D8:TP8", WHOLE])
@pytest.mark.parametrize(("target", "engine"), FORMS)
def test_every_form_keeps_to_its_schema_and_reads_back(target: str, engine: str, plan: str, tmp_path: Path) -> None:
    """Scripts, Dynamo's deployment, llm-d's patches and set, of every engine that has them: the same plan again."""
    study, result = scored_pools(engine, plan)
    found = find_target(target)
    version = found.versions.get(engine)
    asked = LaunchOptions(version="0.5.22" if (target, engine, plan) == ("dynamo", "sglang", WHOLE) else None)
    both = make_pool_launch(study, result, asked=asked, assumptions=(), usual_version=version)
    if target == "llm-d" and plan == WHOLE:
        with pytest.raises(InputError, match=r"llm_d_single_host: .* workers of 1 and 4 nodes"):
            pool_files(both, pools_of(result), found)
        return
    files = pool_files(both, pools_of(result), found)
    if target not in ENGINES:
        for document in (d for name, f in files.items() if name.endswith(".yaml") for d in documents(f.text)):
            if not (target == "llm-d" and document["kind"] == "Deployment"):  # a patch holds no whole object
                check(document)
    write_export(tmp_path / "out", files)
    read = import_plan(str(tmp_path / "out"))
    assert (read.plan, read.unknown) == (result.plan, ())
    assert read.pools is not None
    for role, pool in read.pools.items():
        own = getattr(pools_of(result), role)
        assert pool.layout == own.layout
        assert pool.knobs["max_num_seqs"] == own.max_num_seqs
    again = score_named(replace(study, baseline=read.baseline()), None, path="", missing="")
    assert again.result is not None
    assert again.result.launch == result.launch


def test_llm_d_puts_its_routing_proxy_before_decode_alone(tmp_path: Path) -> None:
    """Prefill answers on 8000, decode on 8200 behind the proxy; the router's labels are on both."""
    out = _exported(tmp_path, "disaggregatedset")
    document: dict[str, Any] = yaml.safe_load((out / "disaggregatedset.yaml").read_text(encoding="utf-8"))
    roles = {r["name"]: r["spec"]["leaderWorkerTemplate"]["workerTemplate"] for r in document["spec"]["roles"]}
    proxies = {role: template["spec"].get("initContainers", []) for role, template in roles.items()}
    assert proxies["prefill"] == []
    assert {"--kv-connector=nixlv2", "--vllm-port=8200", "--secure-proxy=false"} < set(proxies["decode"][0]["args"])
    for role, port in (("prefill", "8000"), ("decode", "8200")):
        words = roles[role]["spec"]["containers"][0]["args"]
        assert words[words.index("--port") + 1] == port
        assert roles[role]["metadata"]["labels"]["llm-d.ai/role"] == role
        container = roles[role]["spec"]["containers"][0]
        assert container["resources"]["limits"]["rdma/ib"] == "1"
        assert container["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
    assert document["spec"]["roles"][1]["spec"]["replicas"] == 2


def test_llm_ds_router_selects_no_pod_that_does_not_answer() -> None:
    """Of a worker over four nodes the first has the router's labels and the proxy; the others run no HTTP server."""
    study, result = scored_pools("vllm", WHOLE)
    launch = make_pool_launch(study, result, asked=LaunchOptions(), assumptions=(), usual_version=None)
    decode = disaggregated_set(launch)["spec"]["roles"][1]["spec"]["leaderWorkerTemplate"]
    leader, other = decode["leaderTemplate"], decode["workerTemplate"]
    assert set(labels(launch)) < set(leader["metadata"]["labels"])
    assert set(other["metadata"]["labels"]) == {"llm-d.ai/model", "llm-d.ai/engine-type"}
    assert ["initContainers" in template["spec"] for template in (leader, other)] == [True, False]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A target without pools, and pools that tear a node apart."""
    for target, plan, gpus, message in (
        ("k8s", PLAN, 16, "pools: k8s is not written for two pools"),
        ("vllm", "P4:TP4+D16:R2/TP8", 20, "pool_nodes: pools must fill whole nodes of 8 GPUs"),
    ):
        found = autotune(
            "export", str(STUDY), "--set", "workload.request_rate_per_s=1", "--plan", plan, "--target", target,
            "--out", str(tmp_path / "out"), "--set", f"cluster.gpus={gpus}", "--set", "baseline.plan=tp4", "--json",
        )  # fmt: skip
        assert found.returncode == 2
        assert message in found.stderr
