"""The plan space against an independent count, a naive enumeration, and its own rules."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from math import gcd
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import costmodel.arch
from autotune.engines import ENGINES, rule_texts, split_layers
from autotune.space import conditions, enumerate_space, format_plan, parse_plan, resolve, short_plan, violations
from costmodel.arch import Arch, load_model, read_config
from costmodel.arch.attention import GroupedQuery
from costmodel.arch.block import Block
from costmodel.arch.ffn import Dense, Experts
from costmodel.dtypes import storage
from costmodel.errors import InputError
from costmodel.plan.layout import Layout

CATALOG = Path(costmodel.arch.__file__).parent / "catalog_data"
COUNTS = {
    ("deepseek-v3", None): (201, 459, 206),
    ("kimi-k2", None): (201, 444, 201),
    ("Qwen/Qwen3-235B-A22B-FP8", None): (190, 326, 158),
    ("mixtral-8x22b", None): (156, 72, 162),
    ("llama-3.1-405b", None): (35, 35, 35),
    ("deepseek-v3", "older"): (176, 264 + 34, 206),
    ("kimi-k2", "older"): (176, 264 + 33, 201),
    ("Qwen/Qwen3-235B-A22B-FP8", "older"): (150, 326, 158),
}
"""Model and version -> layouts of 128 GPUs per engine, counted from what the engines' own classes build."""
OLDER = {"vllm": "0.28.0", "sglang": "0.5.9", "trtllm": "1.1.0"}
"""vLLM that keeps whole blocks of experts; SGLang that keeps shared experts whole with DeepEP alone.

That adds stages of 32, 64 and 128 ranks with attention-DP and whole experts: 3 x 5, 2 x 6 and 7 splits of attention,
less Kimi's TP64, whose query projection has 192 rows a rank."""
REFERENCE = read_config(
    {
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "hidden_size": 2048,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 6144,
        "vocab_size": 32000,
        "torch_dtype": "float16",
    },
    name="reference",
)


@pytest.mark.parametrize(("name", "age"), COUNTS)
def test_independent_counts(name: str, age: str | None) -> None:
    """Layouts of 128 GPUs per engine and version, counted by someone else."""
    arch = load_model(name)
    versions = dict.fromkeys(OLDER) if age is None else OLDER
    found = tuple(len(enumerate_space(arch, gpus=128, engine=e, version=versions[e]).candidates) for e in ENGINES)
    assert found == COUNTS[name, age]


@pytest.mark.parametrize(("model", "count"), [("deepseek-v3", 34), ("kimi-k2", 33), ("Qwen/Qwen3-235B-A22B-FP8", 0)])
def test_layouts_that_start_under_a_condition_are_counted_apart(model: str, count: int) -> None:
    """Without shared experts kept whole, 264 layouts are left of the two models that have some."""
    arch, version = load_model(model), OLDER["sglang"]
    valid = enumerate_space(arch, gpus=128, engine="sglang", version=version).candidates
    found = [(rule.name, number) for rule, number in conditions(arch, valid, version)]
    assert found == ([("whole_shared_experts", count)] if count else [])
    assert len(valid) - count == (264 if count else 326)
    assert conditions(arch, enumerate_space(arch, gpus=128, engine="vllm").candidates) == ()


def test_the_version_decides_when_blocks_are_refined() -> None:
    """From vLLM 0.30 on; without a version the newest is taken."""
    arch = load_model("deepseek-v3")
    found = {
        v: len(enumerate_space(arch, gpus=128, engine="vllm", version=v).candidates) for v in (None, "0.29.9", "0.30.0")
    }
    assert found == {None: 201, "0.29.9": 176, "0.30.0": 201}


@given(
    gpus=st.integers(1, 200),
    name=st.sampled_from(["deepseek-v3", "gpt-oss-120b", "mixtral-8x7b", "llama-3.1-8b", "qwen3.5-397b"]),
    engine=st.sampled_from([*ENGINES, "any"]),
)
@settings(max_examples=40, deadline=None)
def test_every_layout_uses_all_gpus_and_all_layers(gpus: int, name: str, engine: str) -> None:
    """Products are N, stages sum to the layers, nothing is lost between enumerated, valid and rejected."""
    arch = load_model(name)
    space = enumerate_space(arch, gpus=gpus, engine=engine)
    assert space.enumerated == len(space.candidates) + sum(space.rejected.values())
    assert len(set(space.candidates)) == len(space.candidates)
    for c in space.candidates:
        layout = c.layout
        assert layout.gpus == gpus
        assert sum(layout.stage_layers) == arch.num_hidden_layers
        assert len(layout.stage_layers) == layout.pp
        assert not violations(arch, c.engine, layout)
        if arch.is_moe:
            assert layout.moe_tp * layout.moe_ep == layout.width


