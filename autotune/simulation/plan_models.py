"""The model by which a plan of a study is simulated: of its replicas, or of both its pools."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np

from autotune.disaggregated.pool_rows import transfer_link
from autotune.disaggregated.rescore import both_pools, decoding
from autotune.engines import ENGINES
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.plan_result import PlanResult
from autotune.study import Study
from costmodel.disaggregated.kv_transfer import exposed_s
from costmodel.disaggregated.pool import Pool
from costmodel.disaggregated.slot_wait import OWN_STEPS
from costmodel.plan.columns import Floats
from costmodel.simulation.forecast import StepErrors
from costmodel.simulation.policies import CHUNKED, Policy
from costmodel.simulation.pools import PoolsModel, slowed
from costmodel.simulation.server import server_model
from costmodel.simulation.simulate import Routing, ServerModel

LEAST_BETWEEN_S = 1e-3
"""From one pool to the other, or from the front to the decode pool, at least."""


def plan_model(
    study: Study, plan: PlanResult, *, open_loop: bool, routing: Routing
) -> tuple[ServerModel | PoolsModel, StepErrors]:
    """A plan as it is simulated, and what the calibration says of its steps at the load that it was scored for.

    Args:
        study: whose requests and engine options these are.
        plan: scored for the load that is simulated: how long steps are depends on how many requests share them.
        open_loop: whether requests come whatever the plan does.
        routing: how the router in front of replicas chooses one; pools have their own.
    """
    if plan.pools is not None:
        return pools_model(study, plan)
    return _server_model(study, plan, open_loop=open_loop, routing=routing)


def _server_model(
    study: Study, plan: PlanResult, *, open_loop: bool, routing: Routing
) -> tuple[ServerModel, StepErrors]:
    """A plan of one kind of replica, with as many requests in flight as its knobs say."""
    grid = KnobGrid.of(study, [Variant.of(plan)], [plan.knobs.max_num_batched_tokens])
    concurrency = np.array([float(plan.knobs.concurrency)])
    load, bounds = grid.load(concurrency), grid.bounds()
    model = server_model(
        grid.batch,
        load,
        policy=ENGINES[plan.engine].policy,
        longest_prompt=bounds["longest_prompt"],
        memory_fraction=bounds["memory_fraction"],
        routing=routing,
    )
    return model, StepErrors.of(grid.batch, load, open_loop=open_loop, **bounds)


def pools_model(study: Study, plan: PlanResult) -> tuple[PoolsModel, StepErrors]:
    """Both pools of a plan with what measured pools say of their steps, and how sure that is.

    Steps of the decode pool are so much longer than the formulas' as at the load that the plan was ranked for. What is
    left of the error of TTFT is its own: the steps of a pool say little about it.
    """
    if plan.pools is None:
        raise ValueError(f"plan must be disaggregated, got {plan.plan}")
    prefill, decode = both_pools(study, plan)
    policy = ENGINES[plan.engine].policy
    factor = prefill.full_stage_s / prefill.full.stage_s
    first = _server(prefill, policy, seats=None, factor=factor)
    # nothing is prefilled here, so that no engine makes decoding wait for a prompt whose cache has come
    mixing = policy if policy.mixes else CHUNKED
    running = np.array([decoding(study, plan)])
    per_rank = running / decode.batch.layout.replicas / decode.batch.layout.attn_dp
    factor = decode.factors.decode(decode.batch, per_rank)
    second = _server(decode, mixing, seats=plan.pools.decode.max_num_seqs, factor=factor)
    if second.table.capture_tokens >= 0.0:
        # who comes with a cache is taken up by a captured step of decoding
        second = replace(second, table=replace(second.table, capture_tokens=inf))
    link = transfer_link(study, *(pool.batch.cells[0][1].gpu for pool in (prefill, decode)))
    sent_s = float((exposed_s(link, prefill.wire_s, decode.wire_s) + decode.start_s)[0])
    point = decode.at(running)
    handover_s = float(decode.handover_s(point.columns.latency_s)[0])
    own_s = OWN_STEPS * float(point.columns.latency_s[0])
    model = PoolsModel(
        prefill=first,
        decode=second,
        between_s=max(sent_s + handover_s - own_s, LEAST_BETWEEN_S),
        local_tokens=plan.pools.max_local_prefill_tokens,
        local_needs_hit=ENGINES[plan.engine].decode_pool_prefills == "cached",
        local_s=max(handover_s, LEAST_BETWEEN_S),
    )
    errors = StepErrors(
        pace=1.0,
        pace_log_sd=float(decode.factors.tpot_log_sd[0]),
        first=1.0,
        first_log_sd=float(prefill.factors.ttft_log_sd[0]),
    )
    return model, errors


def _server(pool: Pool, policy: Policy, *, seats: int | None, factor: Floats) -> ServerModel:
    """The replicas of one pool with steps of the length that was measured; `seats` None: the engine's own."""
    load = pool.load if seats is None else replace(pool.load, max_num_seqs=np.array([float(seats)]))
    found = server_model(
        pool.batch,
        load,
        policy=policy,
        longest_prompt=pool.longest_prompt,
        memory_fraction=pool.memory_fraction,
    )
    # what was measured of the hand-over from pool to pool stands in for that of prompts to decoding and for the front
    table = replace(slowed(found.table, float(factor[0])), handover_steps=0.0, frontend_s=0.0, token_s=0.0)
    return replace(found, table=table)
