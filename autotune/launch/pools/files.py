"""Files of a disaggregated plan: scripts of both pools and their front, or Dynamo's deployment."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from autotune.engines import engine_title
from autotune.files import OutFile
from autotune.launch.document import layout_values, plan_document
from autotune.launch.files import MARK
from autotune.launch.plan import LaunchPlan, NodeProcess
from autotune.launch.pools.connect import front_config
from autotune.launch.pools.make import FRONT_FILE, PoolLaunch
from autotune.launch.quoting import to_yaml
from autotune.launch.targets import dynamo, scripts
from autotune.launch.targets.kubernetes_pod import with_device
from autotune.launch.targets.registry import Target
from autotune.space.pool_plan import ROLES, Pools
from costmodel.errors import InputError


def pool_files(launch: PoolLaunch, pools: Pools, target: Target) -> dict[str, OutFile]:
    """All files of an export.

    Raises:
        InputError: the target writes nothing for two pools.
    """
    plan = launch.joined
    if target.name == "dynamo":
        files = {dynamo.FILE: OutFile(text=to_yaml(deployment(launch)))}
        how = f"`kubectl apply -f {dynamo.FILE}` with Dynamo {dynamo.RELEASE}'s operator."
    elif target.engine is not None:
        files = scripts.script_files(plan)
        if plan.service.engine == "trtllm":
            files |= _front(plan)
        how = (
            "Fill in nodes.env. Start every script of nodes.txt on its node, prefill first, then front.sh; health.sh "
            "waits for all of them."
        )
    else:
        raise InputError.single(
            "--target", f"pools: {target.name} is not written for two pools: take {plan.service.engine} or dynamo"
        )
    document = plan_document(plan, target=target.name)
    document["pools"] = {
        role: {**asdict(getattr(pools, role)), "layout": layout_values(getattr(pools, role).layout)} for role in ROLES
    }
    files[MARK] = OutFile(text=json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    files["README.md"] = OutFile(text=_readme(launch, pools, how))
    return files


def _front(plan: LaunchPlan) -> dict[str, OutFile]:
    """TensorRT-LLM's front reads its servers from a file, which names hosts: its script fills them in."""
    router = plan.router
    if router is None:
        raise ValueError("a disaggregated plan must have a front")
    heads: dict[str, list[NodeProcess]] = {role: [] for role in ROLES}
    for replica in plan.replicas:
        heads[replica.head.name.partition("-")[0]].append(replica.head)
    servers = {role: [f"${{NODE_{p.node}}}:{p.http_port}" for p in found] for role, found in heads.items()}
    content = to_yaml(front_config(servers["prefill"], servers["decode"]))
    script = scripts.process_script(plan, router)
    command = f'cat > "$HERE/{FRONT_FILE}" <<FRONT\n{content}FRONT\nexec '
    return {f"{router.name}.sh": OutFile(text=script.replace("exec ", command, 1), executable=True)}


def deployment(launch: PoolLaunch) -> dict[str, Any]:
    """Dynamo's DynamoGraphDeployment: a frontend, and a component for each pool."""
    documents = {role: dynamo.document(plan) for role, plan in launch.pools.items()}
    out: dict[str, Any] = documents["decode"]
    components = [out["spec"]["components"][0]]
    for role in ROLES:
        worker = documents[role]["spec"]["components"][1]
        spec = worker["podTemplate"]["spec"]
        # caches go from pool to pool by RDMA; pods may share a node, and so have networks of their own
        container = with_device(spec["containers"][0])
        spec["containers"] = [container]
        container["args"] = [*container["args"], "--disaggregation-mode", role]
        container["env"] = [
            *container["env"],
            {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ]
        components.append({**worker, "name": role, "type": role})
    out["spec"]["components"] = components
    out["metadata"]["annotations"]["autotune/plan"] = launch.joined.service.plan
    return out


def _readme(launch: PoolLaunch, pools: Pools, how: str) -> str:
    service = launch.joined.service
    load = service.load
    rows = "\n".join(
        f"| {role} | {p.layout.replicas} | {p.gpus} x {p.gpu} | {p.max_num_seqs} | {p.max_num_batched_tokens:,} |"
        for role, p in ((role, getattr(pools, role)) for role in ROLES)
    )
    proxy = (
        "\nfront.sh starts vLLM's toy proxy from a checkout of vLLM: enough for a smoke test. In production llm-d or "
        "Dynamo routes (target dynamo).\n"
        if service.engine == "vllm"
        else ""
    )
    assumed = "\n".join(f"- {text}" for text in launch.joined.assumptions)
    return f"""# {service.name}: prefill and decode in pools of their own

`{service.plan}` on {engine_title(service.engine)} {service.version}.

| pool | workers | GPUs | sequences at once, per rank | token budget, per rank |
|---|---|---|---|---|
{rows}

{how}
{proxy}
Both pools must run the same engine version, model, KV dtype and attention backend. The first transfer between a pair of
workers takes about 5 s: send a few requests for each of the {_pairs(pools)} pairs before you measure.

Predicted at {load.concurrency:,} requests in flight, in steady state: {load.requests_per_s:.4g} requests/s,
TTFT {load.ttft_s * 1e3:.0f} ms, TPOT {load.tpot_s * 1e3:.1f} ms.

## Assumed

{assumed}
"""


def _pairs(pools: Pools) -> int:
    return pools.prefill.layout.replicas * pools.decode.layout.replicas
