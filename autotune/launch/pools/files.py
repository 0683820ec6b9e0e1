"""Files of a disaggregated plan: scripts of both pools and their front, or Dynamo's deployment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from autotune.files import OutFile
from autotune.launch.document import layout_values, plan_document
from autotune.launch.files import MARK
from autotune.launch.gpu_types import TO_FILL_IN, node_ranges, node_selector
from autotune.launch.plan import LaunchPlan, NodeProcess
from autotune.launch.pools import llm_d
from autotune.launch.pools.connect import DECIDER_FILE, FRONT_FILE, check_front, decider, front_config
from autotune.launch.pools.make import PoolLaunch
from autotune.launch.quoting import to_yaml
from autotune.launch.targets import dynamo, scripts
from autotune.launch.targets.bench_job import FILE as BENCH
from autotune.launch.targets.container import needs_rdma
from autotune.launch.targets.kubernetes_pod import RDMA
from autotune.launch.targets.readme import where_model
from autotune.launch.targets.registry import Target
from autotune.launch.template import filled
from autotune.space.pool_plan import ROLES, Pools
from autotune.study.wider_search import LocalPrefill
from costmodel.errors import InputError


def pool_files(launch: PoolLaunch, pools: Pools, target: Target) -> dict[str, OutFile]:
    """All files of an export.

    Raises:
        InputError: the target writes nothing for two pools.
    """
    check_front(launch.joined.service.engine, target.name, launch.local)
    plan = launch.joined
    plan = replace(plan, assumptions=(*plan.assumptions, *target.images(plan.service)))
    launch = replace(launch, joined=plan)
    how: str | None
    if target.name == "dynamo":
        files = dynamo.graph_files(plan, launch.pools, launch.local)
        how = f"`kubectl apply -f {dynamo.FILE}` with Dynamo {dynamo.RELEASE}'s operator."
    elif target.name == "llm-d":
        files, how = llm_d.kustomize_files(launch), llm_d.KUSTOMIZE_HOW
    elif target.name == "disaggregatedset":
        files, how = llm_d.set_files(launch), llm_d.SET_HOW
    elif target.engine is not None:
        files = scripts.script_files(plan)
        if plan.service.engine == "trtllm":
            files |= _front(plan, launch.local)
        how = None
    else:
        raise InputError.single(
            "--target",
            f"pools: {target.name} is not written for two pools: take {plan.service.engine}, "
            "dynamo, llm-d or disaggregatedset",
        )
    if launch.local is not None and target.name in ("llm-d", "disaggregatedset"):
        files[DECIDER_FILE] = OutFile(text=decider(launch.local))
        how = f"{how} Its decider of which prompts go to the prefill pool is that of `{DECIDER_FILE}`."
    document = plan_document(plan, target=target.name)
    document["pools"] = {
        role: {
            **asdict(getattr(pools, role)),
            "layout": layout_values(getattr(pools, role).layout),
            "memory_fraction": plan.engine.memory_share(launch.pools[role].service.limits),
        }
        for role in ROLES
    }
    files[MARK] = OutFile(text=json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    files["README.md"] = OutFile(text=_readme(launch, pools, how, files))
    return files


def _front(plan: LaunchPlan, local: LocalPrefill | None) -> dict[str, OutFile]:
    """TensorRT-LLM's front reads its servers from a file, which names hosts: its script fills them in."""
    router = plan.router
    if router is None:
        raise ValueError("a disaggregated plan must have a front")
    heads: dict[str, list[NodeProcess]] = {role: [] for role in ROLES}
    for replica in plan.replicas:
        heads[replica.head.name.partition("-")[0]].append(replica.head)
    servers = {role: [f"${{NODE_{p.node}}}:{p.http_port}" for p in found] for role, found in heads.items()}
    content = to_yaml(front_config(servers["prefill"], servers["decode"], local))
    script = scripts.process_script(plan, router)
    command = f'cat > "$HERE/{FRONT_FILE}" <<FRONT\n{content}FRONT\nexec '
    return {f"{router.name}.sh": OutFile(text=script.replace("exec ", command, 1), executable=True)}


def _readme(launch: PoolLaunch, pools: Pools, how: str | None, files: Mapping[str, OutFile]) -> str:
    """`how` it is started; None: by scripts."""
    plan = launch.joined
    values = {
        "plan": plan,
        "service": plan.service,
        "engine": plan.engine,
        "options_version": plan.engine.choose_version(plan.service.version)[0].version,
        "load": plan.service.load,
        "pools": [(role, getattr(pools, role)) for role in ROLES],
        "local": launch.local,
        "pairs": pools.prefill.layout.replicas * pools.decode.layout.replicas,
        "how": how,
        "scripts": how is None,
        "toy": plan.service.engine == "vllm",
        "bench": BENCH if BENCH in files else None,
        "where_model": where_model(plan.service),
        "rdma": RDMA,
        "selectors": {role: node_selector(side) for role, side in launch.pools.items() if side.node_types},
        "unknown": TO_FILL_IN,
        "node_ranges": node_ranges(plan),
        "node_network": [role for role in ROLES if needs_rdma(launch.pools[role])],
        **scripts.words(plan),
    }
    return filled("pools.md", values)
