"""What plans are called where people read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from autotune.scoring.plan_name import plan_name
from autotune.tuning import PlanResult, TuneResult

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


def subject_name(result: TuneResult, plan: PlanResult) -> str:
    """A plan as every command takes it back, with the engine where several compete."""
    several = len({p.engine for p in (*result.ranked, *result.infeasible)}) > 1
    return plan_name(plan, dense=not result.study.arch.is_moe, several_engines=several)


def local_prefill_words(plan: PlanResult) -> str:
    """Up to how many tokens to compute prompts have that the decode pool prefills; empty where there is none."""
    tokens = None if plan.pools is None else plan.pools.max_local_prefill_tokens
    return "" if tokens is None else f"{tokens:,}" if tokens else "none"


def has_local_prefill(plans: Iterable[PlanResult]) -> bool:
    """Whether decode pools of any of the plans prefill prompts."""
    return any(plan.pools is not None and plan.pools.local_frac for plan in plans)
