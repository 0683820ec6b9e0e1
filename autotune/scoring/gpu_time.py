"""GPU-seconds of a request by phase and operator group.

A plan's GPUs divided by its requests per second are the GPU-seconds that one request takes. Operators account for most
of them; what is left (`rest`) is time in which no kernel runs (pipeline bubbles, host, too few requests), less what a
prompt and a decode step share when they run in one step, and what the calibration adds to the formulas.
"""

from __future__ import annotations

from autotune.scoring.plan_result import PlanResult
from autotune.text.numbers import within

REST = "rest"
OPERATORS = {
    "attention_proj": "Attention projections",
    "attention_core": "Attention core",
    "dense_ffn": "Dense feed-forward",
    "router": "Router",
    "experts": "Routed experts",
    "shared_experts": "Shared experts",
    "norms": "Norms and small kernels",
    "lm_head": "LM head",
    "tp_all_reduce": "All-reduce (TP)",
    "ep_exchange": "Expert exchange",
    "pp_send": "Sends between stages (PP)",
    REST: "Waiting (bubbles, host, idle) less overlap",
}
"""Operator group -> what it is called, in tables, charts and (through `within`) sentences."""


def operator_words(group: str, phase: str) -> str:
    """A group within a sentence: `routed experts in decode`; time that belongs to no phase has none."""
    return within(OPERATORS[group]) + ("" if phase == "rest" else f" in {phase}")


def operator_title(group: str, phase: str) -> str:
    """The same as a title: `Routed experts in decode`."""
    words = operator_words(group, phase)
    return words[:1].upper() + words[1:]


def gpu_s_per_request(plan: PlanResult) -> dict[tuple[str, str], float]:
    """GPU-seconds of one request by (phase, operator group); their sum is GPUs over requests per second."""
    parts, pools = plan.breakdown, plan.pools
    out: dict[tuple[str, str], float] = {}
    for phase in ("prefill", "decode"):
        layout = plan.layout if pools is None or phase == "decode" else pools.prefill.layout
        passes = parts[f"{phase}_passes_per_request"] * layout.width
        for group, seconds in parts[f"{phase}_s"].items():
            out[phase, group] = seconds * passes
    out[REST, REST] = plan.metrics["gpus"] / plan.metrics["requests_per_s"] - sum(out.values())
    return out


def pool_gpu_s_per_request(plan: PlanResult, role: str) -> dict[str, float]:
    """The same of one pool of a disaggregated plan by operator group; their sum is its GPUs over requests per second.

    Raises:
        ValueError: the plan has no pools.
    """
    if plan.pools is None:
        raise ValueError(f"plan must be disaggregated, got {plan.plan}")
    out = {group: s for (phase, group), s in gpu_s_per_request(plan).items() if phase == role and s}
    out[REST] = getattr(plan.pools, role).gpus / plan.metrics["requests_per_s"] - sum(out.values())
    return out
