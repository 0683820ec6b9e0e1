"""What a plan is called, wherever people read it."""

from __future__ import annotations

from autotune.scoring.plan_result import PlanResult
from autotune.space import short_plan
from autotune.space.pooled_planstring import short_pooled
from autotune.study import Study


def plan_name(plan: PlanResult, *, dense: bool, several_engines: bool = False) -> str:
    """`R8 TP2 DP8 EP16`: both pools of a disaggregated plan; the GPU type and the engine (`vllm:`) where they matter.

    Every command takes it back.
    """
    engine = f"{plan.engine}:" if several_engines else ""
    if plan.pools is not None:
        first, second = (short_plan(side.layout, dense=dense) for side in (plan.pools.prefill, plan.pools.decode))
        return engine + short_pooled(plan.plan, plan.pools, (first, second))
    split = f" SPLIT{'-'.join(map(str, plan.layout.stage_layers))}" if "SPLIT" in plan.plan else ""
    return engine + short_plan(plan.layout, dense=dense) + split + (f" @{plan.gpu}" if plan.gpu else "")


def full_name(study: Study, plan: PlanResult) -> str:
    """`vllm:R8 TP2 DP8 EP16`: the name with its engine, which says which plan of a study's it is."""
    return plan_name(plan, dense=not study.arch.is_moe, several_engines=True)
