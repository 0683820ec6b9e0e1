"""Two-batch overlap: a step as two halves, the exchange with experts of one behind the computation of the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autotune.engines import ENGINES
from costmodel.arch import load_model
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.hardware import Cluster, load_gpu
from costmodel.plan.layout import Layout
from costmodel.step.step_work import StepWork, decode_work, prompt_work

ARCH = load_model("deepseek-v3")
LAYOUT = Layout(replicas=1, pp=1, attn_tp=1, attn_dp=32, moe_tp=1, moe_ep=32, stage_layers=(ARCH.num_hidden_layers,))


def batch(*overlaps: int, engine: str = "sglang") -> PlanBatch:
    """The plan with and without overlap."""
    entries = [
        PlanEntry(
            arch=ARCH,
            cluster=Cluster(gpus=32, gpu=load_gpu("h100_sxm"), gpus_per_node=8),
            engine=ENGINES[engine].traits,
            layout=replace(LAYOUT, two_batch_overlap=overlap),
        )
        for overlap in overlaps
    ]
    return PlanBatch.of(entries)


def work(kind: str, sequences: float) -> StepWork:
    """A step of decoding sequences or of prompts of 1,024 tokens on every rank."""
    if kind == "decode":
        return decode_work(np.array([sequences]), np.array([4096.0]))
    one = np.ones(1)
    return prompt_work(prompts=one * sequences, tokens=one * 1024, cached=one * 0, chunks=one, ranks=one * 32)


def total(plans: PlanBatch, step: StepWork) -> np.ndarray:
    """Seconds of a step of each plan."""
    return sum(plans.step(step).group_s.values()) + np.zeros(plans.size)


@pytest.mark.parametrize("sequences", [4.0, 16.0, 128.0])
@pytest.mark.parametrize("kind", ["decode", "prompts"])
def test_a_step_by_hand(kind: str, sequences: float) -> None:
    """Twice the kernels of half the tokens, and of each layer's exchange what they do not hide."""
    half = batch(0).step(work(kind, sequences / 2.0), record=True)
    routed = {"ep_dispatch", "ep_combine"}
    exchanges = [o for o in half.operators or () if o.group == "ep_exchange" and float(o.seconds[0]) > 0.0]
    assert {o.name for o in exchanges} == routed  # else the two plans send tokens in different ways
    layer = exchanges[0].layer
    exchange = sum(float(o.seconds[0]) for o in exchanges)
    (group,) = batch(0).arch.attention
    attention = float(half.per_layer_s[group.name][0])
    beside = attention + float(half.per_layer_s[layer][0]) - exchange
    kernels = float(total(batch(0), work(kind, sequences / 2.0))[0]) - exchange * float(half.layers[layer][0])
    expected = 2.0 * kernels + max(2.0 * exchange - 2.0 * beside, 0.0) * float(half.layers[layer][0])
    assert total(batch(1), work(kind, sequences))[0] == pytest.approx(expected, rel=1e-9)


def test_plans_beside_each_other() -> None:
    """A batch of plans with and without overlap gives each what it gets alone."""
    step = work("decode", 64.0)
    assert total(batch(0, 1, 0), step) == pytest.approx([total(batch(x), step)[0] for x in (0, 1, 0)], rel=1e-12)


@pytest.mark.parametrize(("kind", "below", "above"), [("decode", 31.0, 32.0), ("prompts", 0.25, 0.5)])
def test_small_steps_run_whole(kind: str, below: float, above: float) -> None:
    """Under vLLM's thresholds, 32 tokens of decoding or 512 with prompts, a step is one batch."""
    small, large = work(kind, below), work(kind, above)
    one, two = (batch(x, engine="vllm").step for x in (0, 1))
    for name in ("attention_proj", "experts"):
        assert two(small).group_s[name] == pytest.approx(one(small).group_s[name])
        assert two(large).group_s[name] > one(large).group_s[name]


def test_recorded_operators_sum_to_the_step() -> None:
    """What the graph draws is the step that was priced, FLOPs and bytes too."""
    whole, parts = batch(1).step(work("decode", 64.0)), batch(1).step(work("decode", 64.0), record=True)
    assert parts.operators
    for group, seconds in whole.group_s.items():
        booked = sum(o.seconds * parts.layers[o.layer] for o in parts.operators if o.group == group)
        assert booked == pytest.approx(seconds)
