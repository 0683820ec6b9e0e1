"""What a first token waits for beside its own prefill: the front end, and prompts that come together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costmodel.calibration.load import load_calibration
from costmodel.estimate.result import TTFT_PARTS
from tests.costmodel.helpers import TRAITS, entry, estimate, load

FRONT, QUEUE = TTFT_PARTS.index("front_end"), TTFT_PARTS.index("queue")


def _queue_s(engine: str, concurrency: float, *, same: bool) -> float:
    work = replace(load(concurrency, isl=1000.0, osl=2000.0), same_lengths=np.array([float(same)]))
    plan = entry("llama-3.1-70b", engine, attn_tp=8)
    return float(estimate([plan], work, formulas=True).ttft_parts_s[QUEUE, 0])


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize(
    ("model", "layers", "experts", "hidden"), [("deepseek-v3", 58, 256, 7168), ("llama-3.1-70b", 0, 0, 0)]
)
def test_front_end_by_hand(engine: str, model: str, layers: int, experts: int, hidden: int) -> None:
    """Request handling, tokenising, and a start in each layer of experts."""
    serving = load_calibration("hopper", TRAITS[engine]).serving
    plan = entry(model, engine, attn_tp=8, **({"moe_tp": 8} if layers else {}))
    found = estimate([plan], load(isl=1500.0), formulas=True).ttft_parts_s[FRONT, 0]
    start = serving["moe_start_s"] * layers * experts / 128 * hidden / 4096
    assert found == pytest.approx(serving["frontend_s"] + serving["token_s"] * 1500 + start)


@pytest.mark.parametrize("engine", ["vllm", "trtllm"])
@pytest.mark.parametrize("concurrency", [2.0, 16.0, 64.0])
def test_prompts_that_ride_on_decode_steps_part(engine: str, concurrency: float) -> None:
    """Beside a benchmark's first wave, of c - 1 others, as many come together as did before, and no more."""
    serving = load_calibration("hopper", TRAITS[engine]).serving
    drawn, same = (_queue_s(engine, concurrency, same=s) for s in (False, True))
    others = min(serving["together"], concurrency) - 1.0
    assert (same - drawn) / drawn == pytest.approx(others / (serving["burst_frac"] * (concurrency - 1.0)))


@pytest.mark.parametrize("concurrency", [4.0, 16.0, 32.0])
def test_prompts_that_interrupt_decoding_stay_together(concurrency: float) -> None:
    """SGLang decodes once every waiting prompt is prefilled: all end together, wave after wave."""
    drawn, same = (_queue_s("sglang", concurrency, same=s) for s in (False, True))
    assert same / drawn == pytest.approx(
        1.0 / load_calibration("hopper", TRAITS["sglang"]).serving["burst_frac"], rel=2e-3
    )


def test_a_wave_costs_the_first_token_and_spares_the_next() -> None:
    """What a wave waits for before its first tokens, requests that come one by one wait for between theirs."""
    plan = entry("llama-3.1-70b", "sglang", attn_tp=8)
    works = [replace(load(64.0), same_lengths=np.array([s])) for s in (0.0, 1.0)]
    drawn, same = (estimate([plan], work, formulas=True) for work in works)

    assert same.ttft_s[0] > drawn.ttft_s[0]
    assert same.tpot_s[0] < drawn.tpot_s[0]
