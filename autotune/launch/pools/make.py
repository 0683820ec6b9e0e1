"""A disaggregated plan as the processes of both pools: two launch plans, joined into one whose nodes they share out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

from autotune.disaggregated.rescore import as_launched
from autotune.engines import ENGINES
from autotune.engines.command_line import Arg, FilePath, HostSlots, NodeHost
from autotune.engines.options import OptionList
from autotune.launch.plan import LaunchPlan, NodeProcess, Replica
from autotune.launch.pools.connect import (
    FRONT_PORT,
    TOY_FOLDER,
    TOY_HEALTH_PATH,
    front_argv,
    pair_environment,
    pool_argv,
    pool_config,
    pool_ports,
    side_channel,
)
from autotune.launch.replicas import launch_plan
from autotune.launch.service import LaunchOptions, check_model, make_service, scored_load
from autotune.space import format_plan
from autotune.space.pool_plan import ROLES, PoolPlan, Pools
from autotune.study import Study, on_cluster
from autotune.study.wider_search import LocalPrefill
from autotune.tuning import PlanResult, score_plan
from costmodel.errors import InputError
from costmodel.hardware import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLaunch:
    """The processes of a disaggregated plan."""

    pools: Mapping[str, LaunchPlan]
    """By role, each with nodes of its own and the options that make it a pool."""
    local: LocalPrefill | None
    """Prompts that the front sends straight to the decode pool; None: none."""
    joined: LaunchPlan
    """All processes with names, nodes, GPUs and ports of the whole, and the front as its router."""


def make_pool_launch(
    study: Study, plan: PlanResult, *, asked: LaunchOptions, assumptions: tuple[str, ...], usual_version: str | None
) -> PoolLaunch:
    """The processes of a disaggregated plan; arguments as those of `make_export`.

    Raises:
        InputError: what the engine or its version cannot express, by the name of the rule; pools that share a node
            without fitting it together.
    """
    check_model(study, asked)
    pools = plan.pools
    if pools is None:
        raise ValueError(f"plan must be disaggregated, got {plan.plan}")
    version = asked.version or (study.engine_version if study.engine == plan.engine else None)
    options, assumed = ENGINES[plan.engine].choose_version(version or usual_version)
    asked = replace(asked, version=version or usual_version)
    sides = {role: _side(study, plan, role, pools, options, asked) for role in ROLES}
    _check_nodes(pools, {role: side.service.cluster for role, side in sides.items()})
    if pools.prefill.gpu != pools.decode.gpu:
        sides = {r: replace(s, node_types=(s.service.cluster,) * len(s.nodes)) for r, s in sides.items()}
    joined = _joined(study, plan, sides)
    said = tuple(dict.fromkeys((*assumptions, *assumed, *joined.assumptions)))
    local = as_launched(study, plan).axes.local_prefill
    return PoolLaunch(pools=sides, local=local, joined=replace(joined, assumptions=said))


def _side(
    study: Study, plan: PlanResult, role: str, pools: Pools, options: OptionList, asked: LaunchOptions
) -> LaunchPlan:
    """One pool by itself: its layout as a plan of its own GPUs, started with the pool's limits."""
    pool: PoolPlan = getattr(pools, role)
    own = next(c for c in (study.cluster, *study.axes.other_gpus) if c.gpu.name == pool.gpu)
    alone = on_cluster(study, replace(own, gpus=pool.gpus))
    alone = replace(alone, axes=replace(alone.axes, disaggregated="off", other_gpus=()), baseline=None)
    scored = score_plan(
        alone,
        format_plan(pool.layout, plan.engine),
        concurrency=max(round(pool.in_flight), 1),
        batched_tokens=pool.max_num_batched_tokens,
        weight_dtype=plan.knobs.weight_dtype,
        kv_dtype=plan.knobs.kv_dtype,
        path=f"--plan, {role} pool",
    )
    if scored.result is None:
        broken = "; ".join(f"{v.rule}: {v.message}" for v in scored.resolution.violations)
        raise InputError.single("--plan", f"{role} pool: {broken}")
    service = make_service(alone, scored.result, options, asked)
    budget = max(pool.max_num_batched_tokens, pool.max_num_seqs)
    limits = replace(service.limits, max_num_seqs=pool.max_num_seqs, max_num_batched_tokens=budget)
    assumptions = tuple(a for a in service.assumptions if a not in limits.of_sequences)  # a pool has its own
    made = launch_plan(replace(service, limits=limits, assumptions=assumptions), options)
    longest = study.workload.longest_prompt
    env = pair_environment(plan.engine, study.arch, pools.prefill.layout.attn_tp, pools.decode.layout.attn_tp)
    files = {
        name: pool_config(options, role, dict(content), longest, skips=pools.local_frac > 0.0)
        for name, content in made.files.items()
    }
    replicas = tuple(_connected(replica, role, options, env) for replica in made.replicas)
    return replace(made, replicas=replicas, files=files, router=None, hands_over=True)


def _connected(replica: Replica, role: str, options: OptionList, env: Mapping[str, str]) -> Replica:
    processes = tuple(
        replace(p, argv=pool_argv(options, role, p.argv, replica.index_on_node), env={**p.env, **env})
        for p in replica.processes
    )
    return replace(replica, processes=processes)


