"""The graph of a disaggregated plan: a prompt in a prefill worker, its KV cache on the way, a decode worker's step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autotune.disaggregated.rescore import PoolCosts, pool_costs
from autotune.engines import ENGINES
from autotune.graph.build import HOST, build
from autotune.graph.costs import PhaseCosts, pass_costs
from autotune.graph.drawing import MOST_NODES, Drawing, scheduled
from autotune.graph.values import (
    COMMUNICATION,
    COMPUTE,
    PHASES,
    SEND,
    Built,
    Edges,
    Group,
    Nodes,
    PlanGraph,
    Task,
)
from autotune.scoring.plan_result import PlanResult
from autotune.space.pool_plan import ROLES
from autotune.study import Study
from costmodel.errors import InputError
from costmodel.plan.layout import Layout

BOTH = "both"
"""The phase that draws both pools, and what lies between them."""
KV_TRANSFER, HAND_OVER = "kv_transfer", "hand_over"


def pool_graph(study: Study, plan: PlanResult, drawing: Drawing, assumed: Sequence[str]) -> PlanGraph:
    """Draw and schedule a worker of one pool, or one of each with the KV transfer between them.

    `drawing`: `plan_graph`'s arguments; replicas must be 1, which is a worker of each pool.

    Raises:
        InputError: an argument is malformed, or the graph would be too large.
    """
    drawing.check((*PHASES, BOTH), 1)
    phase, costs = drawing.phase, pool_costs(study, plan)
    steps = {role: _costs(costs, role) for role in ROLES}
    counts = {role: drawing.micro_batches or steps[role].micro_batches for role in ROLES}
    drawn = [role for role in ROLES if phase in (role, BOTH)]
    built = {role: _built(study, plan, costs, role, steps[role], counts[role]) for role in drawn}
    model_s = sum(steps[role].model_step_s(counts[role]) for role in drawn)
    if phase == BOTH:
        model_s += costs.transfer_s + costs.handover_s
    return scheduled(
        study,
        plan,
        _joined(costs, built["prefill"], built["decode"]) if phase == BOTH else built[phase],
        replace(drawing, micro_batches=max(counts[role] for role in drawn), replicas=len(drawn)),
        model_s=(model_s, steps["decode"].round_s if "decode" in drawn else None),
        assumptions=(
            *assumed,
            *_assumed(steps, drawn, phase, local=plan.pools is not None and plan.pools.local_frac > 0.0),
        ),
    )


def _costs(costs: PoolCosts, role: str) -> PhaseCosts:
    own, decoding = costs.side(role), role == "decode"
    return pass_costs(
        own.batch, own.passes, decoding=decoding, count=own.count, drafted=own.drafted, round_s=own.round_s
    )


def _built(study: Study, plan: PlanResult, costs: PoolCosts, role: str, steps: PhaseCosts, count: int) -> Built:
    layout = replace(costs.side(role).layout, replicas=1)
    each = layout.width * sum(len(steps.steps[g.name]) * g.count for g in study.arch.groups)
    if each * count > MOST_NODES:
        raise InputError.single(
            "plan", f"the {role} worker's graph has about {each * count} nodes, at most {MOST_NODES}"
        )
    cluster, traits = costs.side(role).cluster, ENGINES[plan.engine].traits
    return build(study.arch, cluster, traits, layout, steps, phase=role, micro_batches=count, replicas=1)


def _joined(costs: PoolCosts, first: Built, second: Built) -> Built:
    """Both workers, the sends of the cache between them, and the hand-over before the decode step."""
    size, gpus = len(first.nodes.task), len(first.ranks)
    hosts = 1 + max(rank.host for rank in first.ranks)
    pairs = _senders_and_receivers(costs.side("prefill").layout, costs.side("decode").layout)
    rounds = max(sum(source == sender for source, _ in pairs) for sender, _ in pairs)
    transfer = Task(
        name=KV_TRANSFER,
        group=KV_TRANSFER,
        stream=COMMUNICATION,
        collective=SEND,
        message_bytes=costs.kv_bytes / rounds,
        seconds=costs.transfer_s / rounds,
    )
    wait = Task(name=HAND_OVER, group=HOST, stream=COMPUTE, seconds=costs.handover_s)
    tasks = (*first.tasks, transfer, wait, *second.tasks)
    sends = tuple(Group(kind=SEND, ranks=(s, gpus + r), crosses=costs.crosses) for s, r in pairs)
    groups = (
        *first.groups,
        *sends,
        *(replace(g, ranks=tuple(gpus + r for r in g.ranks)) for g in second.groups),
    )
    count, tasks_before, groups_before = len(pairs), len(first.tasks), len(first.groups)
    between = Nodes(
        task=_ints([*[tasks_before] * count, tasks_before + 1]),
        replica=_ints([*[0] * count, 1]),
        stage=_ints([0] * (count + 1)),
        micro_batch=_ints([0] * (count + 1)),
        layer=_ints([-1] * (count + 1)),
        position=_ints([*range(count), count]),
        rank=_ints([*[-1] * count, gpus]),
        group=_ints([*range(groups_before, groups_before + count), -1]),
    )
    shift = size + count + 1
    moved = replace(
        second.nodes,
        task=second.nodes.task + np.int32(tasks_before + 2),
        replica=second.nodes.replica + np.int32(1),
        rank=np.where(second.nodes.rank >= 0, second.nodes.rank + gpus, -1).astype(np.int32),
        group=np.where(second.nodes.group >= 0, second.nodes.group + groups_before + count, -1).astype(np.int32),
    )
    transfers, hand_over = np.arange(size, size + count), size + count
    ends, begins = _ends(first), shift + np.setdiff1d(np.arange(second.nodes.task.size), second.edges.target)
    sources = (np.repeat(ends, count), transfers, np.full(begins.size, hand_over))
    targets = (np.tile(transfers, ends.size), np.full(count, hand_over), begins)
    new = sum(part.size for part in sources)
    return Built(
        tasks=tasks,
        groups=groups,
        ranks=(
            *first.ranks,
            *(replace(rank, replica=rank.replica + 1, host=rank.host + hosts) for rank in second.ranks),
        ),
        nodes=Nodes(
            **{
                name: np.concatenate([getattr(part, name) for part in (first.nodes, between, moved)])
                for name in ("task", "replica", "stage", "micro_batch", "layer", "position", "rank", "group")
            }
        ),
        edges=Edges(
            source=np.concatenate([first.edges.source, *sources, second.edges.source + shift]).astype(np.int32),
            target=np.concatenate([first.edges.target, *targets, second.edges.target + shift]).astype(np.int32),
            order=np.concatenate([first.edges.order, np.zeros(new, dtype=bool), second.edges.order]),
        ),
    )


def _ints(values: list[int]) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


def _ends(built: Built) -> NDArray[np.int64]:
    """Nodes that nothing follows."""
    return np.setdiff1d(np.arange(built.nodes.task.size), built.edges.source)


def _senders_and_receivers(first: Layout, second: Layout) -> list[tuple[int, int]]:
    """Ranks of each send: those that hold a prompt's cache in one worker, and those that will hold it in the other.

    A prompt lies on the ranks of one attention-DP rank of every stage, the first of them here.
    """
    sides = []
    for layout in (first, second):
        own = layout.attn_tp * layout.attn_cp
        sides.append([stage * layout.width + i for stage in range(layout.pp) for i in range(own)])
    senders, receivers = sides
    count = max(len(senders), len(receivers))
    return [(senders[i % len(senders)], receivers[i % len(receivers)]) for i in range(count)]


def _assumed(steps: dict[str, PhaseCosts], drawn: list[str], phase: str, *, local: bool) -> tuple[str, ...]:
    out = []
    if "prefill" in drawn:
        own = steps["prefill"]
        out.append(
            f"one prompt of mean length, alone in a prefill worker, in {own.micro_batches} chunks of {own.tokens:.6g} "
            "tokens"
        )
    if "decode" in drawn:
        own = steps["decode"]
        also = ", without the prompts that some steps carry" if local else ""
        out.append(
            f"a step of a decode worker{also}: {own.tokens:.4g} sequences on each attention rank in each of "
            f"{own.micro_batches} micro-batches, at a mean context of {own.context:.6g} tokens"
        )
    if phase == BOTH:
        out.append("the cache is sent when the prompt's prefill is done, each sending rank's part over its own link")
        out.append("the hand-over, in which the decode worker takes the sequence in, is one node of host time")
    out.append("every rank is drawn with the work of the busiest; operators of a layer do not overlap")
    out.append("seconds are the cost model's formulas; what measured pools add to a step is not in")
    return tuple(out)
