"""Launch files of disaggregated plans: both pools' options, nodes, ports, the front, and Dynamo's deployment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command import autotune
from tests.studies import FOLDER

PLAN = "P8:TP8+D8:R2/TP4"
STUDY = FOLDER / "llama-70b-16xh100.toml"


def _exported(tmp_path: Path, target: str, *more: str, plan: str = PLAN) -> Path:
    out = tmp_path / target
    engine = "vllm" if target in ("dynamo", "k8s") else target
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
        container = found[role]["podTemplate"]["spec"]["containers"][0]
        arguments = container["args"]
        assert arguments[arguments.index("--disaggregation-mode") + 1] == role
        assert "--kv-transfer-config" in arguments
        assert container["resources"]["limits"] == {"nvidia.com/gpu": gpus, "rdma/ib": "1"}
        assert "IPC_LOCK" in container["securityContext"]["capabilities"]["add"]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A target without pools, and pools that tear a node apart."""
    for target, plan, message in (
        ("k8s", PLAN, "pools: k8s is not written for two pools"),
        ("vllm", "P4:TP4+D12:R3/TP4", "pool_nodes: pools must fill whole nodes of 8 GPUs"),
    ):
        found = autotune(
            "export", str(STUDY), "--set", "workload.request_rate_per_s=1", "--plan", plan, "--target", target,
            "--out", str(tmp_path / "out"), "--json",
        )  # fmt: skip
        assert found.returncode == 2
        assert message in found.stderr
