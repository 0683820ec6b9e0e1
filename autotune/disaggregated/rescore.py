"""Plans as they are launched, looked at again: under another study, at other loads, pools at their start as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.disaggregated.local_prefill import with_local_prefill
from autotune.disaggregated.operating_points import operating_points, settled
from autotune.disaggregated.pairs import best_pair
from autotune.disaggregated.plan_results import pair_results, pool_cluster
from autotune.disaggregated.pool_rows import Dtypes, Evaluator, PoolRows, pool_rows, transfer_link
from autotune.disaggregated.refine_loads import at_best_loads
from autotune.scoring.best_knobs import score_launches
from autotune.scoring.plan_result import PlanResult
from autotune.space import Candidate
from autotune.space.pool_plan import ROLES, PoolPlan
from autotune.study import Study, started_with
from costmodel.disaggregated.closed_loop import most_decoding
from costmodel.disaggregated.decode_pool import DecodePool
from costmodel.disaggregated.pairing import PairService
from costmodel.disaggregated.prefill_pool import PrefillPool
from costmodel.estimate.batch import PlanBatch
from costmodel.hardware import Cluster
from costmodel.plan.columns import Floats
from costmodel.plan.layout import Layout
from costmodel.step.pipeline_pass import Pass


def rescored(study: Study, plan: PlanResult) -> PlanResult:
    """The same launch under another study's traffic and limits."""
    return rescored_each(study, [plan])[0]


def rescored_each(study: Study, plans: Sequence[PlanResult]) -> list[PlanResult]:
    """Launches under another study's traffic and limits, in their order; one call of the cost model for all."""
    launches = iter(score_launches(study, [plan for plan in plans if plan.pools is None]))
    return [next(launches) if plan.pools is None else rescored_pools(study, plan) for plan in plans]


def rescored_pools(study: Study, plan: PlanResult) -> PlanResult:
    """The same launch under another study's traffic and limits, at the load that suits those best.

    Raises:
        InputError: the study has none of a pool's GPUs.
    """
    own = as_launched(study, plan)
    prefill, decode = (operating_points(rows) for rows in launched_rows(own, plan))
    best = at_best_loads(own, [best_pair(own, prefill, decode)])
    return replace(pair_results(own, best, home=own.cluster.gpu.name)[0], own_options=plan.own_options)


def pools_at(study: Study, plan: PlanResult, loads: Floats) -> PairService:
    """The same launch with each number of requests in flight, shape `(len(loads),)`.

    The pools admit what keeps the limits on their latencies, the rest waits in front of them.
    """
    prefill, decode = (operating_points(rows) for rows in launched_rows(study.without_load(), plan))
    same, once = np.zeros(loads.size, dtype=np.int64), np.ones(loads.size, dtype=np.int64)
    return settled(prefill, decode, (same, same), (once, once), loads).pair


def pool_capacities(study: Study, plan: PlanResult) -> tuple[float, float]:
    """Requests per second that each pool does at most, however long they take, with slots as it is launched with.

    No load has the closed loop serve more of the same plan (`costmodel.disaggregated.closed_loop`).
    """
    first, second = both_pools(study, plan)
    rows = launched_rows(study, plan)[1]
    replicas = float(second.batch.layout.replicas[0])
    most = float(most_decoding(second)[0])
    # a few more than what a captured step holds may take so much longer that less is served
    loads = np.append(np.arange(1.0, most / replicas) * replicas, max(most, 1.0))
    able = Evaluator(rows, np.zeros(loads.size, dtype=np.int64))(loads).columns.requests_per_s
    return float(first.able_per_s[0]), float(able.max())


def decoding(study: Study, plan: PlanResult) -> float:
    """Sequences that decode at the load that a plan was ranked for, over all workers of the pool, at least one."""
    if plan.pools is None:
        raise ValueError(f"plan must be disaggregated, got {plan.plan}")
    outputs = max(study.workload.osl.mean - 1.0, 1.0)
    return max(plan.pools.decode.requests_per_s * outputs * plan.metrics["tpot_s"], 1.0)


def pool_weight_bytes(study: Study, plan: PlanResult) -> tuple[float, float]:
    """Weights on the GPU that fills first, of the prefill pool and of the decode pool."""
    first, second = (
        float(Evaluator(rows, np.zeros(1, dtype=np.int64))(np.full(1, at)).memory.weight_bytes[0])
        for rows, at in zip(launched_rows(study, plan), (0.5, 1.0), strict=True)
    )
    return first, second