def _naive(arch: Arch, gpus: int, engine: str) -> set[tuple[int, ...]]:
    """The rules once more, written out for one tuple at a time."""
    found = set()
    attention = arch.attentions[0]
    dense, routed = ([int(b.width) for b in shapes] or [0] for shapes in (arch.dense_shapes, arch.expert_shapes))
    shared_width = int(arch.expert_shapes[0].shared_width) if arch.is_moe else 0
    block = storage(arch.dtypes.experts if arch.is_moe else arch.dtypes.dense_ffn).group
    sizes = [d for d in range(1, gpus + 1) if gpus % d == 0]
    for replicas, pp, tp, dp, moe_tp, ep in product(sizes, repeat=6):
        width = tp * dp
        if replicas * pp * width != gpus or pp > arch.num_hidden_layers or attention.heads % tp:
            continue
        kv = attention.kv_heads if isinstance(attention, GroupedQuery) else 0
        if kv and (kv % tp if tp <= kv else tp % kv):
            continue
        if engine == "trtllm" and dp not in (1, width):
            continue
        if not arch.is_moe:
            if dp == moe_tp == ep == 1:
                found.add((replicas, pp, tp, dp, moe_tp, ep))
            continue
        if moe_tp * ep != width or routed[0] % moe_tp or ep > arch.num_experts:
            continue
        if engine == "vllm" and moe_tp > 1 and ep > 1:
            continue
        if engine != "vllm" and arch.num_experts % ep:
            continue
        if engine == "sglang" and arch.model_type == "mixtral" and dp > 1:
            continue
        shard = routed[0] // moe_tp
        if engine == "vllm" and block and shard % block and gcd(shard, block) < 32:
            continue
        if engine != "vllm" and block and moe_tp > 1 and shard % block:
            continue
        whole = not any(width % tp or width // tp % block for width in (dense[0], shared_width)) if block else True
        if engine == "vllm" and not whole:
            continue
        found.add((replicas, pp, tp, dp, moe_tp, ep))
    return found


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["deepseek-v3", "mixtral-8x22b", "llama-3.1-70b", "Qwen/Qwen3-235B-A22B-FP8"])
@pytest.mark.parametrize("gpus", [6, 16])
def test_brute_force_finds_the_same_set(name: str, engine: str, gpus: int) -> None:
    """Every tuple of divisors, filtered one by one."""
    arch = load_model(name)
    listed = {
        (p.replicas, p.pp, p.attn_tp, p.attn_dp, p.moe_tp, p.moe_ep)
        for p in (c.layout for c in enumerate_space(arch, gpus=gpus, engine=engine).candidates)
    }
    assert listed == _naive(arch, gpus, engine)


def test_sixty_one_layers() -> None:
    """A prime number of layers is split as each engine does."""
    assert split_layers("vllm", 61, 2) == split_layers("trtllm", 61, 2) == (31, 30)
    assert split_layers("sglang", 61, 2) == (30, 31)
    assert split_layers("vllm", 61, 4) == (15, 15, 16, 15)
    assert split_layers("sglang", 61, 4) == (15, 15, 15, 16)
    assert split_layers("trtllm", 61, 4) == (16, 15, 15, 15)
    with pytest.raises(ValueError, match=r"`pp` must lie between 1 and num_hidden_layers, got pp=62"):
        split_layers("vllm", 61, 62)


@pytest.mark.parametrize("name", ["deepseek-v3", "mixtral-8x22b", "llama-3.1-70b", "qwen3-235b"])
def test_full_plan_strings_round_trip(name: str) -> None:
    """The string of a layout means just that layout, on the engine it names."""
    arch = load_model(name)
    for c in enumerate_space(arch, gpus=32, engine="any").candidates:
        found = resolve(parse_plan(format_plan(c.layout, c.engine)), arch=arch, gpus=32, engine="any")
        assert found.candidate == c
        assert found.alternatives == ()
        assert found.violations == ()


