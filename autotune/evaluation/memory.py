"""Memory of each stage by kind, and what still fits."""

from __future__ import annotations

from typing import Any

import numpy as np

from autotune.evaluation.plan import EvaluatedPlan
from autotune.evaluation.values import StageBytes

LONGEST_TRIED = 1 << 34
"""Tokens; beyond, a plan whose cache does not grow (linear attention) has no longest prompt."""


def stage_bytes(plan: EvaluatedPlan) -> tuple[StageBytes, ...]:
    """Every kind on every stage, what is free included: the kinds of a stage sum to a GPU's memory."""
    held = plan.stage_memory()
    running = np.minimum(plan.state.running_per_rank, plan.grid.load(plan.concurrency).max_num_seqs)
    kinds = held.by_kind(held.kv_bytes(running))
    pp = plan.candidate.layout.pp
    columns = {kind: np.broadcast_to(size, (pp,)) for kind, size in kinds.items()}
    columns["free"] = np.broadcast_to(held.hbm_bytes, (pp,)) - np.asarray(sum(columns.values()))
    return tuple(
        StageBytes(stage=stage, kind=kind, bytes=float(size[stage]))
        for stage in range(pp)
        for kind, size in columns.items()
        if size[stage] != 0.0
    )


def capacity(plan: EvaluatedPlan) -> dict[str, Any]:
    """The largest batch at the study's lengths, and the longest prompt beside the study's output."""
    result, layout = plan.result, plan.candidate.layout
    per_replica = result.metrics["kv_capacity_sequences"]
    return {
        "largest_batch_requests": per_replica * layout.replicas,
        "largest_batch_requests_per_replica": per_replica,
        "requests_in_flight": result.knobs.concurrency,
        "longest_prompt_tokens": _longest_prompt(plan),
        "longest_prompt_of_study_tokens": plan.study.workload.longest_prompt,
        "model_context_tokens": plan.study.arch.max_position_embeddings or None,
    }


def _longest_prompt(plan: EvaluatedPlan) -> int | None:
    """By doubling and bisection through the memory model; None: any length fits, 0: none does."""
    low, high = 0, 1
    while plan.fits_longest(float(high)):
        low, high = high, high * 2
        if high > LONGEST_TRIED:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if plan.fits_longest(float(middle)) else (low, middle)
    return low
