"""Attention data parallelism: every rank's prompts run through the experts that all of them share."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.estimate.batch import PlanBatch
from costmodel.step.step_work import prompt_work
from tests.costmodel.helpers import entry, estimate, load


@pytest.mark.parametrize("ranks", [2, 8, 16])
def test_a_full_pass_computes_the_experts_of_every_rank(ranks: int) -> None:
    """FLOPs of experts grow with the ranks that have a prompt, those of attention do not."""
    batch = PlanBatch.of([entry(attn_dp=ranks, moe_ep=ranks)])
    works = [
        prompt_work(
            prompts=np.ones(1),
            tokens=np.array([4096.0]),
            cached=np.zeros(1),
            chunks=np.ones(1),
            ranks=np.array([float(on)]),
        )
        for on in (1, ranks)
    ]
    lone, full = (batch.step(work) for work in works)
    assert full.experts_math_s == pytest.approx(ranks * lone.experts_math_s, rel=0.05)
    assert full.math_s - full.experts_math_s == pytest.approx(lone.math_s - lone.experts_math_s, rel=1e-9)


def test_prompts_cost_what_their_experts_do() -> None:
    """Where prompts are all there is, steps are full of them: a fifth of the peak FLOPs, within a quarter of that."""
    members = [entry(attn_dp=16, moe_ep=16), entry(attn_tp=2, attn_dp=8, moe_ep=16)]
    found = estimate(members, load(512.0, 8000.0, 8.0), formulas=True)
    used = 2.0 * 37e9 * 8000.0 * found.requests_per_s / (16 * 1979e12)
    assert ((used > 0.15) & (used < 0.25)).all()