def test_the_reference_plan() -> None:
    """EP16/PP2/TP4/DP4 on 128 GPUs: one reading in vLLM, three in SGLang, none that TensorRT-LLM can launch."""
    spec = parse_plan("EP16/PP2/TP4/DP4")
    vllm = resolve(spec, arch=REFERENCE, gpus=128, engine="vllm")
    assert short_plan(vllm.candidate.layout) == "R4 PP2 TP4 DP4 EP16"
    assert vllm.candidate.layout.stage_layers == (8, 8)
    assert vllm.alternatives == ()
    assert vllm.assumed
    sglang = resolve(spec, arch=REFERENCE, gpus=128, engine="sglang")
    readings = {
        (c.layout.replicas, c.layout.attn_dp, c.layout.moe_tp) for c in (sglang.candidate, *sglang.alternatives)
    }
    assert readings == {(1, 16, 4), (2, 8, 2), (4, 4, 1)}
    assert sglang.candidate.layout.moe_tp == 1
    trtllm = resolve(spec, arch=REFERENCE, gpus=128, engine="trtllm")
    assert [v.rule for v in trtllm.violations] == ["attention_dp_all_or_nothing"]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("tp8", "R16 TP8 ETP8"),
        ("TP4xPP2xDP4/EP", "R4 PP2 TP4 DP4 EP16"),
        ("tp=4,pp=2,dp=4,ep=16", "R4 PP2 TP4 DP4 EP16"),
        ("TP4 PP2 DP4 EP16", "R4 PP2 TP4 DP4 EP16"),
        ("DP8+EP", "R16 DP8 EP8"),
        ("attn_tp=4 attn_dp=4 moe_ep=16 pp=2", "R4 PP2 TP4 DP4 EP16"),
        ("SPLIT9-7/TP4/DP4/EP16", "R4 PP2 TP4 DP4 EP16"),
        ("PP2/TP4/DP4/EP16/TBO", "R4 PP2 TP4 DP4 EP16 TBO"),
    ],
)
def test_short_strings(text: str, meaning: str) -> None:
    """What people write resolves to what they mean."""
    found = resolve(parse_plan(text), arch=REFERENCE, gpus=128, engine="vllm")
    assert short_plan(found.candidate.layout) == meaning


def test_malformed_strings_list_every_token() -> None:
    """Each token that cannot be read is named."""
    with pytest.raises(InputError, match="cannot read") as caught:
        parse_plan("TP4/QQ3/PP/ZZ")
    assert len(caught.value.problems) == 3


def test_a_plan_of_another_size() -> None:
    """A plan that cannot use just N GPUs says so."""
    with pytest.raises(InputError, match="no reading that uses exactly 128 GPUs"):
        resolve(parse_plan("R2/PP2/ATP4/ADP4/EP16"), arch=REFERENCE, gpus=128, engine="vllm")
    with pytest.raises(InputError, match="has 32 pipeline stages for 16 layers"):
        resolve(parse_plan("PP32/TP4"), arch=REFERENCE, gpus=128, engine="vllm")


@pytest.mark.parametrize("text", ["EP8", "TP8 EP", "TP8 ETP8"])
def test_a_dense_model_has_no_experts_to_spread(text: str) -> None:
    """A plan that spreads experts is refused for that where there are none, and not for the number of its GPUs."""
    with pytest.raises(InputError, match="experts") as caught:
        resolve(parse_plan(text), arch=load_model("llama-3.1-8b"), gpus=8, engine="vllm")
    assert "GPUs" not in str(caught.value)