def both_pools(study: Study, plan: PlanResult) -> tuple[PrefillPool, DecodePool]:
    """Both pools of a plan as the cost model has them, ready for any load."""
    first, second = (Evaluator(rows, np.zeros(1, dtype=np.int64)).pool for rows in launched_rows(study, plan))
    if not isinstance(first, PrefillPool) or not isinstance(second, DecodePool):
        raise TypeError("pools must stand in the order of their roles")
    return first, second


def as_launched(study: Study, plan: PlanResult) -> Study:
    """The study with the setting of the plan's front, its engine, and what that is started with."""
    own = started_with(study, plan.own_options)
    if plan.pools is None:
        return own
    return with_local_prefill(own, plan.pools.max_local_prefill_tokens, plan.engine)


def launched_rows(study: Study, plan: PlanResult) -> tuple[PoolRows, PoolRows]:
    """Both pools with the plan's own layouts, dtypes, token budgets and slots."""
    if plan.pools is None:
        raise ValueError(f"plan must be disaggregated, got {plan.plan}")
    own = as_launched(study, plan)
    dtypes = Dtypes(weight=plan.knobs.weight_dtype, kv=plan.knobs.kv_dtype)
    pools: tuple[PoolPlan, PoolPlan] = (plan.pools.prefill, plan.pools.decode)
    first, second = (
        pool_rows(
            own,
            role,
            pool_cluster(own, pool.gpu),
            dtypes,
            (Candidate(engine=plan.engine, layout=pool.layout),),
            plan.engine,
            budgets=(pool.max_num_batched_tokens,),
            slots=pool.max_num_seqs if role == "decode" else None,
        )
        for role, pool in zip(ROLES, pools, strict=True)
    )
    return first, second


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSide:
    """What a worker of one pool runs in a step."""

    batch: PlanBatch
    layout: Layout
    cluster: Cluster
    passes: Pass
    count: float
    """Passes that follow each other: chunks of a prompt, or micro-batches of a decode step."""
    drafted: float
    """What drafting makes of the step that verifies: 1 without."""
    round_s: float | None
    """Decoding: from one token of a sequence to its next, by the formulas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCosts:
    """A disaggregated plan at its load, with what its steps are made of."""

    prefill: PoolSide
    decode: PoolSide
    kv_bytes: float
    """Cache of a prompt on the sending rank that holds most of it."""
    transfer_s: float
    """Of the slower side, start included, nothing hidden."""
    handover_s: float
    crosses: bool
    """Whether the cache leaves the scale-up domain."""

    def side(self, role: str) -> PoolSide:
        """One pool, by role."""
        return self.prefill if role == "prefill" else self.decode


def pool_costs(study: Study, plan: PlanResult) -> PoolCosts:
    """The steps of both pools of a plan, as its graph and its export need them."""
    first, second = both_pools(study, plan)
    sequences = decoding(study, plan)
    point = second.at(np.array([sequences]))
    both = launched_rows(study, plan)
    layouts, clusters = [rows.layouts[0].layout for rows in both], [rows.cluster for rows in both]
    running = sequences / min(layouts[1].replicas, sequences)
    slots = min(float(layouts[1].pp), running)
    step, link = point.passes, transfer_link(study, clusters[0].gpu, clusters[1].gpu)
    drafted = float(1.0 + second.load.draft_frac[0])
    round_s = drafted * max(float(step.through_s[0]), slots * float(step.stage_s[0]))
    start_s = float(second.start_s[0])
    return PoolCosts(
        prefill=PoolSide(
            batch=first.batch,
            layout=layouts[0],
            cluster=clusters[0],
            passes=first.lone,
            count=float(first.chunks[0]),
            drafted=1.0,
            round_s=None,
        ),
        decode=PoolSide(
            batch=second.batch,
            layout=layouts[1],
            cluster=clusters[1],
            passes=step,
            count=slots,
            drafted=drafted,
            round_s=round_s,
        ),
        kv_bytes=float(first.prompt_bytes[0]),
        transfer_s=float(max(first.wire_s[0], second.wire_s[0])) + start_s,
        handover_s=float(second.handover_s(point.columns.latency_s)[0]),
        crosses=not link.same_domain,
    )
