"""How many sequences the cache of each engine holds, of models whose layers look back unlike far: sums made by hand."""

from pathlib import Path

import numpy as np
import pytest

from autotune.engines import ENGINES
from autotune.engines.cache_rules import cache_words
from autotune.launch.limits import plan_rows, start_limits
from autotune.study import study_from_document
from autotune.tuning import score_plan
from costmodel.arch import load_model
from costmodel.arch.attention import Compressed
from costmodel.engine import CacheRule
from costmodel.estimate.batch import PlanBatch, PlanEntry
from costmodel.step.memory import Memory
from tests.costmodel.helpers import cluster, layout, load

OSS_LAYER = 8 * (64 + 64) * 2
"""Bytes that a token of gpt-oss leaves in a layer: eight heads of 64 keys and values, 16 bits each."""
GEMMA_LAYER = 16 * (128 + 128) * 2
NEXT_LAYER = 2 * (256 + 256) * 2
NEXT_STATE = 32 * 128 * 128 * 4 + (2 * 16 * 128 + 32 * 128) * 3 * 2
"""Of a layer of Qwen3-Next's delta rule: the state in 32 bits, and three tokens of its convolution in 16."""


def _memory(name: str, engine: str, *, isl: float, osl: float = 0.0, version: str | None = None, tp: int = 1) -> Memory:
    """Of a replica of one stage, as `engine` is exported; eight sequences are asked for."""
    arch, own = load_model(name), ENGINES[engine]
    entry = PlanEntry(
        arch=arch,
        cluster=cluster("h200", 8),
        engine=own.traits,
        layout=layout(arch, attn_tp=tp, **({"moe_tp": tp} if arch.is_moe else {})),
        cache=own.cache_rule(arch, version),
    )
    asked = load(8.0, isl, osl)
    return PlanBatch.of([entry]).memory(asked, longest_prompt=asked.isl, memory_fraction=np.array([0.9]))


def _each(name: str, engine: str, **asked: float | str | None) -> float:
    return float(_memory(name, engine, **asked).kv_bytes_per_sequence[0])  # type: ignore[arg-type]  # as `_memory`


@pytest.mark.parametrize(("name", "whole", "seen"), [("gemma-3-27b", 62, 10), ("gpt-oss-120b", 36, 18)])
def test_trtllm_keeps_every_layer_whole(name: str, whole: int, seen: int) -> None:
    """62 and 36 layers of the whole context, where vLLM has 10 and 18 of it and the others' windows."""
    layer, window = (GEMMA_LAYER, 1024) if name.startswith("gemma") else (OSS_LAYER, 128)
    assert _each(name, "trtllm", isl=33_000.0) == pytest.approx(whole * 33_000 * layer)
    kept = seen * 33_000 + (whole - seen) * window
    assert _each(name, "vllm", isl=33_000.0) == pytest.approx(kept * layer)


def test_trtllm_holds_six_sequences_of_gemma() -> None:
    """44.5 GiB beside TP2 are 5.7 sequences of 33,000 tokens at 253,952 bytes each."""
    each = _each("gemma-3-27b", "trtllm", isl=32_000.0, osl=1_000.0, tp=2)
    assert each == pytest.approx(33_000 * 253_952)
    assert 44.5 * 2**30 / each == pytest.approx(5.7, abs=0.05)


@pytest.mark.parametrize("name", ["gemma-2-27b", "gemma-3-27b", "command-a", "olmo-3.1-32b-instruct", "trinity-mini"])
def test_sglang_has_no_pool_of_windows_for_what_it_does_not_list(name: str) -> None:
    """Every layer keeps the whole context, as TensorRT-LLM's do."""
    assert _each(name, "sglang", isl=33_000.0) == pytest.approx(_each(name, "trtllm", isl=33_000.0))


def test_sglang_splits_cache_and_windows_by_a_fixed_ratio() -> None:
    """GPT-OSS at TP2: full_tokens = memory / (18 F + 0.8 x 18 S), so that 38.4 GiB hold 37.7 sequences of 33,000."""
    each = _each("gpt-oss-120b", "sglang", isl=33_000.0, tp=2)
    assert each == pytest.approx(33_000 * (18 + 0.8 * 18) * OSS_LAYER / 2)
    assert 38.4 * 2**30 / each == pytest.approx(37.7, abs=0.05)


@pytest.mark.parametrize(("tokens", "full"), [(100, 125.0), (150, 160.0), (160, 160.0), (161, 161.0)])
def test_the_pool_that_is_full_first_decides(tokens: int, full: float) -> None:
    """Below 128 / 0.8 tokens the windows fill their pool first: a sequence takes what `full` tokens of both take."""
    assert _each("gpt-oss-120b", "sglang", isl=float(tokens)) == pytest.approx(full * (18 + 0.8 * 18) * OSS_LAYER)


def test_sglang_has_a_smaller_pool_of_windows_for_deepseek_v4() -> None:
    """A tenth of the context in the pool of windows, beside the entries, where vLLM has the window alone."""
    v4, tokens = load_model("deepseek-v4"), 32_000
    windows = sum(g.count * float(np.asarray(g.block.head_dim)) for g in v4.groups if isinstance(g.block, Compressed))
    each = windows * {"bf16": 2, "fp8": 1}[v4.kv_dtype]
    more = _each("deepseek-v4", "sglang", isl=float(tokens), tp=8) - _each(
        "deepseek-v4", "vllm", isl=float(tokens), tp=8
    )
    assert more == pytest.approx((tokens * 0.1 - 128) * each)


