"""What the figures are called on a page, and how they are written."""

from __future__ import annotations

from math import isfinite

from autotune.metrics import METRICS
from autotune.report.clusters import table_name
from autotune.scoring import limits
from autotune.tuning import PlanResult

TTFT, TPOT = METRICS["ttft_longest_s"], METRICS["tpot_s"]
PER_GPU = METRICS["total_tokens_per_s_per_gpu"]

OPERATORS = {
    "attention_proj": "Attention projections",
    "attention_core": "Attention core",
    "dense_ffn": "Dense feed-forward",
    "router": "Router",
    "experts": "Routed experts",
    "shared_experts": "Shared experts",
    "norms": "Norms",
    "lm_head": "Output head",
    "tp_all_reduce": "All-reduce (TP)",
    "ep_exchange": "Expert exchange (EP)",
    "pp_send": "Send between stages (PP)",
}
TTFT_PARTS = {
    "front_end": "Front end",
    "own_prefill": "Own prefill",
    "running_step": "Step already running",
    "queue": "Queue",
    "kv_wait": "Wait for KV room",
    "kv_transfer": "KV transfer",
}
MEMORY = {
    "attention": "Attention weights",
    "dense_ffn": "Dense feed-forward weights",
    "router": "Router weights",
    "experts": "Expert weights",
    "shared_experts": "Shared expert weights",
    "norms": "Norms",
    "embedding": "Embedding",
    "lm_head": "Output head",
    "kv_cache": "KV cache",
    "activations": "Activations",
    "buffers": "Buffers",
    "reserve": "Reserve",
}
LIMITS = {kind.code: kind.title for kind in limits.LIMITS}
ENGINES = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "trtllm": "TensorRT-LLM",
    "any": "any engine",
    "vllm+sglang": "vLLM or SGLang",
}


def within(title: str) -> str:
    """A title within a sentence: `output throughput`, but `TPOT`."""
    return f"{title[:1].lower()}{title[1:]}" if title[1:2].islower() else title


def plan_name(plan: PlanResult, *, dense: bool, several_engines: bool) -> str:
    """`R8 TP2 DP8 EP16`, with the engine where several compete."""
    name = table_name(plan, dense=dense)
    return f"{ENGINES[plan.engine]} {name}" if several_engines else name


def same_run(one: PlanResult, other: PlanResult) -> bool:
    """Whether two results are of one plan with the same knobs."""
    return one.plan == other.plan and one.knobs == other.knobs


def percent(value: float | None, digits: int = 0) -> str:
    """A share; a dash where there is none."""
    return "–" if value is None or not isfinite(value) else f"{value:.{digits}%}"


def signed(value: float | None) -> str:
    """A relative difference: `+37.9 %` without the space; a dash where there is none."""
    if value is None or not isfinite(value):
        return "–"
    return f"{value:+,.0%}" if abs(value) >= 10.0 else f"{value:+.1%}".replace("-", "−")


def probability(value: float | None) -> str:
    """A probability; never 0 % or 100 % for what is merely close."""
    if value is None:
        return "–"
    if value > 0.995:
        return "> 99%"
    return "< 1%" if value < 0.005 else f"{value:.0%}"


def times(factor: float) -> str:
    """A factor: `×0.67`."""
    return f"×{factor:.2f}".rstrip("0").rstrip(".")
