"""A step is one forward pass over its decoding sequences and its prompts: what it may cost, and what a cache saves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from costmodel.estimate.batch import PlanBatch
from costmodel.plan.columns import Floats
from costmodel.step.pipeline_pass import step_pass
from costmodel.step.step_work import StepWork, decode_work, joint_work, prompt_work
from tests.costmodel.helpers import MODELS, estimate, load, plans

SLACK = 1.0 + 1e-9
MIXING = ("vllm", "trtllm")


def _captured(name: str, engine: str) -> PlanBatch:
    """Plans whose steps are all launched as graphs, so that no launch hides what kernels do."""
    batch = PlanBatch.of(plans(name, engine, 16))
    return replace(
        batch,
        residual=None,
        columns=replace(batch.columns, engine=replace(batch.columns.engine, capture_tokens=np.array([1e12]))),
    )


def _seconds(batch: PlanBatch, work: StepWork) -> Floats:
    return step_pass(batch.machine, batch.stages, batch.columns.engine, work).through_s


def _prompt(tokens: float, cached: float) -> StepWork:
    one = np.ones(1)
    return prompt_work(prompts=one, tokens=np.array([tokens]), cached=np.array([cached]), chunks=one, ranks=one)


@given(
    name=st.sampled_from(MODELS),
    engine=st.sampled_from(MIXING),
    sequences=st.integers(1, 300),
    context=st.integers(1, 20_000),
    tokens=st.integers(1, 8_000),
    cached=st.integers(0, 20_000),
)
@settings(max_examples=40, deadline=None)
def test_a_joint_step_lies_between_the_larger_part_and_the_sum(
    name: str, engine: str, sequences: int, context: int, tokens: int, cached: int
) -> None:
    """Weights are read once and kernels launched once, and neither part is free beside the other."""
    batch = _captured(name, engine)
    decode = decode_work(np.array([float(sequences)]), np.array([float(context)]))
    prompts = _prompt(float(tokens), float(cached))
    joint = _seconds(batch, joint_work(prompts, decode, beside=np.ones(1)))
    alone = _seconds(batch, prompts), _seconds(batch, decode)
    assert (joint * SLACK >= np.maximum(*alone)).all()
    assert (joint <= (alone[0] + alone[1]) * SLACK).all()


@given(name=st.sampled_from(MODELS), engine=st.sampled_from(MIXING), sequences=st.integers(1, 300))
@settings(max_examples=20, deadline=None)
def test_without_prompt_tokens_it_is_the_decode_step(name: str, engine: str, sequences: int) -> None:
    """As the prompt's tokens vanish, so does what they cost."""
    batch = _captured(name, engine)
    decode = decode_work(np.array([float(sequences)]), np.array([2000.0]))
    joint = joint_work(replace(_prompt(1e-9, 0.0), sampled=np.zeros(1)), decode, beside=np.ones(1))
    assert np.allclose(_seconds(batch, joint), _seconds(batch, decode), rtol=1e-6)


@given(
    name=st.sampled_from(MODELS),
    engine=st.sampled_from(("vllm", "sglang", "trtllm")),
    isl=st.integers(500, 20_000),
    concurrency=st.integers(1, 200),
    hits=st.tuples(st.floats(0.0, 0.999), st.floats(0.0, 0.999)),
)
@settings(max_examples=40, deadline=None)
def test_a_rising_share_of_cached_tokens_slows_nobody(
    name: str, engine: str, isl: int, concurrency: int, hits: tuple[float, float]
) -> None:
    """In the formulas a whole request never takes longer where more of its prompt is cached, and there is room."""
    members = [m for m in plans(name, engine, 8) if m.layout.pp == 1]
    work = load(float(concurrency), float(isl), 200.0, 1 << 20)
    less, more = (
        estimate(members, replace(work, prefix_hit_frac=np.array([hit])), formulas=True, capture_tokens=1e12)
        for hit in sorted(hits)
    )
    free = less.kv_wait_s == 0
    assume(free.any())
    # the balance of decoding is solved to some 1e-4
    assert (more.e2e_s <= less.e2e_s * (1.0 + 1e-3))[free].all()


def test_some_passes_outgrow_the_graphs() -> None:
    """Passes of 300 to 600 prompt tokens beside 12 that decode, graphs of 512: a third of them launches every layer."""
    batch = PlanBatch.of(plans("llama-3.1-70b", "vllm", 8))
    launch_s = np.array([1.0])
    engine = replace(batch.columns.engine, capture_tokens=np.array([512.0]), layer_launch_s=launch_s)
    decode = decode_work(np.array([12.0]), np.array([1000.0]))
    work = joint_work(_prompt(450.0, 0.0), decode, beside=np.ones(1))

    def through_s(*tokens: float) -> Floats:
        given = None if not tokens else (np.array([tokens[0]]), np.array([tokens[1]]))
        return step_pass(batch.machine, batch.stages, engine, work, prompt_tokens=given).through_s

    captured = through_s()
    launched = 80 * launch_s + step_pass(batch.machine, batch.stages, engine, work).host_s
    assert np.allclose(through_s(300.0, 600.0), captured + (launched - captured) / 3.0, rtol=1e-6)
    assert np.array_equal(through_s(400.0, 500.0), captured)
    assert np.allclose(through_s(501.0, 600.0), launched)


def test_the_last_cached_tokens_count_as_tokens_do() -> None:
    """From 90 to 99.5 % cached a prompt of 10,000 tokens has 20 times fewer to compute: a lone first token shows it."""
    members = [m for m in plans("llama-3.1-70b", "vllm", 8) if m.layout.pp == 1 and m.layout.attn_tp == 1]
    work = load(1.0, 10_000.0, 2.0, 1 << 20)
    own = []
    for hit in (0.5, 0.9, 0.995):
        e = estimate(members[:1], replace(work, prefix_hit_frac=np.array([hit])), formulas=True, capture_tokens=1e12)
        own.append(float(e.ttft_parts_s[1, 0]))
    # 5,000, 1,000 and 50 tokens: the first two are bound by computing, the last by reading the weights
    assert 4.0 < own[0] / own[1] < 6.5
    assert 3.0 < own[1] / own[2] < 20.0