@pytest.mark.parametrize(("version", "states"), [("0.5.9", 3), ("0.5.22", 5), (None, 5)])
def test_sglang_splits_cache_and_states_by_a_fixed_ratio(version: str | None, states: int) -> None:
    """Qwen3-Next: 0.9 / 1.9 of the memory hold states, the others the cache; long prompts fill the latter first."""
    long = _each("qwen3-next", "sglang", isl=64_000.0, version=version)
    assert long == pytest.approx(1.9 * 12 * 64_000 * NEXT_LAYER)
    short = _each("qwen3-next", "sglang", isl=100.0, version=version)
    assert short == pytest.approx(1.9 / 0.9 * 36 * states * NEXT_STATE)
    assert _each("qwen3-next", "vllm", isl=100.0) == pytest.approx(12 * 100 * NEXT_LAYER + 36 * NEXT_STATE)


def test_what_holds_no_states_and_no_windows_is_alike() -> None:
    """A model whose layers all look back at everything takes the same in every engine."""
    each = [_each("llama-70b", engine, isl=3_000.0, tp=4) for engine in ("vllm", "sglang", "trtllm")]
    assert each == pytest.approx([80 * 3_000 * 2 * 2 * 128 * 2] * 3)


def test_room_for_the_longest_follows() -> None:
    """What one longest request takes is by the same rule as what one of mean length takes."""
    for engine in ("vllm", "sglang", "trtllm"):
        memory = _memory("gpt-oss-120b", engine, isl=33_000.0)
        assert memory.kv_bytes_longest == pytest.approx(memory.kv_bytes_per_sequence)
        assert memory.kv_fits_longest * memory.kv_bytes_longest == pytest.approx(memory.kv_room_bytes)


def test_plans_of_several_rules_in_one_batch_stand_as_alone() -> None:
    """Each row of a batch goes by its own rule, also after rows are picked."""
    names, engines = ("gpt-oss-120b", "gemma-3-27b", "qwen3-next", "llama-70b"), ("vllm", "sglang", "trtllm")
    pairs = [(name, engine) for name in names for engine in engines]
    entries = []
    for name, engine in pairs:
        arch, own = load_model(name), ENGINES[engine]
        plan = layout(arch, attn_tp=1, pp=2)
        rule = own.cache_rule(arch, None)
        entries.append(PlanEntry(arch=arch, cluster=cluster("b200", 8), engine=own.traits, layout=plan, cache=rule))
    asked = load(8.0, 5_000.0, 0.0)
    given = {"longest_prompt": asked.isl, "memory_fraction": np.array([0.9])}
    order = np.arange(len(entries))[::-1].copy()
    together = PlanBatch.of(entries).take(order).memory(asked, **given).kv_bytes_per_sequence
    alone = [PlanBatch.of([entries[i]]).memory(asked, **given).kv_bytes_per_sequence[0] for i in order]
    assert together == pytest.approx(alone)


def test_only_an_engine_that_says_so_keeps_more_than_is_seen() -> None:
    """vLLM's groups of layers share one memory, whatever the model."""
    assert ENGINES["vllm"].cache_rule(load_model("gpt-oss-120b"), None) == CacheRule()


@pytest.mark.parametrize(
    ("engine", "model", "tokens", "each"),
    [
        ("trtllm", "gemma-3-27b", 33_000, 62 * GEMMA_LAYER / 2),
        ("sglang", "gemma-3-27b", 32_500, 62 * GEMMA_LAYER / 2),
        ("sglang", "gpt-oss-120b", 32_500, (18 + 0.8 * 18) * OSS_LAYER / 2),
    ],
)
def test_what_is_scored_and_what_is_started_follow(engine: str, model: str, tokens: int, each: float) -> None:
    """Requests that are held, and seats that an export has, are what the room holds, with 5 % to spare."""
    study = study_from_document(
        {
            "model": model,
            "engine": engine,
            "cluster": {"gpus": 2, "gpu": "h100"},
            "workload": {"isl": 32_000, "osl": 1_000, "concurrency": 100},
        },
        Path("study.toml"),
    )
    plan = score_plan(study, "R1 TP2").result
    assert plan is not None
    limits = start_limits(plan_rows(study, plan), plan, "none")
    held = limits.kv_room_bytes / (tokens * each)
    # activations of more sequences, and a share of what is free, make the room another by less than a sequence
    assert abs(plan.metrics["kv_capacity_sequences"] - held) < 1.0
    assert limits.kv_needed_bytes == pytest.approx(limits.max_num_seqs * tokens * each)
    assert held / 1.05 - 2.0 < limits.max_num_seqs <= held / 1.05


@pytest.mark.parametrize(
    ("engine", "model", "said"),
    [
        ("trtllm", "gpt-oss-120b", ["the whole context"]),
        ("sglang", "gemma-3-27b", ["the whole context"]),
        ("sglang", "gpt-oss-120b", ["--swa-full-tokens-ratio"]),
        ("sglang", "qwen3-next", ["--mamba-full-memory-ratio"]),
        ("vllm", "gpt-oss-120b", []),
        ("sglang", "llama-70b", []),
    ],
)
def test_exports_say_what_is_kept(engine: str, model: str, said: list[str]) -> None:
    """Of models that leave a choice; of others there is nothing to say."""
    arch = load_model(model)
    words = cache_words(arch, ENGINES[engine].cache_rule(arch, None))
    assert [part in text for part, text in zip(said, words, strict=True)] == [True] * len(said)
