"""Laws that hold for any plan under any load: nothing beats the hardware, and nothing is better for more work."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from costmodel.estimate.batch import CHUNK_PLANS, PlanBatch
from costmodel.estimate.result import MEMORY_KINDS, Estimate
from costmodel.plan.columns import ClusterColumns, LayoutColumns
from costmodel.plan.placement import Placement
from costmodel.step.kernel_laws import Rate
from tests.costmodel.helpers import MODELS, TRAITS, cluster, entry, estimate, layout, load, plans

ENGINES = ("vllm", "sglang", "trtllm")
positive = st.floats(1e-3, 1e15, allow_nan=False)
FEW_OUTPUTS = 64
SLACK = 1.0 + 1e-9


@given(flops=positive, moved=positive, rates=st.tuples(positive, positive), loss=st.floats(0, 1), more=st.floats(1, 10))
@settings(max_examples=50, deadline=None)
def test_the_roofline_lies_between_its_bounds(
    flops: float, moved: float, rates: tuple[float, float], loss: float, more: float
) -> None:
    """max(math, memory) <= t - t0 <= math + memory; more work is never faster, better rates never slower."""

    def seconds(f: float, b: float, per_s: tuple[float, float]) -> float:
        values = (0.5, per_s[0], per_s[1], loss, 0.0, 0.0, per_s[0], per_s[1])
        rate = Rate(**{x.name: np.array([v]) for x, v in zip(fields(Rate), values, strict=True)})
        return float(rate.seconds(np.array([f]), np.array([b]))[0])

    t = seconds(flops, moved, rates)
    math_s, hbm_s = flops / rates[0], moved / rates[1]
    assert 0.5 + max(math_s, hbm_s) <= t * SLACK
    assert t <= (0.5 + math_s + hbm_s) * SLACK
    assert seconds(flops * more, moved, rates) * SLACK >= t
    assert seconds(flops, moved * more, rates) * SLACK >= t
    assert seconds(flops, moved, (rates[0] * more, rates[1])) <= t * SLACK
    assert seconds(flops, moved, (rates[0], rates[1] * more)) <= t * SLACK


@given(
    name=st.sampled_from(MODELS),
    engine=st.sampled_from(ENGINES),
    gpu=st.sampled_from(["h100", "b200", "h20", "mi300x", "gb200"]),
    isl=st.integers(1, 60_000),
    osl=st.integers(1, 8_000),
    concurrency=st.integers(1, 20_000),
    budget=st.sampled_from([256.0, 2048.0, 16384.0]),
)
@settings(max_examples=30, deadline=None)
def test_nothing_beats_the_hardware(
    name: str, engine: str, gpu: str, isl: int, osl: int, concurrency: int, budget: float
) -> None:
    """Every figure is finite and positive but what a closed loop has to spare; no utilisation exceeds 1; memory's parts
    are its sum.
    """
    machines = cluster(gpu, 16)
    members = [replace(m, cluster=machines) for m in plans(name, engine, 16)]
    e = estimate(members, load(float(concurrency), float(isl), float(osl), budget))
    for f in fields(Estimate):
        values = np.asarray(getattr(e, f.name), dtype=float)
        assert np.isfinite(values).all() or f.name == "spare_sd", f.name
        assert (values >= 0.0).all() or f.name == "kv_fits_longest", f.name
    for values in (e.ttft_s, e.requests_per_s, e.memory_util_frac):
        assert (values > 0.0).all()
    assert (e.tpot_s > 0.0).all() or osl == 1
    assert (e.gpu_util_frac <= SLACK).all()
    assert (e.ttft_longest_s >= e.ttft_s / SLACK).all()
    assert e.memory_bytes.sum(axis=0) == pytest.approx(e.memory_util_frac * machines.gpu.hbm_bytes)
    assert e.memory_bytes.shape[0] == len(MEMORY_KINDS)
    assert e.ttft_parts_s.sum(axis=0) == pytest.approx(e.ttft_s)
    assert e.total_tokens_per_s == pytest.approx(e.requests_per_s * (isl + osl))
    assert e.output_tokens_per_s == pytest.approx(e.requests_per_s * osl)


@given(
    name=st.sampled_from(MODELS),
    engine=st.sampled_from(ENGINES),
    isl=st.integers(1, 60_000),
    osl=st.integers(100, 8_000),
    concurrency=st.integers(1, 20_000),
)
@settings(max_examples=20, deadline=None)
def test_peaks_are_peaks(name: str, engine: str, isl: int, osl: int, concurrency: int) -> None:
    """The formulas use at most the peaks; residuals, which know no peak, leave them by half at most.

    Outputs of a few tokens are left out: the queue behind prompts is fitted on runs that decode.
    """
    members = plans(name, engine, 16)
    work = load(float(concurrency), float(isl), float(osl))
    for formulas, most in ((True, SLACK), (False, 1.5)):
        e = estimate(members, work, formulas=formulas)
        assert (e.compute_util_frac <= most).all()
        assert (e.bandwidth_util_frac <= most).all()


@given(name=st.sampled_from(MODELS), engine=st.sampled_from(ENGINES), isl=st.integers(64, 9_000))
@settings(max_examples=20, deadline=None)
def test_waiting_for_cache_room_serves_no_faster(name: str, engine: str, isl: int) -> None:
    """Where requests wait for KV room, residuals move throughput no more than they move the slower latency."""
    members = plans(name, engine, 8)
    work = load(50_000.0, float(isl), 1000.0)
    plain, moved = estimate(members, work, formulas=True), estimate(members, work)
    running = plain.kv_wait_s > 0
    assert running.any()
    served = moved.requests_per_s / plain.requests_per_s
    slower = (moved.tpot_s / plain.tpot_s, (moved.ttft_s - moved.kv_wait_s) / (plain.ttft_s - plain.kv_wait_s))
    assert (served <= SLACK / np.minimum(*slower))[running].all()
    assert (served * SLACK >= 1.0 / np.maximum(*slower))[running].all()


@given(
    name=st.sampled_from(MODELS),
    engine=st.sampled_from(ENGINES),
    isl=st.integers(16, 20_000),
    hit=st.floats(0.0, 0.9),
    concurrency=st.integers(1, 200),
)
@settings(max_examples=25, deadline=None)
def test_cached_prefixes_never_hurt(name: str, engine: str, isl: int, hit: float, concurrency: int) -> None:
    """Prompt tokens found in the cache shorten the wait for the first token, or leave it."""
    members = [m for m in plans(name, engine, 8) if m.layout.pp == 1]  # chunks overlap over stages
    work = load(float(concurrency), float(isl), 200.0, 1 << 20)
    before = estimate(members, work)
    after = estimate(members, replace(work, prefix_hit_frac=np.array([hit])))
    assert (after.ttft_s <= before.ttft_s * (1 + 1e-6)).all()


@given(
    name=st.sampled_from(MODELS), engine=st.sampled_from(ENGINES), isl=st.integers(16, 20_000), more=st.floats(1.0, 4.0)
)
@settings(max_examples=20, deadline=None)
def test_longer_prompts_never_start_sooner(name: str, engine: str, isl: int, more: float) -> None:
    """In the formulas, without chunks, TTFT and TPOT never fall with prompt length where there is KV room."""
    members = [m for m in plans(name, engine, 8) if m.layout.pp == 1]
    short = estimate(members, load(16.0, float(isl), 200.0, 1 << 20), formulas=True)
    long = estimate(members, load(16.0, float(int(isl * more)), 200.0, 1 << 20), formulas=True)
    free = long.kv_wait_s == 0
    assume(free.any())
    assert (long.ttft_s * SLACK >= short.ttft_s)[free].all()
    assert (long.tpot_s * SLACK >= short.tpot_s)[free].all()


@given(
    name=st.sampled_from(MODELS),
    engine=st.sampled_from(ENGINES),
    isl=st.integers(16, 20_000),
    osl=st.integers(2, 4_000),
    concurrency=st.integers(1, 2_000),
    more=st.integers(1, 2_000),
)
@settings(max_examples=20, deadline=None)
def test_load_and_latency(name: str, engine: str, isl: int, osl: int, concurrency: int, more: int) -> None:
    """With KV room a request never takes less with load; TTFT and TPOT fall by a twentieth at most.

    Of outputs of a few tokens that is not true: prompts and decode steps compete, and one of the two falls while the
    other grows. There a whole request falls by a twentieth at most, where prompts share steps with decoding; where they
    come first, passes fill at some load and requests then fall further. Residuals know of concurrency, a little.
    """
    few = osl < FEW_OUTPUTS
    assume(not few or engine != "sglang")
    members = plans(name, engine, 8)
    for formulas, least in ((True, 1 - 3e-3), (False, 1 - 2e-2)):
        a = estimate(members, load(float(concurrency), float(isl), float(osl)), formulas=formulas)
        b = estimate(members, load(float(concurrency + more), float(isl), float(osl)), formulas=formulas)
        free = b.kv_wait_s == 0
        assume(free.any())
        assert (b.e2e_s >= a.e2e_s * (0.95 if few else least))[free].all()
        if not few:
            assert (b.tpot_s >= a.tpot_s * 0.95)[free].all()
            assert (b.ttft_s >= a.ttft_s * 0.95)[free].all()


@given(name=st.sampled_from(MODELS), engine=st.sampled_from(ENGINES), figure=st.sampled_from(["up", "out"]))
@settings(max_examples=20, deadline=None)
def test_quicker_links_never_hurt(name: str, engine: str, figure: str) -> None:
    """Less latency of a link tier slows no plan: whole requests, their outputs, and how many are served.

    First tokens alone may come later: sooner decoded, requests come back sooner, and queue for their prefill. All steps
    with prompts are launched as graphs: a limit of that is a cliff, which the quicker links may be the first to reach.
    """
    members = plans(name, engine, 32)
    field = f"scale{figure}_latency_s"
    old = members[0].cluster
    slow = replace(old, gpu=replace(old.gpu, **{field: 10 * getattr(old.gpu, field)}))
    cut = [replace(m, cluster=slow) for m in members]
    before = estimate(cut, load(64.0), formulas=True, capture_tokens=1e12)
    after = estimate(members, load(64.0), formulas=True, capture_tokens=1e12)
    assert (after.e2e_s <= before.e2e_s * (1.0 + 1e-4)).all()
    assert (after.tpot_s <= before.tpot_s * (1.0 + 1e-3)).all()
    assert (after.requests_per_s * (1.0 + 1e-4) >= before.requests_per_s).all()
    assert (after.ttft_s <= before.ttft_s * 1.15).all()
    assert (after.tpot_s < before.tpot_s).any()


def test_mixed_batches_across_chunks() -> None:
    """More plans than fit a chunk, of several models, engines, GPUs and loads, are each what they are alone."""
    kinds = [
        entry("deepseek-v3", "vllm", attn_dp=8, moe_ep=8),
        entry("llama-3.1-70b", "trtllm", "b200", attn_tp=4, pp=3),
        entry("gpt-oss-120b", "sglang", "h100", attn_tp=2, moe_tp=2),
        entry("qwen3.5-397b", "sglang", "mi300x", attn_tp=2, moe_ep=2, pp=2),
        entry("mixtral-8x22b", "vllm", "h20", attn_tp=8, moe_tp=8),
    ]
    many = (kinds * (CHUNK_PLANS // len(kinds) + 2))[: CHUNK_PLANS + 7]
    random = np.random.default_rng(11)
    in_flight = random.integers(1, 4_000, len(many)).astype(np.float64)
    together = estimate(many, load(in_flight))
    for i in (0, 3, CHUNK_PLANS - 1, CHUNK_PLANS, len(many) - 1):
        alone = estimate([many[i]], load(in_flight[i]))
        for f in fields(Estimate):
            value, mixed = np.asarray(getattr(alone, f.name))[..., 0], np.asarray(getattr(together, f.name))[..., i]
            assert mixed == pytest.approx(value, rel=1e-9, abs=1e-300), f.name
    taken = PlanBatch.of(kinds).take(np.arange(len(many)) % len(kinds))
    work = load(in_flight)
    again = taken.evaluate(work, longest_prompt=work.isl, memory_fraction=np.array([0.9]))
    assert np.array_equal(again.ttft_s, together.ttft_s)
    assert np.array_equal(again.memory_bytes, together.memory_bytes)


def ranks_of(engine: str, pp: int, tp: int, dp: int) -> dict[tuple[int, int, int], int]:
    """(dp, pp, tp) of every rank of a replica, in the order of the engine."""
    if engine == "vllm":  # DP, PP, TP from slowest to fastest
        return {(d, p, t): (d * pp + p) * tp + t for d, p, t in product(range(dp), range(pp), range(tp))}
    return {(d, p, t): (p * dp + d) * tp + t for d, p, t in product(range(dp), range(pp), range(tp))}


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("domain", [4, 8])
def test_placement_rank_by_rank(engine: str, domain: int) -> None:
    """Counting which ranks share a domain gives each group's spread, for every power of two up to 64 GPUs."""
    base = entry("deepseek-v3").arch
    powers = (1, 2, 4, 8, 16)
    for pp, tp, dp in product(powers, powers, powers):
        if pp * tp * dp > 64:
            continue
        ranks = ranks_of(engine, pp, tp, dp)
        plan = layout(base, pp=pp, attn_tp=tp, attn_dp=dp, moe_ep=tp * dp)
        machines = replace(cluster("h200", 64), gpus_per_node=domain)
        placed = Placement.of(LayoutColumns.of([plan], [TRAITS[engine]]), ClusterColumns.of([machines]))
        stage = [ranks[d, 0, t] // domain for d in range(dp) for t in range(tp)]
        rows = [ranks[0, 0, t] // domain for t in range(tp)]
        crosses = any(
            ranks[d, p, t] // domain != ranks[d, p + 1, t] // domain
            for d, p, t in product(range(dp), range(pp - 1), range(tp))
        )
        assert placed.stage_domains[0] == len(set(stage)), plan
        assert placed.stage_local[0] == len(stage) / len(set(stage)), plan
        assert placed.tp_domains[0] == len(set(rows)), plan
        assert placed.pp_crosses[0] == crosses, plan
