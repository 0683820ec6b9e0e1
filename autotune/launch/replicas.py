"""The processes of a plan: where its replicas lie, which command starts on which node, and what spreads requests.

GPUs are numbered node by node; replica r takes the next `pp x W` of them. Engines start one command per node and
replica and expect the same number of GPUs at each, so that a replica lies inside one node, or takes whole nodes.
"""

from __future__ import annotations

import numpy as np

from autotune.engines import ENGINES, Engine, ReplicaNodes
from autotune.engines.command_line import NodeHost
from autotune.engines.options import OptionList
from autotune.engines.service import Service
from autotune.launch.plan import LaunchPlan, NodeProcess, Rank, Replica
from autotune.space import violations
from costmodel.errors import InputError, Problem
from costmodel.hardware import Cluster
from costmodel.plan.layout import Layout
from costmodel.plan.placement import stage_ranks


def replica_nodes(cluster: Cluster, layout: Layout, *, first_node_alone: bool) -> tuple[ReplicaNodes, ...]:
    """Where every replica lies, or those of the first node, or the first that takes more.

    Raises:
        InputError: `whole_nodes`: replicas would have to share nodes unevenly, for which engines have no command.
    """
    size, per_node = layout.pp * layout.width, cluster.gpus_per_node
    if not cluster.takes_whole(size):
        raise InputError.single(
            "plan",
            "whole_nodes: a replica must fit a node a whole number of times or take whole nodes, got "
            f"{size} GPUs per replica (pp {layout.pp} x W {layout.width}), {per_node} GPUs per node",
        )
    out = []
    replicas = min(layout.replicas, max(per_node // size, 1)) if first_node_alone else layout.replicas
    for first in range(0, replicas * size, size):
        nodes = range(first // per_node, (first + size - 1) // per_node + 1)
        gpus = range(first % per_node, first % per_node + size // len(nodes))
        out.append(ReplicaNodes(nodes=tuple(nodes), gpus=tuple(gpus)))
    return tuple(out)


def rank_map(layout: Layout, place: ReplicaNodes, engine: Engine) -> tuple[Rank, ...]:
    """What each GPU of a replica holds, in the engine's order of ranks."""
    order = np.argsort(stage_ranks(layout, engine.traits), axis=None)  # rank -> place, stage by stage
    out = []
    for rank, (pp, index) in enumerate(divmod(int(i), layout.width) for i in order):
        rest, attn_tp = divmod(index, layout.attn_tp)
        attn_dp, attn_cp = divmod(rest, layout.attn_cp)
        moe_ep, moe_tp = engine.expert_shard(layout, index) if layout.moe_ep * layout.moe_tp > 1 else (0, 0)
        node, gpu = divmod(rank, len(place.gpus))
        out.append(
            Rank(
                rank=rank,
                node=place.nodes[node],
                gpu=place.gpus[gpu],
                pp=pp,
                attn_dp=attn_dp,
                attn_cp=attn_cp,
                attn_tp=attn_tp,
                moe_ep=moe_ep,
                moe_tp=moe_tp,
            )
        )
    return tuple(out)


def launch_plan(service: Service, options: OptionList, *, first_node_alone: bool = False) -> LaunchPlan:
    """What starts on which node.

    `first_node_alone`: of the replicas that lie on the first node, or the first that takes more.
    What an engine refuses, it refuses of these: the others differ in their hosts.

    Raises:
        InputError: every rule of the engine that the plan breaks, or the first thing in it that this version has no
            option for, or that its nodes do not allow.
    """
    engine = ENGINES[service.engine]
    broken = violations(service.arch, engine.name, service.layout, service.version)
    if broken:
        raise InputError(Problem(path="plan", message=f"{v.rule}: {v.message}") for v in broken)
    if service.hybrid_lb and not engine.every_node_may_answer:
        raise InputError.single("--hybrid-lb", f"hybrid_lb: with {engine.title} only the head of a replica answers")
    places = replica_nodes(service.cluster, service.layout, first_node_alone=first_node_alone)
    nodes = len(places[0].nodes)
    engine.check_nodes(service, nodes)
    replicas = tuple(_replica(service, engine, options, i, place) for i, place in enumerate(places))
    hosts = -(-service.cluster.gpus // service.cluster.gpus_per_node)  # the last one perhaps not full
    return LaunchPlan(
        service=service,
        nodes=tuple(f"NODE_{i}" for i in range(hosts)),
        gpus_per_node=service.cluster.gpus_per_node,
        replicas=replicas,
        router=_router(engine, replicas, int(engine.ready_s + service.download_s)),
        files=engine.files(service, options),
        program_words=len(options.command.split()),
        assumptions=(*service.assumptions, *engine.assumptions(service, nodes)),
    )


def _replica(service: Service, engine: Engine, options: OptionList, index: int, place: ReplicaNodes) -> Replica:
    servers_per_node, many = service.cluster.gpus_per_node // len(place.gpus), len(place.nodes) > 1
    port = engine.http_port + engine.ports_apart * (index % servers_per_node)
    env = dict(engine.environment(service))
    if servers_per_node > 1:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, place.gpus))
    if engine.partition_variable is not None and len(set(service.layout.stage_layers)) > 1:
        env[engine.partition_variable] = ",".join(map(str, service.layout.stage_layers))
    processes = []
    for rank, node in enumerate(place.nodes if engine.process_per_node else place.nodes[:1]):
        answers = rank == 0 or service.hybrid_lb
        processes.append(
            NodeProcess(
                name=f"replica{index}-node{rank}",
                replica=index,
                node=node,
                node_rank=rank,
                role="head" if answers else "worker",
                gpus=place.gpus,
                argv=engine.command(service, options, place, rank, port),
                env=env,
                http_port=port if answers else None,
                other_ports=engine.peer_ports if many and rank == 0 else (),
            )
        )
    ranks = rank_map(service.layout, place, engine)
    return Replica(index=index, nodes=place.nodes, processes=tuple(processes), ranks=ranks)


def _router(engine: Engine, replicas: tuple[Replica, ...], start_s: int) -> NodeProcess | None:
    if engine.router is None or len(replicas) == 1:
        return None
    hosts = [NodeHost(node=r.nodes[0], port=r.head.http_port, scheme="http://") for r in replicas]
    return NodeProcess(
        name="router",
        replica=0,
        node=replicas[0].nodes[0],
        node_rank=0,
        role="router",
        gpus=(),
        argv=engine.router.command(hosts, start_s),
        http_port=engine.router.port,
    )
