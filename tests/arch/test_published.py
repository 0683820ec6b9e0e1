"""The catalog and its names, and hand sums of every kind of layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from costmodel.arch import (
    Arch,
    AttentionKind,
    FfnKind,
    checkpoint_dtype,
    kv_bytes_per_token,
    load_model,
    model_names,
    read_config,
    read_config_file,
    stored_in,
    total_params,
    weight_groups,
    with_dtypes,
)
from costmodel.arch.attention import GroupedQuery
from costmodel.arch.catalog import GUESSED, find_model
from costmodel.arch.weights import block_params, weight_bytes
from costmodel.errors import InputError


def test_every_shared_config_reads_as_its_catalog_entry(shared_dir: Path) -> None:
    """The shipped facts are the published files' facts."""
    files = sorted((shared_dir / "models").glob("*.json"))
    assert len(files) >= 18
    for file in files:
        read = read_config_file(file)
        known = load_model(read.name)
        assert (total_params(read), read.dtypes, read.attention_kinds) == (
            total_params(known),
            known.dtypes,
            known.attention_kinds,
        )


def test_every_catalog_entry_loads() -> None:
    """Each name of the catalog finds its own entry."""
    for name in model_names():
        assert load_model(name).name == name
        assert load_model(name.split("/")[1].lower()).name == name


@pytest.mark.parametrize(
    ("written", "config", "name", "dtype"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B", None, "bf16"),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "meta-llama/Meta-Llama-3.1-8B", None, "fp8"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-ai/DeepSeek-R1", None, "fp8_block"),
        ("nvidia/DeepSeek-R1-FP4", "deepseek-ai/DeepSeek-R1", None, "bf16"),
        ("someone/DeepSeek-R1-AWQ", "deepseek-ai/DeepSeek-R1", None, "int4"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507", "Qwen/Qwen3-235B-A22B", None, "bf16"),
        ("llama-3.3-70b", "meta-llama/Meta-Llama-3.1-70B", "meta-llama/Llama-3.3-70B-Instruct", "bf16"),
        ("deepseek-ai/deepseek-v3", "deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-V3", "fp8_block"),
        ("llama-3.1-8b-fp8", "meta-llama/Meta-Llama-3.1-8B", None, "fp8"),
    ],
)
def test_names_people_write(written: str, config: str, name: str | None, dtype: str) -> None:
    """Repacks, tuned variants and later releases have the config of their base, and keep their own names."""
    arch, found = load_model(written), find_model(written)
    assert found is not None
    assert (found.catalog, arch.name, arch.dtypes.attention) == (config, name or written, dtype)
    assert any(config in said for said in arch.assumptions) is (arch.name != config)


@pytest.mark.parametrize(
    ("name", "attention", "experts", "kv", "gigabytes"),
    [
        ("nvidia/DeepSeek-V3-0324-NVFP4", "bf16", "nvfp4", "bf16", 396.7),
        ("nvidia/DeepSeek-V3-0324-FP4", "bf16", "nvfp4", "bf16", 396.7),
        ("nvidia/Kimi-K2.6-NVFP4", "bf16", "nvfp4", "fp8", 594.2),  # 595.15 GB of files, 0.94 of them a vision tower
        ("nvidia/Qwen3-30B-A3B-NVFP4", "nvfp4", "nvfp4", "fp8", 18.1),
        ("nvidia/Qwen3-32B-NVFP4", "nvfp4", None, "fp8", 20.7),
    ],
)
def test_published_quantised_checkpoints(
    name: str, attention: str, experts: str | None, kv: str, gigabytes: float
) -> None:
    """What their makers left in 16 bits, and the cache that they ask for, are those of their own settings."""
    arch = load_model(name)
    assert (arch.dtypes.attention, arch.kv_dtype) == (attention, kv)
    assert experts is None or arch.dtypes.experts == experts
    assert weight_bytes(arch) / 1e9 == pytest.approx(gigabytes, abs=0.1)
    assert not any(text.startswith(GUESSED) for text in arch.assumptions)


