"""A disaggregated plan as it is launched, looked at again: under another study, at other loads, at its start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autotune.disaggregated.operating_points import (
    Dtypes,
    Evaluator,
    PoolRows,
    operating_points,
    pool_rows,
    settled,
)
from autotune.disaggregated.plan_results import pair_results, pool_cluster
from autotune.disaggregated.search import best_pair
from autotune.scoring.plan_result import PlanResult
from autotune.space import Candidate
from autotune.space.pool_plan import ROLES, PoolPlan
from autotune.study import Study
from costmodel.disaggregated.pairing import PairService
from costmodel.plan.columns import Floats


def rescored_pools(study: Study, plan: PlanResult) -> PlanResult:
    """The same launch under another study's traffic and limits, at the load that suits those best.

    Raises:
        InputError: the study has none of a pool's GPUs.
    """
    prefill, decode = (operating_points(rows) for rows in _rows(study, plan))
    return pair_results(study, [best_pair(study, prefill, decode)], home=study.cluster.gpu.name)[0]


def pools_at(study: Study, plan: PlanResult, loads: Floats) -> PairService:
    """The same launch with each number of requests in flight, shape `(len(loads),)`.

    The pools admit what keeps the limits on their latencies, the rest waits in front of them.
    """
    open_study = replace(study, workload=replace(study.workload, concurrency=None, request_rate_per_s=None))
    prefill, decode = (operating_points(rows) for rows in _rows(open_study, plan))
    same = np.zeros(loads.size, dtype=np.int64)
    return settled(prefill, same, decode, same, loads).pair


def pool_capacities(study: Study, plan: PlanResult) -> tuple[float, float]:
    """Requests per second that each pool could do within the limits on its own latency, whatever is asked for."""
    open_study = replace(study, workload=replace(study.workload, concurrency=None, request_rate_per_s=None))
    first, second = (operating_points(rows) for rows in _rows(open_study, plan))
    return float(first.columns.requests_per_s.max()), float(second.columns.requests_per_s.max())


def pool_weight_bytes(study: Study, plan: PlanResult) -> tuple[float, float]:
    """Weights on the GPU that fills first, of the prefill pool and of the decode pool."""
    first, second = (
        float(Evaluator(rows, np.zeros(1, dtype=np.int64))(np.full(1, at)).memory.weight_bytes[0])
        for rows, at in zip(_rows(study, plan), (0.5, 1.0), strict=True)
    )
    return first, second


def _rows(study: Study, plan: PlanResult) -> tuple[PoolRows, PoolRows]:
    """Both pools with the plan's own layouts, dtypes and token budgets."""
    if plan.pools is None:
        raise ValueError(f"plan must be disaggregated, got {plan.plan}")
    dtypes = Dtypes(weight=plan.knobs.weight_dtype, kv=plan.knobs.kv_dtype)
    pools: tuple[PoolPlan, PoolPlan] = (plan.pools.prefill, plan.pools.decode)
    first, second = (
        pool_rows(
            study,
            role,
            pool_cluster(study, pool.gpu),
            dtypes,
            (Candidate(engine=plan.engine, layout=pool.layout),),
            plan.engine,
            budgets=(pool.max_num_batched_tokens,),
        )
        for role, pool in zip(ROLES, pools, strict=True)
    )
    return first, second
