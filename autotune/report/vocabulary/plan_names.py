"""What plans are called where people read."""

from __future__ import annotations

import re

from autotune.space import short_plan
from autotune.space.pooled_planstring import short_pooled
from autotune.tuning import PlanResult


def plan_name(plan: PlanResult, *, dense: bool, several_engines: bool = False) -> str:
    """`R8 TP2 DP8 EP16`: both pools of a disaggregated plan; the GPU type and the engine (`vllm:`) where they matter.

    Every command takes it back.
    """
    engine = f"{plan.engine}:" if several_engines else ""
    if plan.pools is not None:
        first, second = (short_plan(side.layout, dense=dense) for side in (plan.pools.prefill, plan.pools.decode))
        return engine + short_pooled(plan.pools, (first, second))
    split = f" SPLIT{'-'.join(map(str, plan.layout.stage_layers))}" if "SPLIT" in plan.plan else ""
    return engine + short_plan(plan.layout, dense=dense) + split + (f" @{plan.gpu}" if plan.gpu else "")


_ENGINE = re.compile(r"[a-z][a-z0-9_]*:")
_PART = re.compile(r"([A-Z]+)([0-9-]*)")
_SHORTER = {"ATP": "TP", "ADP": "DP", "MTP": "ETP"}


def name_of_key(key: str) -> str:
    """A full plan string as people read it: `vllm:R4 PP2 TP4 DP4 EP16` of `vllm:R4/PP2/ATP4/ADP4/MTP1/EP16`."""
    engine = _ENGINE.match(key)
    plan = key[engine.end() :] if engine else key
    return (engine[0] if engine else "") + " + ".join(_side(side) for side in plan.split("+"))


def _side(text: str) -> str:
    pool, colon, rest = text.rpartition(":")
    layout, at, gpu = rest.partition("@")
    parts = [found.groups() for part in layout.split("/") if (found := _PART.fullmatch(part))]
    words = " ".join(_SHORTER.get(name, name) + count for name, count in parts if count != "1") or "TP1"
    return pool + colon + words + (f" {at}{gpu}" if at else "")


def same_run(one: PlanResult, other: PlanResult) -> bool:
    """Whether two results are of one plan with the same knobs."""
    return one.plan == other.plan and one.knobs == other.knobs