BREAKING: dict[str, tuple[str, str, dict[str, int]]] = {
    "model_class": ("jamba-large", "trtllm", {}),
    "pp_exceeds_layers": ("mixtral-8x7b", "vllm", {"pp": 33}),
    "pipeline_model_class": ("gemma-2-27b", "sglang", {"pp": 2}),
    "dense_has_no_experts": ("llama-3.1-8b", "vllm", {"attn_dp": 2}),
    "attention_heads": ("mixtral-8x22b", "vllm", {"attn_tp": 5, "moe_tp": 5}),
    "kv_heads": ("qwen3-235b", "vllm", {"attn_tp": 16, "moe_ep": 16, "dcp": 1}),
    "kv_head_copies": ("gpt-oss-120b", "vllm", {"attn_tp": 16, "moe_ep": 16}),
    "linear_attention_heads": ("qwen3.5-397b", "vllm", {"attn_tp": 32, "moe_ep": 32}),
    "attention_dp_all_or_nothing": ("deepseek-v3", "trtllm", {"attn_tp": 2, "attn_dp": 2, "moe_ep": 4}),
    "moe_tp_or_ep": ("deepseek-v3", "vllm", {"attn_tp": 4, "moe_tp": 2, "moe_ep": 2}),
    "more_ranks_than_experts": ("mixtral-8x7b", "vllm", {"attn_dp": 16, "moe_ep": 16}),
    "experts_divisible": ("mixtral-8x7b", "sglang", {"attn_dp": 3, "moe_ep": 3}),
    "redundant_experts_need_ep": ("deepseek-v3", "vllm", {"redundant_experts": 8}),
    "two_batch_overlap_exchange": ("deepseek-v3", "sglang", {"attn_tp": 4, "moe_ep": 4, "two_batch_overlap": 1}),
    "two_batch_overlap_class": ("mixtral-8x7b", "sglang", {"attn_dp": 2, "moe_ep": 2, "two_batch_overlap": 1}),
    "two_batch_overlap_stages": (
        "qwen3-235b",
        "sglang",
        {"pp": 2, "attn_dp": 4, "moe_ep": 4, "two_batch_overlap": 1},
    ),
    "two_batch_overlap_engine": ("deepseek-v3", "trtllm", {"attn_dp": 4, "moe_ep": 4, "two_batch_overlap": 1}),
    "moe_intermediate_divisible": ("deepseek-v3", "vllm", {"attn_dp": 3, "moe_tp": 3}),
    "expert_quant_blocks": ("deepseek-v3", "vllm", {"attn_dp": 128, "moe_tp": 128}),
    "attention_dp_class": ("mixtral-8x22b", "sglang", {"attn_dp": 2, "moe_ep": 2}),
    "redundant_experts_class": ("gpt-oss-120b", "vllm", {"attn_dp": 8, "moe_ep": 8, "redundant_experts": 8}),
    "tp_exceeds_experts": ("deepseek-v3", "sglang", {"attn_tp": 4, "attn_dp": 128, "moe_ep": 256, "moe_tp": 2}),
    "attention_quant_blocks": ("deepseek-v3", "sglang", {"attn_tp": 128, "moe_ep": 128}),
    "prefill_context_parallel": ("qwen3-235b", "vllm", {"attn_cp": 2, "moe_ep": 2}),
    "dense_ffn_shards": ("deepseek-v3", "vllm", {"attn_tp": 32, "moe_ep": 32}),
    "shared_expert_shards": ("deepseek-v3", "vllm", {"attn_tp": 32, "moe_ep": 32}),
    "speculative_stages": ("llama-3.1-8b", "sglang", {"pp": 2}),
    "integer_groups": ("kimi-k2.5", "vllm", {"attn_dp": 128, "moe_tp": 128}),
    "context_parallel_support": ("deepseek-v3", "trtllm", {"attn_cp": 2, "moe_ep": 2}),
    "decode_context_parallel": ("deepseek-v3", "sglang", {"dcp": 4, "attn_tp": 2, "moe_tp": 2}),
}


def test_every_rule_has_a_case() -> None:
    """No rule without a layout that breaks it."""
    assert set(BREAKING) == set(rule_texts())


