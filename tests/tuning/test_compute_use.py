"""Compute use against the FLOPs of what is served, written out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.study import load_study
from autotune.tuning.answer_study import score_plan

REFERENCE = Path(__file__).resolve().parents[2] / "studies" / "reference-128.toml"
PROMPT, OUTPUT, LAYERS, HIDDEN, TOP_K = 10240, 128, 16, 2048, 2
TOKEN_FLOPS = 2 * LAYERS * (4 * HIDDEN * HIDDEN + TOP_K * 3 * HIDDEN * 6144)
"""Of the reference model, attention over the cache and output head aside."""


def served_flops(context: float) -> float:
    """FLOPs of one request of the reference study: causal prompt, then one token after the other."""
    pairs = PROMPT * PROMPT / 2 + OUTPUT * context
    return (PROMPT + OUTPUT) * TOKEN_FLOPS + 4 * LAYERS * HIDDEN * pairs + 2 * HIDDEN * 32000 * OUTPUT


@pytest.mark.parametrize("plan", ["EP16/PP2/TP4/DP4", "TP8", "R2/PP16/TP4", "R8/TP1/DP16/EP16", "R16/TP2/DP4/EP8"])
def test_compute_use_is_what_is_served(plan: str) -> None:
    """Requests/s times FLOPs of a request, over the peak of all GPUs: attention ranks may share experts or not."""
    result = score_plan(load_study(REFERENCE), plan).result
    assert result is not None
    used = result.metrics["requests_per_s"] * served_flops(PROMPT + OUTPUT / 2) / (128 * 400e12)
    assert result.metrics["compute_util_frac"] == pytest.approx(used, rel=0.02)


@pytest.mark.parametrize("plan", ["P64:TP1/DP16/EP16+D64:TP1/DP16/EP16", "P64:TP4+D64:TP4"])
def test_compute_use_of_two_pools(plan: str) -> None:
    """The same of prefill and decode apart; a prompt of every attention rank runs through the experts they share."""
    result = score_plan(load_study(REFERENCE, ["search.disaggregated=only"]), plan).result
    assert result is not None
    used = result.metrics["requests_per_s"] * served_flops(PROMPT + OUTPUT / 2) / (128 * 400e12)
    assert result.metrics["compute_util_frac"] == pytest.approx(used, rel=0.03)
