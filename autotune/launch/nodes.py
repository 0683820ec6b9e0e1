"""Which GPUs of which node a replica lies on, and which part of the model each of them holds.

GPUs are numbered node by node; replica r takes the next `pp x W` of them. Engines start one command per node and
replica and expect the same number of GPUs at each, so that a replica lies inside one node, or takes whole nodes.
"""

from __future__ import annotations

import numpy as np

from autotune.engines import Engine, ReplicaNodes
from autotune.launch.plan import Rank
from costmodel.errors import InputError
from costmodel.hardware import Cluster
from costmodel.plan.layout import Layout
from costmodel.plan.rank_order import stage_ranks


def node_count(cluster: Cluster) -> int:
    """Hosts of the cluster, the last one perhaps not full."""
    return -(-cluster.gpus // cluster.gpus_per_node)


def replica_nodes(cluster: Cluster, layout: Layout) -> tuple[ReplicaNodes, ...]:
    """Where every replica lies.

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
    for first in range(0, layout.replicas * size, size):
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
