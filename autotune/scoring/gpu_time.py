"""GPU-seconds of a request by phase and operator group.

A plan's GPUs divided by its requests per second are the GPU-seconds that one request takes. Operators account for most
of them; what is left (`rest`) is time in which no kernel runs (pipeline bubbles, host, too few requests), less what a
prompt and a decode step share when they run in one step, and what the calibration adds to the formulas.
"""

from __future__ import annotations

from autotune.scoring.plan_result import PlanResult

WORDS = {
    "attention_proj": "attention projections",
    "attention_core": "attention over the cache",
    "dense_ffn": "dense FFN",
    "router": "router",
    "experts": "experts",
    "shared_experts": "shared experts",
    "norms": "norms and small kernels",
    "lm_head": "LM head",
    "tp_all_reduce": "all-reduce",
    "ep_exchange": "exchange around the experts",
    "pp_send": "stage sends",
    "rest": "waiting (bubbles, host, idle) less overlap",
}
"""Operator group -> what it is called in a sentence."""


def gpu_s_per_request(plan: PlanResult) -> dict[tuple[str, str], float]:
    """GPU-seconds of one request by (phase, operator group); their sum is GPUs over requests per second."""
    parts, pools = plan.breakdown, plan.pools
    out: dict[tuple[str, str], float] = {}
    for phase in ("prefill", "decode"):
        layout = plan.layout if pools is None or phase == "decode" else pools.prefill.layout
        passes = parts[f"{phase}_passes_per_request"] * layout.width
        for group, seconds in parts[f"{phase}_s"].items():
            out[phase, group] = seconds * passes
    out["rest", "rest"] = plan.metrics["gpus"] / plan.metrics["requests_per_s"] - sum(out.values())
    return out