def _changed(arch: Arch, kind: type[Block], **sizes: int) -> Arch:
    """The same model with some sizes of each block of a kind changed."""

    def change(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        return tuple(replace(b, **sizes) if isinstance(b, kind) else b for b in blocks)  # type: ignore[arg-type]  # names of sizes

    layers = [replace(x, attention=change(x.attention), ffn=change(x.ffn)) for x in arch.layers]  # type: ignore[arg-type]  # blocks of the same kinds
    return replace(arch, layers=tuple(layers))


@pytest.mark.parametrize("rule", BREAKING)
def test_each_rule_names_itself_and_its_values(rule: str) -> None:
    """A broken rule says what it wants and what it got."""
    name, engine, degrees = BREAKING[rule]
    arch = load_model(name)
    if rule == "kv_heads":
        arch = _changed(arch, GroupedQuery, kv_heads=3)
    if rule == "dense_ffn_shards":
        arch = _changed(arch, Dense, width=18432 + 7)
    if rule == "shared_expert_shards":
        arch = _changed(arch, Experts, shared_width=2048 + 7)
    neutral = {"replicas": 1, "pp": 1, "attn_tp": 1, "attn_dp": 1, "moe_tp": 1, "moe_ep": 1}
    layout = Layout(stage_layers=(arch.num_hidden_layers,), **{**neutral, **degrees})  # type: ignore[arg-type]
    found = {v.rule: v.message for v in violations(arch, engine, layout, drafts=rule == "speculative_stages")}
    assert rule in found
    assert ", got " in found[rule]


@pytest.mark.parametrize(("degrees", "refused"), [({"attn_dp": 32}, False), ({"attn_tp": 32}, True)])
def test_deepep_keeps_shared_experts_whole_in_every_version(degrees: dict[str, int], refused: bool) -> None:
    """A version that cuts shared experts over the stage takes one of 32 ranks where DeepEP sends tokens to experts."""
    neutral = {"replicas": 1, "pp": 1, "attn_tp": 1, "attn_dp": 1, "moe_tp": 1, "moe_ep": 32}
    layout = Layout(stage_layers=(61,), **{**neutral, **degrees})  # type: ignore[arg-type]
    found = {v.rule for v in violations(load_model("deepseek-v3"), "sglang", layout, "0.5.21")}
    assert ("shared_expert_shards" in found) is refused


def _quantised(name: str, **quantisation: object) -> Arch:
    """A catalog model's file with quantisation settings of AWQ, which keep the groups they say."""
    config = json.loads((CATALOG / f"{name.replace('/', '--')}.json").read_text(encoding="utf-8"))
    settings_ = {"quant_method": "awq", "bits": 4, "zero_point": True, **quantisation}
    return read_config({**config, "quantization_config": settings_}, name=f"{name}-awq")


def _whole_at(arch: Arch, engine: str, **degrees: int) -> bool:
    neutral = {"replicas": 1, "pp": 1, "attn_tp": 1, "attn_dp": 1, "moe_tp": 1, "moe_ep": 1}
    layout = Layout(stage_layers=(arch.num_hidden_layers,), **{**neutral, **degrees})  # type: ignore[arg-type]
    return "integer_groups" not in {v.rule for v in violations(arch, engine, layout)}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_shard_holds_whole_groups_of_integers(engine: str) -> None:
    """Inputs of 29,568 in groups of 128 are 231 groups, of which no half is whole; those of 64 can be halved."""
    wide = _quantised("Qwen/Qwen2.5-72B-Instruct", group_size=128)
    assert {int(d.width) for d in wide.dense_shapes} == {29_568}
    assert _whole_at(wide, engine)
    assert not any(_whole_at(wide, engine, attn_tp=tp) for tp in (2, 4, 8))
    halves = _quantised("Qwen/Qwen2.5-72B-Instruct", group_size=64)
    assert _whole_at(halves, engine, attn_tp=2)
    assert not _whole_at(halves, engine, attn_tp=4)
    channels = _quantised("Qwen/Qwen2.5-72B-Instruct", group_size=-1)
    assert _whole_at(channels, engine, attn_tp=8)


@pytest.mark.parametrize("engine", ENGINES)
def test_experts_and_projections_hold_whole_groups(engine: str) -> None:
    """Experts of 1,536 in eight shards of 192 cut a group of 128 and none of 32; expert parallelism cuts nothing."""
    experts = _quantised("Qwen/Qwen3-235B-A22B", group_size=128)
    assert not _whole_at(experts, engine, attn_dp=8, moe_tp=8)
    assert _whole_at(experts, engine, attn_dp=4, moe_tp=4)
    assert _whole_at(experts, engine, attn_dp=8, moe_ep=8)
    assert _whole_at(_quantised("Qwen/Qwen3-235B-A22B", group_size=32), engine, attn_dp=8, moe_tp=8)
    heads_of_64 = _quantised("meta-llama/Llama-3.2-1B", group_size=128)
    assert _whole_at(heads_of_64, engine, attn_tp=16)
    assert not _whole_at(heads_of_64, engine, attn_tp=32)


def test_what_is_not_quantised_is_cut_freely() -> None:
    """Modules that a checkpoint leaves alone have no groups."""
    arch = _quantised("Qwen/Qwen2.5-72B-Instruct", group_size=128, modules_to_not_convert=["mlp"])
    assert _whole_at(arch, "vllm", attn_tp=8)


def test_classes_without_stages() -> None:
    """Falcon-H1 has pipeline stages in vLLM and none in SGLang; Gemma 3n has none in either."""
    stages = {"replicas": 1, "pp": 2, "attn_tp": 1, "attn_dp": 1, "moe_tp": 1, "moe_ep": 1}

    def breaks(name: str, engine: str) -> bool:
        arch = load_model(name)
        half = arch.num_hidden_layers // 2
        layout = Layout(stage_layers=(half, arch.num_hidden_layers - half), **stages)  # type: ignore[arg-type]
        return "pipeline_model_class" in {v.rule for v in violations(arch, engine, layout)}

    assert [breaks("tiiuae/Falcon-H1-34B-Instruct", e) for e in ENGINES] == [False, True, False]
    assert [breaks("google/gemma-3-27b-it", e) for e in ENGINES] == [False, True, False]
    assert [breaks("meta-llama/Llama-4-Scout-17B-16E-Instruct", e) for e in ENGINES] == [False, True, False]
    assert not any(breaks("Qwen/Qwen3-32B", e) for e in ENGINES)


def _broken(name: str, engine: str, version: str | None = None, **degrees: int) -> set[str]:
    """Names of the rules that a layout breaks."""
    arch = load_model(name)
    neutral = {"replicas": 1, "pp": 1, "attn_tp": 1, "attn_dp": 1, "moe_tp": 1, "moe_ep": 1}
    layout = Layout(stage_layers=(arch.num_hidden_layers,), **{**neutral, **degrees})  # type: ignore[arg-type]  # mixed
    return {v.rule for v in violations(arch, engine, layout, version)}


def test_attention_projections_hold_whole_blocks() -> None:
    """DeepSeek-V3's queries, 24,576 wide, leave 192 elements at TP128, Kimi-K2's 12,288 the same at TP64."""
    for engine in ("vllm", "sglang"):
        assert "attention_quant_blocks" in _broken("deepseek-v3", engine, attn_tp=128, moe_ep=128)
        assert "attention_quant_blocks" not in _broken("deepseek-v3", engine, attn_tp=64, moe_ep=64)
        assert "attention_quant_blocks" in _broken("kimi-k2", engine, attn_tp=64, moe_ep=64)
        assert "attention_quant_blocks" not in _broken("kimi-k2", engine, attn_tp=32, moe_ep=32)


def test_kv_heads_are_copied_by_class() -> None:
    """vLLM's gpt-oss stops at its 8 KV heads; SGLang's copies them."""
    assert "kv_head_copies" in _broken("gpt-oss-120b", "vllm", attn_tp=16, moe_ep=16)
    assert not _broken("gpt-oss-120b", "vllm", attn_tp=8, moe_ep=8)
    assert not _broken("gpt-oss-120b", "sglang", attn_tp=16, moe_ep=16)


def test_prompts_and_caches_cut_over_ranks() -> None:
    """vLLM: prompts only over a latent and never with DCP, heads a KV head has must divide; SGLang: from 0.5.22 on."""
    assert not _broken("deepseek-v3", "vllm", attn_cp=2, attn_tp=4, moe_ep=8)
    assert "prefill_context_parallel" in _broken("deepseek-v3", "vllm", attn_cp=2, attn_tp=4, dcp=2, moe_ep=8)
    assert "prefill_context_parallel" in _broken("llama-3.1-70b", "vllm", attn_cp=2)
    assert not _broken("qwen3-235b", "vllm", attn_tp=16, dcp=4, moe_ep=16) & {"decode_context_parallel"}
    assert "decode_context_parallel" in _broken("Qwen/Qwen2.5-32B-Instruct", "vllm", attn_tp=16, dcp=2)
    assert not _broken("deepseek-v3", "sglang", attn_tp=4, dcp=4, moe_ep=4)
    assert "decode_context_parallel" in _broken("deepseek-v3", "sglang", "0.5.9", attn_tp=4, dcp=4, moe_ep=4)
    assert "decode_context_parallel" in _broken("deepseek-v3", "sglang", attn_cp=2, attn_tp=4, dcp=2, moe_ep=8)


def test_no_more_ranks_than_experts() -> None:
    """Qwen3's class counts attention TP in vLLM and the experts' TP in SGLang, DeepSeek's in SGLang the whole stage."""
    wide = {"attn_tp": 64, "attn_dp": 2, "moe_ep": 128}
    assert "tp_exceeds_experts" not in _broken("qwen3-235b", "vllm", **wide)
    assert "tp_exceeds_experts" in _broken("Qwen/Qwen3.5-397B-A17B", "vllm", attn_tp=1024, moe_ep=1024)
    assert "tp_exceeds_experts" in _broken("deepseek-v3", "sglang", attn_tp=2, attn_dp=256, moe_tp=2, moe_ep=256)
    assert "tp_exceeds_experts" not in _broken("deepseek-v3", "sglang", attn_dp=256, moe_ep=256)