@pytest.mark.parametrize(
    ("name", "guessed"),
    [
        ("someone/DeepSeek-V3-0324-NVFP4", "quantised as the published checkpoint"),
        ("nvidia/Qwen3-235B-A22B-NVFP4", "hold nvfp4 in all layers, and a KV cache in bf16"),
        ("someone/Llama-3.1-70B-FP8", "hold fp8 in all layers, and a KV cache in bf16"),
        ("someone/DeepSeek-V3-FP8", ""),
        ("someone/DeepSeek-V3-BF16", ""),
        ("meta-llama/Llama-3.1-8B-Instruct", ""),
    ],
)
def test_a_quantisation_that_is_guessed_is_said(name: str, guessed: str) -> None:
    """Of a name of which nothing but its suffix is known; not where the checkpoint is stored so anyway."""
    said = [text for text in load_model(name).assumptions if text.startswith(GUESSED)]
    assert len(said) == bool(guessed)
    assert all(guessed in text for text in said)


def test_fields_that_differ_from_the_entry_are_read() -> None:
    """A model that is like one of the catalog but for its context has its own."""
    assert load_model("llama-3-8b").max_position_embeddings == 8192
    assert load_model("llama-3.1-8b").max_position_embeddings == 131072


def test_unknown_name_says_what_is_near() -> None:
    """An unknown model is named, with the nearest ones and what else can be given."""
    with pytest.raises(InputError, match=r"'deepsek-v3' is not in the catalog; the nearest are .*config\.json"):
        load_model("deepsek-v3")


def _config(**changes: object) -> dict[str, object]:
    base: dict[str, object] = {
        "model_type": "llama",
        "hidden_size": 35,
        "num_hidden_layers": 3,
        "num_attention_heads": 10,
        "num_key_value_heads": 5,
        "head_dim": 7,
        "intermediate_size": 11,
        "vocab_size": 13,
        "torch_dtype": "bfloat16",
    }
    return {**base, **changes}


def test_grouped_query_layer_by_hand() -> None:
    """Queries, keys, values and output of primes' sizes."""
    arch = read_config(_config(), name="x")
    attention = 35 * (10 * 7) + 2 * 35 * (5 * 7) + (10 * 7) * 35
    assert block_params(arch, arch.attentions[0]) == attention
    assert block_params(arch, arch.dense_shapes[0]) == 3 * 35 * 11
    norms = 2 * 35
    layer = attention + 3 * 35 * 11 + norms
    assert total_params(arch) == 3 * layer + 2 * 13 * 35
    assert kv_bytes_per_token(arch) == 3 * 2 * 5 * 7 * 2


def test_mla_layer_by_hand() -> None:
    """DeepSeek's latents: query and KV down and up projections, output."""
    arch = read_config(
        _config(kv_lora_rank=17, q_lora_rank=19, qk_nope_head_dim=23, qk_rope_head_dim=29, v_head_dim=31), name="x"
    )
    hand = 35 * 19 + 19 * 10 * (23 + 29) + 35 * (17 + 29) + 17 * 10 * (23 + 31) + 10 * 31 * 35
    assert block_params(arch, arch.attentions[0]) == hand + 17 + 19  # and the norms of the latents
    assert kv_bytes_per_token(arch) == 3 * (17 + 29) * 2


def test_mixture_by_hand() -> None:
    """Leading dense layers, routed and shared experts."""
    arch = read_config(
        _config(
            model_type="deepseek_v3",
            n_routed_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=5,
            n_shared_experts=2,
            first_k_dense_replace=1,
        ),
        name="x",
    )
    assert arch.ffn_kinds == (FfnKind.DENSE, FfnKind.MOE, FfnKind.MOE)
    groups = {g.kind: g.params for g in weight_groups(arch)}
    assert groups["experts"] == 2 * 6 * 3 * 35 * 5
    assert groups["shared_experts"] == 2 * 3 * 35 * (2 * 5)
    assert groups["router"] == 2 * 35 * 6


def test_layers_of_several_kinds() -> None:
    """Sliding, linear and full layers in one model keep their order."""
    arch = load_model("gpt-oss-120b")
    assert arch.attention_kinds.count(AttentionKind.WINDOW) == arch.attention_kinds.count(AttentionKind.FULL) == 18
    assert {a.window for a in arch.attentions if isinstance(a, GroupedQuery)} == {0, 128}
    mixed = load_model("qwen3.5-397b")
    assert mixed.attention_kinds[:4] == (*[AttentionKind.LINEAR] * 3, AttentionKind.FULL)


