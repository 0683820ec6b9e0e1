"""Evaluate a disaggregated plan: both pools, the transfer between them, how their rates match, what a GPU more brings.

A disaggregated plan has two layouts, so that the verdicts on single axes of `evaluate` have no meaning for it; its
checks and its distance to the best plan are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotune.disaggregated.rescore import pool_capacities
from autotune.scoring.gpu_time import pool_gpu_s_per_request
from autotune.space.pool_plan import ALIKE_FRAC, ROLES, Pools
from autotune.study import Study
from autotune.tuning import PlanResult, TuneResult
from costmodel.plan.layout import Layout

TRANSFER_PARTS = ("kv_transfer",)
"""Parts of TTFT that the way from one pool to the other takes."""

ROUNDING = 1.0 + 1e-9
"""By which factor a rate may fall short of one that it carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSection:
    """One pool of an evaluated plan."""

    role: str
    gpu: str
    gpus: int
    layout: Layout
    workers: int
    max_num_seqs: int
    """Sequences at once, per attention-DP rank: in a decode pool its slots."""
    slots: int
    """The same over the whole pool."""
    max_num_batched_tokens: int
    prompts_frac: float
    """Share of the prompts that it prefills."""
    in_flight: float
    requests_per_s: float
    """The most that the pool can do, however long its requests take."""
    in_time_requests_per_s: float
    """The most within the limits on its own latency."""
    used_frac: float
    """The plan's rate over the most that it can do."""
    gpu_util_frac: float
    memory_util_frac: float
    gpu_s: Mapping[str, float]
    """GPU-seconds of a request by operator group, the time of no operator included: in all its GPUs over the rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSection:
    """From the end of a prompt's prefill to its first token."""

    kv_bytes_per_request: float
    """On one receiving rank."""
    bytes_s: float
    """What TTFT waits for of the bytes."""
    handover_s: float
    """Set-up, and the engine's steps until the client has the first token."""
    ttft_frac: float
    """Share of TTFT that both take."""
    hidden_frac: float
    """Share of the bytes taken as hidden behind the prompt's own prefill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateMatch:
    """How the pools' rates within the limits on their own latencies fit each other."""

    prefill_requests_per_s: float
    decode_requests_per_s: float
    slower: str
    alike: bool
    """Whether both can do as much."""
    given_requests_per_s: float | None
    """The rate that is given and that both pools carry; None: the slower pool sets the rate."""
    idle_frac: float
    """Share of the faster pool's rate that nothing asks for."""
    enough_gpus: float
    """GPUs of the faster pool with which it would do as much as the slower one, its layout scaled evenly."""
    balanced_prefill_gpus: float | None
    """GPUs of the prefill pool at which both pools would do as much, layouts scaled evenly over the same GPUs; None
    where the pools are on two GPU types, so that neither can have the other's, or can do nothing."""
    one_more_prefill_gpu_requests_per_s: float
    """What one more GPU there adds to what both pools can do, at the pool's rate per GPU."""
    one_more_decode_gpu_requests_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSections:
    """What a disaggregated plan does, part by part."""

    plan: PlanResult
    prefill: PoolSection
    decode: PoolSection
    transfer: TransferSection
    rate_match: RateMatch
    best_aggregated: PlanResult | None
    """The best plan of one kind of replica; None: the study has none within the limits."""


def pools_of(plan: PlanResult) -> Pools:
    """The pools of a plan that has them."""
    if plan.pools is None:
        raise ValueError(f"plan must be disaggregated, got {plan.plan}")
    return plan.pools


def _pool_section(plan: PlanResult, role: str, able: float) -> PoolSection:
    """One pool of a plan, which can do `able` requests per second at most."""
    pools = pools_of(plan)
    pool = getattr(pools, role)
    rate = plan.metrics["requests_per_s"]
    return PoolSection(
        role=role,
        gpu=pool.gpu,
        gpus=pool.gpus,
        layout=pool.layout,
        workers=pool.layout.replicas,
        max_num_seqs=pool.max_num_seqs,
        slots=pool.max_num_seqs * pool.layout.attn_dp * pool.layout.replicas,
        max_num_batched_tokens=pool.max_num_batched_tokens,
        prompts_frac=pools.local_frac if role == "decode" else 1.0 - pools.local_frac,
        in_flight=pool.in_flight,
        requests_per_s=able,
        in_time_requests_per_s=pool.in_time_per_s,
        used_frac=rate / able,
        gpu_util_frac=pool.gpu_util_frac,
        memory_util_frac=pool.memory_util_frac,
        gpu_s=pool_gpu_s_per_request(plan, role),
    )


def transfer_section(plan: PlanResult) -> TransferSection:
    """The way from one pool of a plan to the other."""
    pools, parts = pools_of(plan), plan.breakdown["ttft_parts_s"]
    taken = sum(parts.get(name, 0.0) for name in TRANSFER_PARTS)
    return TransferSection(
        kv_bytes_per_request=pools.kv_bytes_per_request,
        bytes_s=pools.transfer_s,
        handover_s=max(taken - pools.transfer_s, 0.0),
        ttft_frac=taken / plan.metrics["ttft_s"],
        hidden_frac=pools.overlap_frac,
    )


def rate_match(plan: PlanResult, given: float | None) -> RateMatch:
    """How the rates of a plan's pools fit each other, and the rate where one is given."""
    pools = pools_of(plan)
    p, d = pools.prefill.in_time_per_s, pools.decode.in_time_per_s
    a, b = pools.prefill.gpus, pools.decode.gpus
    able, most, each = min(p, d), max(p, d), (p / a, d / b)
    shared = pools.prefill.gpu == pools.decode.gpu and most > 0.0
    faster = b if pools.slower == "prefill" else a
    served = plan.metrics["requests_per_s"]
    carried = given if given is not None and given <= served * ROUNDING else None
    asked = max(able, served) if carried is None else carried
    return RateMatch(
        prefill_requests_per_s=p,
        decode_requests_per_s=d,
        slower=pools.slower,
        alike=abs(p - d) <= ALIKE_FRAC * most,
        given_requests_per_s=carried,
        idle_frac=max(1.0 - asked / most, 0.0) if most > 0.0 else 0.0,
        enough_gpus=faster * (able / most if most > 0.0 else 1.0),
        balanced_prefill_gpus=(a + b) * each[1] / sum(each) if shared else None,
        one_more_prefill_gpu_requests_per_s=min(p + each[0], d) - able,
        one_more_decode_gpu_requests_per_s=min(p, d + each[1]) - able,
    )


def pool_sections(study: Study, plan: PlanResult, tuned: TuneResult) -> PoolSections:
    """The parts of a plan that was scored under `study`, of which `tuned` is the answer."""
    able = dict(zip(ROLES, pool_capacities(study, plan), strict=True))
    return PoolSections(
        plan=plan,
        **{role: _pool_section(plan, role, able[role]) for role in ROLES},
        transfer=transfer_section(plan),
        rate_match=rate_match(plan, study.workload.request_rate_per_s),
        best_aggregated=next((p for p in tuned.ranked if p.pools is None), None),
    )
