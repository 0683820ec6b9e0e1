"""What limits, operators, kinds of memory, parts of TTFT and verdicts are called."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.scoring import limits
from autotune.scoring.gpu_time import OPERATORS

__all__ = [
    "LIMITS", "MEMORY", "MEMORY_PARTS", "OPERATORS", "TONES", "TTFT_PARTS", "memory_parts"
]  # fmt: skip

LIMITS = {kind.code: kind.title for kind in limits.LIMITS} | {
    f"{latency}_{share}_ms": f"{title} {share} over {whose}"
    for latency, title, whose in (
        ("ttft", "TTFT", "requests"),
        ("tpot", "TPOT", "requests"),
        ("itl", "ITL", "tokens"),
        ("e2e", "End to end", "requests"),
    )
    for share in ("p50", "p90", "p95", "p99")
}
LIMITS["attainment_frac"] = "Share of requests within all limits"
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
    "lm_head": "LM head",
    "kv_cache": "KV cache",
    "activations": "Activations",
    "buffers": "Buffers",
    "reserve": "Reserve",
    "free": "Free",
}
MEMORY_PARTS = {
    "experts": "Expert weights",
    "weights": "Other weights",
    **{kind: MEMORY[kind] for kind in ("kv_cache", "activations", "buffers", "reserve")},
}
"""What a bar of memory is made of: weights but those of the experts together."""
TONES = {
    **dict.fromkeys(("switch", "keep", "PASSED", "ok", "OPTIMAL", "confirmed", "inside"), "good"),
    **dict.fromkeys(("undecided", "UNDECIDED", "ACCEPTABLE", "undecidable"), "open"),
    **dict.fromkeys(("refuse", "FAILED", "FAILS", "HARMFUL", "INFEASIBLE", "refuted", "OUTSIDE"), "bad"),
}
"""Verdict -> `good`, `open` or `bad`: its colour, beside what it says."""


def memory_parts(kinds: Mapping[str, float]) -> dict[str, float]:
    """Amounts by kind, summed up by `MEMORY_PARTS`; what is free is none of them."""
    out: dict[str, float] = {}
    for kind, amount in kinds.items():
        if kind != "free":
            part = "experts" if kind == "shared_experts" else kind if kind in MEMORY_PARTS else "weights"
            out[part] = out.get(part, 0.0) + amount
    return out