@pytest.mark.parametrize(
    ("quantization", "attention", "experts", "head"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block", "fp8_block", "bf16"),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, "bf16", "mxfp4", "bf16"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", "nvfp4", "bf16"),
        ({"quant_method": "awq", "bits": 4}, "int4_g128z", "int4_g128z", "bf16"),
        (
            {
                "quant_method": "compressed-tensors",
                "ignore": ["re:.*self_attn.*", "lm_head"],
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
            },
            "bf16",
            "int4_g32",
            "bf16",
        ),
    ],
)
def test_quantisation(quantization: dict[str, object], attention: str, experts: str, head: str) -> None:
    """Formats of checkpoints, and what they leave out."""
    config = _config(num_local_experts=4, num_experts_per_tok=2, quantization_config=quantization)
    arch = read_config(config, name="x")
    assert (arch.dtypes.attention, arch.dtypes.experts, arch.dtypes.lm_head) == (attention, experts, head)


def test_what_is_asked_for_replaces_what_is_stored() -> None:
    """Another 4-bit format is another format; what is a form of the one asked for stays as it is."""
    arch = load_model("gpt-oss-120b")
    asked = with_dtypes(arch, gemm_dtype="nvfp4", moe_dtype="int4").dtypes
    assert (asked.attention, asked.experts, asked.lm_head) == ("nvfp4", "int4", "bf16")
    assert with_dtypes(arch, moe_dtype="mxfp4") == arch
    assert with_dtypes(load_model("deepseek-v3"), gemm_dtype="fp8", moe_dtype="fp8").dtypes.attention == "fp8_block"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("gpt-oss-120b", "mxfp4"), ("kimi-k2.5", "int4"), ("deepseek-v3", "fp8"), ("llama-3.1-8b", "bf16")],
)
def test_the_checkpoints_own_dtype_is_the_checkpoint(name: str, dtype: str) -> None:
    """Weights in the dtype that a checkpoint is said to be stored in are as it stores them, its 16-bit matrices too."""
    arch = load_model(name)
    assert stored_in(arch, dtype) == stored_in(arch, None) == arch
    assert checkpoint_dtype(stored_in(arch, "nvfp4")) == "nvfp4"


def test_everything_wrong_is_said_at_once() -> None:
    """Missing, mistyped and impossible fields come in one error, each with its path."""
    config = _config(hidden_size=-1, num_hidden_layers=True, vocab_size=float("nan"), intermediate_size=None)
    with pytest.raises(InputError, match=r"\$\.hidden_size") as caught:
        read_config(config, name="x")
    paths = {p.path for p in caught.value.problems}
    assert paths >= {"$.hidden_size", "$.num_hidden_layers", "$.vocab_size", "$.intermediate_size"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model_type": "bert"}, "model_type"),
        ({"is_encoder_decoder": True}, "model_type"),
        ({"model_type": "mamba"}, "model_type"),
        ({"mamba_d_state": 16}, "layer_types"),
        ({"quantization_config": {"quant_method": "magic"}}, "quant_method"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"layer_types": ["ring_attention"] * 3}, "layer_types"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_local_experts": 4, "num_experts_per_tok": 5}, "num_experts_per_tok"),
    ],
)
def test_what_is_not_modelled_names_its_field(changes: dict[str, object], field: str) -> None:
    """A model that the formulas do not cover is an error, not a guess."""
    with pytest.raises(InputError, match=field):
        read_config(_config(**changes), name="x")


@pytest.mark.parametrize("content", ["[]", "{", "\x00\x01", "[" * 100_000])
def test_files_that_are_no_config(tmp_path: Path, content: str) -> None:
    """A file of something else is one clear error that names it."""
    file = tmp_path / "config.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.json"):
        read_config_file(file)


def test_text_model_inside_a_multimodal_config() -> None:
    """The nested text model is read, the towers are named as left out."""
    arch: Arch = read_config({"model_type": "some_vl", "text_config": _config(), "vision_config": {}}, name="x")
    assert arch.hidden_size == 35
    assert any("text model" in a for a in arch.assumptions)
