"""How evenly work falls on GPUs: experts and tokens over ranks, layers, parameters and time over stages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from autotune.engines import ENGINES
from autotune.evaluation.plan import EvaluatedPlan
from costmodel.plan.columns import LayoutColumns
from costmodel.plan.stages import stage_params
from costmodel.step.expert_routing import popularity_cv2, rank_load

REDUNDANT_PER_RANK = (0, 1, 2)
"""Spare expert instances per expert rank that are looked at."""


def balance(plan: EvaluatedPlan) -> dict[str, Any]:
    """Experts, expected imbalance under the study's skew, and what each stage has."""
    layout, arch = plan.candidate.layout, plan.grid.batch.cells[0][0]
    stages = [
        {"stage": i, "layers": layers, "params": params, "prefill_step_s": prefill, "decode_step_s": decode}
        for i, (layers, params, prefill, decode) in enumerate(
            zip(
                layout.stage_layers,
                stage_params(arch, layout.stage_layers),
                plan.stage_s(plan.state.prefill),
                plan.stage_s(plan.state.decode),
                strict=True,
            )
        )
    ]
    out: dict[str, Any] = {
        "stages": stages,
        "slowest_over_mean_stage": {
            phase: _over_mean([s[f"{phase}_step_s"] for s in stages]) for phase in ("prefill", "decode")
        },
    }
    if arch.is_moe:
        out |= {
            "experts_per_gpu_per_layer": (arch.num_experts + layout.redundant_experts) / layout.moe_ep,
            "expert_skew": plan.study.workload.expert_skew,
            "token_imbalance": [_imbalance(plan, spare) for spare in _spares(plan)],
        }
    return out


def _spares(plan: EvaluatedPlan) -> list[int]:
    """Redundant experts to look at: the plan's own, and whole ones per rank."""
    layout = plan.candidate.layout
    # where every expert is as popular as the next, what is uneven is chance: spares have nothing to even out
    if layout.moe_ep == 1 or plan.study.workload.expert_skew == 0.0:
        return [layout.redundant_experts]
    return sorted({layout.redundant_experts, *(n * layout.moe_ep for n in REDUNDANT_PER_RANK)})


def _imbalance(plan: EvaluatedPlan, redundant: int) -> dict[str, Any]:
    """Tokens of the fullest expert rank over the mean rank's."""
    arch, layout = plan.grid.batch.cells[0][0], plan.candidate.layout
    own = replace(layout, redundant_experts=redundant)
    experts, shape = arch.expert_shapes[0], LayoutColumns.of([own], [ENGINES[plan.candidate.engine].traits])
    cv2 = np.array([popularity_cv2(arch.num_experts, plan.study.workload.expert_skew, redundant)])
    state = plan.state
    tokens = {
        "prefill": state.prefill.work.prefill_tokens_group,
        "decode": state.decode.work.decoded * layout.attn_dp,
    }
    found = {
        phase: float(np.max(rank_load(experts, shape, np.maximum(count, 1.0), cv2))) for phase, count in tokens.items()
    }
    return {
        "redundant_experts": redundant,
        "is_the_plans": redundant == layout.redundant_experts,
        "prefill_fullest_over_mean_rank": found["prefill"],
        "decode_fullest_over_mean_rank": found["decode"],
    }


def _over_mean(seconds: list[float]) -> float:
    return max(seconds) / (sum(seconds) / len(seconds))
