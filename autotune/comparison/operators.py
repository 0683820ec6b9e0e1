"""Where the difference comes from: GPU-seconds of a request by phase and operator.

A plan's GPUs divided by its requests per second are the GPU-seconds that one request takes. Operators account for most
of them; what is left (`rest`) is time in which no kernel runs (pipeline bubbles, host, too few requests), less what a
prompt and a decode step share when they run in one step, and what the calibration adds to the formulas.
"""

from __future__ import annotations

from autotune.comparison.values import TimeRow
from autotune.tuning import PlanResult

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
SHOWN_FRAC = 0.01
"""Changes below this share of a request's GPU-seconds are not worth a word."""


def gpu_s_per_request(plan: PlanResult) -> dict[tuple[str, str], float]:
    """GPU-seconds of one request by (phase, operator group); their sum is GPUs over requests per second."""
    layout, parts = plan.layout, plan.breakdown
    out: dict[tuple[str, str], float] = {}
    for phase in ("prefill", "decode"):
        passes = parts[f"{phase}_passes_per_request"] * layout.width
        for group, seconds in parts[f"{phase}_s"].items():
            out[phase, group] = seconds * passes
    gpus = layout.replicas * layout.pp * layout.width
    out["rest", "rest"] = gpus / plan.metrics["requests_per_s"] - sum(out.values())
    return out


def time_rows(current: PlanResult, candidate: PlanResult) -> tuple[TimeRow, ...]:
    """Every operator of either plan, the largest gain first."""
    before, after = gpu_s_per_request(current), gpu_s_per_request(candidate)
    whole = sum(before.values())
    rows = [
        TimeRow(
            phase=phase,
            operator=group,
            current_gpu_s=before.get((phase, group), 0.0),
            candidate_gpu_s=after.get((phase, group), 0.0),
            gain_frac=(before.get((phase, group), 0.0) - after.get((phase, group), 0.0)) / whole,
        )
        for phase, group in dict.fromkeys([*before, *after])
    ]
    return tuple(sorted(rows, key=lambda r: -r.gain_frac))


def where_from(rows: tuple[TimeRow, ...], top: int = 4) -> tuple[str, ...]:
    """The largest changes in words, such as `-41 % all-reduce in decode (12 % of a request's GPU time)`."""
    shown = [r for r in rows if abs(r.gain_frac) >= SHOWN_FRAC]
    shown.sort(key=lambda r: -abs(r.gain_frac))
    return tuple(_words(r) for r in shown[:top])


def _words(row: TimeRow) -> str:
    where = f" in {row.phase}"
    name = WORDS[row.operator]
    effect = f"{'saves' if row.gain_frac > 0 else 'costs'} {abs(row.gain_frac):.0%} of a request's GPU time"
    if row.phase == "rest":
        return f"{'less waiting or more' if row.gain_frac > 0 else 'more waiting or less'} overlap of steps ({effect})"
    if row.current_gpu_s <= 0.0:
        return f"{name}{where} is new ({effect})"
    if row.candidate_gpu_s == 0.0:
        return f"no {name}{where} any more ({effect})"
    change = row.candidate_gpu_s / row.current_gpu_s - 1.0
    by = f"{change:+.0%}" if change < 1.0 else f"x{change + 1.0:.1f}"
    return f"{by.replace('-', '−')} {name}{where} ({effect})"
