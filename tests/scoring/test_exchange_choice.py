"""Tokens reach their experts as an export starts it: by the backend's limits and with its buffer in the memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autotune.engines import ENGINES
from autotune.engines.low_latency import GIB, HEAP_BYTES
from autotune.launch.export import make_export
from autotune.scoring.exchange_choice import without_exchange_buffer
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.study import Study, study_from_document
from autotune.tuning import PlanResult, score_plan
from costmodel.estimate.batch import PlanBatch
from costmodel.serving.steady_state import SteadyState

PER_TOKEN = 4 * 256 * 14_560
"""Bytes of the buffer for DeepSeek-V3's 256 experts."""
WIDE = "R1/PP1/ATP1/ADP128/MTP1/EP128"


def study(engine: str, gpu: str = "h200", gpus: int = 128, model: str = "deepseek-v3") -> Study:
    """A model on these GPUs."""
    table = {
        "model": model,
        "engine": engine,
        "cluster": {"gpus": gpus, "gpu": gpu},
        "workload": {"isl": 1000, "osl": 500, "concurrency": 1024},
    }
    return study_from_document(table, Path("study.toml"))


def scored(asked: Study, plan: str, budget: int) -> tuple[PlanResult, KnobGrid]:
    """A plan with a token budget, and its row."""
    result = score_plan(asked, plan, batched_tokens=budget).result
    assert result is not None
    return result, KnobGrid.of(asked, [Variant.of(result)], [budget])


def taken(batch: PlanBatch, state: SteadyState) -> float:
    """Seconds of a decode step."""
    return float(sum(seconds[0] for seconds in batch.step(state.decode.work).group_s.values()))


@pytest.mark.parametrize(
    ("engine", "gpu", "budget", "exchange", "memory"),
    [
        ("vllm", "h200", 512, "routed", 512 * PER_TOKEN),
        ("vllm", "h200", 1024, "routed", 1024 * PER_TOKEN),
        ("vllm", "h200", 2048, "gather", 0),
        ("sglang", "h200", 2048, "routed", 128 * PER_TOKEN),
        ("vllm", "mi300x", 256, "routed", HEAP_BYTES),
        ("vllm", "mi300x", 1024, "routed", 1024 * PER_TOKEN + GIB),
        ("vllm", "mi300x", 2048, "gather", 0),
        ("sglang", "mi300x", 2048, "routed", HEAP_BYTES),
    ],
)
def test_scored_as_it_is_started(engine: str, gpu: str, budget: int, exchange: str, memory: int) -> None:
    """DeepEP up to 1,024 tokens a rank, its buffer or AMD's heap taken from the KV room, else the gather."""
    asked = study(engine, gpu)
    result, grid = scored(asked, WIDE, budget)
    service = make_export(asked, result).service
    assert service.exchange == exchange
    assert (ENGINES[engine].low_latency_tokens(service) is not None) == (exchange == "routed")
    assert service.limits.exchange_buffer_bytes == ENGINES[engine].exchange_buffer_bytes(service) == memory
    bounds = {"longest_prompt": np.array([1000.0]), "memory_fraction": np.array([0.9])}
    load = grid.load(np.array([128.0]))
    held, free = (b.memory(load, **bounds) for b in (grid.batch, without_exchange_buffer(grid.batch)))
    assert free.kv_room_bytes[0] - held.kv_room_bytes[0] == pytest.approx(memory)


def test_a_larger_budget_loses_the_kernels() -> None:
    """Beyond their limit a step of decoding takes the time of the gather, with the kernels it would be faster."""
    asked = study("vllm")
    grids = [scored(asked, WIDE, budget)[1] for budget in (1024, 2048)]
    states = [g.steady(np.array([1024.0])) for g in grids]
    small, large = (taken(g.batch, s) for g, s in zip(grids, states, strict=True))
    assert large > 1.02 * small
    chosen = replace(grids[1].batch, backend=grids[0].batch.backend)
    assert taken(chosen, states[1]) < large / 1.02


@pytest.mark.parametrize(
    ("model", "gpu", "backend"),
    [
        ("gpt-oss-120b", "h200", "deepep_low_latency"),
        ("gpt-oss-120b", "mi300x", "allgather_reducescatter"),
        ("gpt-oss-120b", "a100", "allgather_reducescatter"),
        ("deepseek-v3", "mi300x", "deepep_low_latency"),
    ],
)
def test_kernels_that_a_gpu_does_not_have_are_not_priced(model: str, gpu: str, backend: str) -> None:
    """vLLM takes tokens for experts in MXFP4 by low latency on NVIDIA alone, and DeepEP has it from Hopper on."""
    asked = study("vllm", gpu, 32, model)
    result, grid = scored(asked, "R1/PP1/ATP1/ADP32/MTP1/EP32", 512)
    argv = make_export(asked, result).replicas[0].head.argv
    assert argv[argv.index("--all2all-backend") + 1] == backend
    assert bool(grid.batch.backend.low_latency[0]) is (backend == "deepep_low_latency")


def test_a_buffer_without_room_is_not_started() -> None:
    """On 16 H100s DeepSeek-V3's weights leave no room for 14 GiB of it: the plan is scored and exported with gather."""
    asked = study("vllm", "h100", 16)
    asked = replace(asked, engine_options=replace(asked.engine_options, gpu_memory_utilization=0.72))
    result, grid = scored(asked, "R1/PP1/ATP2/ADP8/MTP1/EP16", 1024)
    assert grid.batch.backend.low_latency[0] == 0.0
    argv = make_export(asked, result).replicas[0].head.argv
    assert argv[argv.index("--all2all-backend") + 1] == "allgather_reducescatter"


@pytest.mark.parametrize(
    ("engine", "plan", "shards"),
    [
        ("vllm", "R2/PP1/ATP2/ADP8/MTP1/EP16", 2),
        ("sglang", "R2/PP1/ATP2/ADP8/MTP1/EP16", 1),
        ("sglang", "R2/PP1/ATP2/ADP8/MTP2/EP8", 16),
        ("sglang", "R4/PP1/ATP8/ADP1/MTP1/EP8", 8),
        ("sglang", "R1/PP1/ATP1/ADP32/MTP2/EP16", 1),
    ],
)
def test_shared_experts_are_held_as_the_engine_cuts_them(engine: str, plan: str, shards: int) -> None:
    """SGLang cuts them over the stage, and keeps them whole with DeepEP and where a shard would be half a block."""
    asked = study(engine, gpus=32)
    _, grid = scored(asked, plan, 16_384)
    bounds = {"longest_prompt": np.array([1000.0]), "memory_fraction": np.array([0.9])}
    held = grid.batch.memory(grid.load(np.array([64.0])), **bounds).weights_bytes["shared_experts"]
    assert held[0] == pytest.approx(58 * 3 * 7168 * 2048 / shards, rel=0.01)
