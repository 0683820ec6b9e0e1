"""What limits, operators, kinds of memory, parts of TTFT and verdicts are called, and broken limits in words."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from autotune.report.vocabulary.words import asked, measure, short_unit, united
from autotune.scoring import limits
from autotune.scoring.overload import ENDLESS
from autotune.scoring.plan_result import relative_excess
from autotune.tuning import Violation

LIMITS = limits.TITLES
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


def broken(violation: Violation) -> str:
    """`TTFT at the longest prompt 4,294 ms against 50 ms, 86 times the limit`; a shortfall is at most all of it."""
    title = LIMITS[violation.code]
    if violation.value == inf:
        return f"{title} {ENDLESS}"
    value = measure(violation.value, violation.unit)
    limit = united(asked(violation.limit, violation.unit), short_unit(title, violation.unit))
    return f"{title} {value} against {limit}, {off_by(violation)}"


def off_by(violation: Violation) -> str:
    """`over by 12%`, `86 times the limit`, `short by 40%`, `none at all`, `just over`, `grows without bound`."""
    if violation.value == inf:
        return ENDLESS
    share = relative_excess(violation)
    if violation.value < violation.limit:
        share = min(share, 1.0)
        return "none at all" if violation.value <= 0.0 else "just short" if share < 0.005 else f"short by {share:.0%}"
    if share >= 10.0:
        return f"{share + 1.0:,.0f} times the limit"
    return "just over" if share < 0.005 else f"over by {share:.0%}"