def _check_nodes(pools: Pools, clusters: Mapping[str, Cluster]) -> None:
    """Raises `InputError`: a pool begins within a node, and a server of it would lie on two."""
    nodes = {role: cluster.gpus_per_node for role, cluster in clusters.items()}
    per_node, begins = nodes["decode"], pools.prefill.gpus % nodes["prefill"]
    each = pools.decode.gpus // pools.decode.layout.replicas
    starts = range(begins, begins + pools.decode.gpus, each)
    fit = all(start % per_node + each <= per_node for start in starts)
    one_type = pools.prefill.gpu == pools.decode.gpu and nodes["prefill"] == per_node
    if begins and not (fit and one_type):
        raise InputError.single(
            "--plan",
            f"pool_nodes: pools must fill whole nodes of {nodes['prefill']} GPUs, or have servers that fit what is "
            f"left of one, got {pools.prefill.gpus} and {pools.decode.gpus} GPUs; see "
            "disaggregation.pool_gpus_multiple_of",
        )


def _joined(study: Study, plan: PlanResult, sides: Mapping[str, LaunchPlan]) -> LaunchPlan:
    first, second = (sides[role] for role in ROLES)
    begins, per_node = first.service.cluster.gpus, first.gpus_per_node
    shares = begins % per_node != 0
    replicas = tuple(_moved(r, _Move(role="prefill"), first) for r in first.replicas)
    for r in second.replicas:
        node, gpu = divmod(begins + r.nodes[0] * per_node + r.head.gpus[0], per_node)
        move = _Move(
            role="decode",
            nodes=node - r.nodes[0] if shares else len(first.nodes),
            gpus=gpu - r.head.gpus[0] if shares else 0,
            ports=PORTS_APART if shares else 0,
            replicas=len(first.replicas),
        )
        replicas += (_moved(r, move, second),)
    heads = {
        role: [
            NodeHost(node=r.head.node, port=r.head.http_port, scheme="http://")
            for r in replicas
            if r.head.name.startswith(role)
        ]
        for role in ROLES
    }
    router = NodeProcess(
        name="front",
        replica=0,
        node=replicas[0].head.node,
        node_rank=0,
        role="router",
        gpus=(),
        argv=front_argv(plan.engine, heads["prefill"], heads["decode"], max(first.start_s, second.start_s)),
        http_port=FRONT_PORT,
        health_path=TOY_HEALTH_PATH if plan.engine == "vllm" else None,
        folder=TOY_FOLDER if plan.engine == "vllm" else None,
    )
    count = 1 + max(node for r in replicas for node in r.nodes)
    load = cache(partial(scored_load, study, plan))
    service = replace(second.service, plan=plan.plan, knobs=plan.knobs, make_load=load)
    return replace(
        second,
        service=service,
        nodes=tuple(f"NODE_{i}" for i in range(count)),
        replicas=replicas,
        node_types=(*first.node_types, *second.node_types),
        router=router,
        files={f"{role}-{name}": content for role in ROLES for name, content in sides[role].files.items()},
        assumptions=tuple(f"{role} pool: {text}" for role in ROLES for text in sides[role].assumptions),
    )


PORTS_APART = 200
"""Between the ports of pools that share a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    """How a server of a pool moves when it becomes part of the whole."""

    role: str
    nodes: int = 0
    gpus: int = 0
    ports: int = 0
    replicas: int = 0


def _moved(replica: Replica, move: _Move, plan: LaunchPlan) -> Replica:
    def argument(arg: Arg) -> Arg:
        if isinstance(arg, NodeHost):
            return replace(arg, node=arg.node + move.nodes, port=None if arg.port is None else arg.port + move.ports)
        if isinstance(arg, HostSlots):
            return replace(arg, nodes=tuple(n + move.nodes for n in arg.nodes))
        return FilePath(name=f"{move.role}-{arg.name}") if isinstance(arg, FilePath) else arg

    processes = []
    for p in replica.processes:
        argv = [argument(a) for a in p.argv]
        port = None if p.http_port is None else p.http_port + move.ports
        if p.http_port is not None and move.ports:
            argv = [str(port) if a == str(p.http_port) else a for a in argv]
        gpus = tuple(g + move.gpus for g in p.gpus)
        env = dict(p.env)
        if move.gpus or "CUDA_VISIBLE_DEVICES" in env or len(gpus) < plan.gpus_per_node:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
        channel = replica.index_on_node + (len(plan.replicas) if move.ports else 0)
        reached = pool_ports(
            plan.service.engine, move.role, channel, plan.service.layout.attn_dp, head=p.node_rank == 0
        )
        if plan.service.engine == "vllm":
            argv = list(side_channel(argv, p.node + move.nodes, reached[0]))
        processes.append(
            replace(
                p,
                name=f"{move.role}-{p.name}",
                replica=p.replica + move.replicas,
                node=p.node + move.nodes,
                gpus=gpus,
                argv=tuple(argv),
                env=env,
                http_port=port,
                other_ports=(*(q + move.ports for q in p.other_ports), *reached),
            )
        )
    return replace(
        replica,
        index=replica.index + move.replicas,
        nodes=tuple(n + move.nodes for n in replica.nodes),
        processes=tuple(processes),
        ranks=tuple(replace(r, node=r.node + move.nodes, gpu=r.gpu + move.gpus) for r in replica.ranks),
    )
