"""Which GPUs of which node a replica lies on, and which part of the model each of them holds.

GPUs are numbered node by node; replica r takes the next `pp x W` of them. Engines start one command per node and
replica and expect the same number of GPUs at each, so that a replica lies inside one node, or takes whole nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autotune.launch.plan import Rank
from costmodel.errors import InputError
from costmodel.hardware import Cluster
from costmodel.plan.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """GPUs of one node that belong to one replica."""

    node: int
    gpus: tuple[int, ...]


def node_count(cluster: Cluster) -> int:
    """Hosts of the cluster, the last one perhaps not full."""
    return -(-cluster.gpus // cluster.gpus_per_node)


def replica_slices(cluster: Cluster, layout: Layout) -> tuple[tuple[Slice, ...], ...]:
    """For every replica its GPUs by node, head first.

    Raises:
        InputError: `whole_nodes`: replicas would have to share nodes unevenly, for which engines have no command.
    """
    size, per_node = layout.pp * layout.width, cluster.gpus_per_node
    if (size <= per_node and per_node % size) or (size > per_node and size % per_node):
        raise InputError.single(
            "plan",
            "whole_nodes: a replica must fit a node a whole number of times or take whole nodes, got "
            f"{size} GPUs per replica (pp {layout.pp} x W {layout.width}), {per_node} GPUs per node",
        )
    out = []
    for replica in range(layout.replicas):
        first = replica * size
        indices = range(first, first + size)
        nodes = range(first // per_node, (first + size - 1) // per_node + 1)
        out.append(tuple(Slice(node=n, gpus=tuple(i % per_node for i in indices if i // per_node == n)) for n in nodes))
    return tuple(out)


def rank_map(
    layout: Layout, slices: tuple[Slice, ...], order: Callable[[Layout, int], tuple[int, int, int]]
) -> tuple[Rank, ...]:
    """What each GPU of a replica holds. `order` says pipeline stage, place in the stage and expert index of a rank."""
    places = [(s.node, gpu) for s in slices for gpu in s.gpus]
    out = []
    for rank, (node, gpu) in enumerate(places):
        pp, place, expert = order(layout, rank)
        attn_tp, rest = place % layout.attn_tp, place // layout.attn_tp
        moe_tp, moe_ep = expert % max(layout.moe_tp, 1), expert // max(layout.moe_tp, 1)
        out.append(
            Rank(
                rank=rank,
                node=node,
                gpu=gpu,
                pp=pp,
                attn_dp=rest // layout.attn_cp,
                attn_cp=rest % layout.attn_cp,
                attn_tp=attn_tp,
                moe_ep=moe_ep if layout.moe_ep > 1 else 0,
                moe_tp=moe_tp if layout.moe_tp > 1 else 0,
            )
        )
    return tuple(out)


def dp_outermost(layout: Layout, rank: int) -> tuple[int, int, int]:
    """vLLM's order: data parallelism, pipeline, context, tensor, from slowest to fastest (`parallel_state.py`)."""
    inner = layout.attn_cp * layout.attn_tp
    dp, rest = divmod(rank, layout.pp * inner)
    pp, place = divmod(rest, inner)
    return pp, dp * inner + place, dp * inner + place


def stage_outermost(layout: Layout, rank: int) -> tuple[int, int, int]:
    """SGLang's order: a whole stage on neighbouring ranks; an expert's shards on neighbouring ranks."""
    pp, place = divmod(rank, layout.width)
    return pp, place, place


def stage_outermost_experts_inner(layout: Layout, rank: int) -> tuple[int, int, int]:
    """TensorRT-LLM's order: as SGLang's, but the experts of one shard on neighbouring ranks (`mapping.py`)."""
    pp, place = divmod(rank, layout.width)
    moe_tp, moe_ep = divmod(place, layout.moe_ep)
    return pp, place, moe_ep * layout.moe_tp + moe_tp
