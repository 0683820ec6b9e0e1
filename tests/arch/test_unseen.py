"""Models that are not in the catalog: config files as published, cut to what sizes depend on."""
# ruff: noqa: C408  # config files as keywords: half the quotation marks

from __future__ import annotations

from typing import Any

import pytest

from costmodel.arch import AttentionKind, FfnKind, active_params, read_config, total_params
from costmodel.errors import InputError

_MLA: dict[str, Any] = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
_QWEN3_NEXT: dict[str, Any] = dict(
    model_type="qwen3_next", hidden_size=2048, num_hidden_layers=48, num_attention_heads=16, num_key_value_heads=2,
    head_dim=256, full_attention_interval=4, linear_conv_kernel_dim=4, linear_key_head_dim=128,
    linear_num_key_heads=16, linear_num_value_heads=32, linear_value_head_dim=128, decoder_sparse_step=1,
    moe_intermediate_size=512, num_experts=512, num_experts_per_tok=10, shared_expert_intermediate_size=512,
    vocab_size=151936, intermediate_size=5120, tie_word_embeddings=False,
)  # fmt: skip
_GEMMA3: dict[str, Any] = dict(
    model_type="gemma3", torch_dtype="bfloat16", vision_config={},
    text_config=dict(
        model_type="gemma3_text", head_dim=128, hidden_size=5376, intermediate_size=21504, num_attention_heads=32,
        num_hidden_layers=62, num_key_value_heads=16, sliding_window=1024,
    ),
)  # fmt: skip
_GLM: dict[str, Any] = dict(
    model_type="glm4_moe", attention_bias=True, head_dim=128, hidden_size=5120, intermediate_size=12288,
    moe_intermediate_size=1536, n_routed_experts=160, n_shared_experts=1, num_attention_heads=96,
    num_experts_per_tok=8, first_k_dense_replace=3, num_hidden_layers=92, num_key_value_heads=8,
    tie_word_embeddings=False, use_qk_norm=True, vocab_size=151552,
)  # fmt: skip
_V2_LITE: dict[str, Any] = dict(
    model_type="deepseek_v2", first_k_dense_replace=1, hidden_size=2048, intermediate_size=10944,
    moe_intermediate_size=1408, moe_layer_freq=1, n_routed_experts=64, n_shared_experts=2, num_attention_heads=16,
    num_experts_per_tok=6, num_hidden_layers=27, num_key_value_heads=16, q_lora_rank=None, vocab_size=102400,
    tie_word_embeddings=False, **_MLA,
)  # fmt: skip
_GPT_OSS: dict[str, Any] = dict(
    model_type="gpt_oss", attention_bias=True, head_dim=64, hidden_size=2880, intermediate_size=2880,
    num_attention_heads=64, num_experts_per_tok=4, num_hidden_layers=24, num_key_value_heads=8,
    num_local_experts=32, sliding_window=128, tie_word_embeddings=False, vocab_size=201088,
    layer_types=["sliding_attention", "full_attention"] * 12,
)  # fmt: skip
_PHI_MOE: dict[str, Any] = dict(
    model_type="phimoe", hidden_size=4096, intermediate_size=6400, num_attention_heads=32, num_key_value_heads=8,
    num_hidden_layers=32, num_local_experts=16, num_experts_per_tok=2, attention_bias=True,
    tie_word_embeddings=False, vocab_size=32064,
)  # fmt: skip
_GRANITE: dict[str, Any] = dict(
    model_type="granitemoe", hidden_size=1536, intermediate_size=512, num_attention_heads=24, num_key_value_heads=8,
    num_hidden_layers=32, num_local_experts=40, num_experts_per_tok=8, tie_word_embeddings=True, vocab_size=49155,
)  # fmt: skip
_ERNIE: dict[str, Any] = dict(
    model_type="ernie4_5_moe", hidden_size=8192, intermediate_size=28672, moe_intermediate_size=3584,
    moe_num_experts=64, moe_k=8, moe_layer_start_index=3, moe_layer_end_index=53, moe_layer_interval=1,
    num_attention_heads=64, num_key_value_heads=8, num_hidden_layers=54, vocab_size=103424, tie_word_embeddings=False,
)  # fmt: skip
_QWEN25: dict[str, Any] = dict(
    model_type="qwen2", hidden_size=8192, intermediate_size=29568, num_attention_heads=64, num_key_value_heads=8,
    num_hidden_layers=80, max_window_layers=80, sliding_window=131072, use_sliding_window=False,
    tie_word_embeddings=False, vocab_size=152064,
)  # fmt: skip
_MISTRAL: dict[str, Any] = dict(
    model_type="mistral", hidden_size=12288, intermediate_size=28672, num_attention_heads=96, num_key_value_heads=8,
    head_dim=128, num_hidden_layers=88, sliding_window=None, tie_word_embeddings=False, vocab_size=32768,
)  # fmt: skip
_FALCON: dict[str, Any] = dict(
    model_type="falcon", hidden_size=4544, num_hidden_layers=32, num_attention_heads=71, multi_query=True,
    new_decoder_architecture=False, vocab_size=65024, tie_word_embeddings=True,
)  # fmt: skip
_OMNI: dict[str, Any] = dict(
    model_type="qwen3_omni_moe",
    thinker_config=dict(
        text_config=dict(
            model_type="qwen3_omni_moe_text", head_dim=128, hidden_size=2048, moe_intermediate_size=768,
            num_attention_heads=32, num_experts=128, num_experts_per_tok=8, num_hidden_layers=48,
            num_key_value_heads=4, vocab_size=152064, intermediate_size=768,
        ),
    ),
)  # fmt: skip
_BLOOM: dict[str, Any] = dict(
    model_type="bloom", n_embed=14336, n_layer=70, num_attention_heads=112, vocab_size=250880, seq_length=2048,
    masked_softmax_fusion=True, skip_bias_add=True,
)  # fmt: skip
_MPT: dict[str, Any] = dict(
    model_type="mpt", d_model=7168, n_heads=64, n_layers=48, expansion_ratio=4, vocab_size=50432, max_seq_len=8192,
    attn_config=dict(alibi=True, attn_impl="torch", qk_ln=False), no_bias=True,
)  # fmt: skip
_K_EXAONE: dict[str, Any] = dict(
    model_type="exaone_moe", head_dim=128, hidden_size=6144, intermediate_size=18432, moe_intermediate_size=2048,
    num_attention_heads=64, num_key_value_heads=8, num_experts=128, num_experts_per_tok=8, num_shared_experts=1,
    num_hidden_layers=48, is_moe_layer=[False] + [True] * 47, first_last_k_dense_replace=1, sliding_window=128,
    layer_types=(["sliding_attention"] * 3 + ["full_attention"]) * 12, sliding_window_pattern="LLLG",
    vocab_size=153600, tie_word_embeddings=False,
)  # fmt: skip
_BAMBA: dict[str, Any] = dict(
    model_type="bamba", attn_layer_indices=[9, 18, 27], attn_rotary_emb=64, hidden_size=4096, intermediate_size=14336,
    mamba_d_conv=4, mamba_d_head=64, mamba_d_state=128, mamba_expand=2, mamba_n_groups=1, mamba_n_heads=128,
    num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=8, tie_word_embeddings=False,
    vocab_size=128256,
)  # fmt: skip

PUBLISHED = {
    "Qwen3-Next-80B-A3B": (_QWEN3_NEXT, 79.7e9, 3.9e9),
    "gemma-3-27b": (_GEMMA3, 27.0e9, 27.0e9),  # 27.4B with the vision tower's 0.4B
    "GLM-4.5": (_GLM, 353e9, 32.9e9),  # 355B/32B with the 357B checkpoint's MTP layer, rounded
    "DeepSeek-V2-Lite": (_V2_LITE, 15.7e9, 2.4e9),
    "gpt-oss-20b": (_GPT_OSS, 20.9e9, 3.6e9),
    "Phi-3.5-MoE": (_PHI_MOE, 41.9e9, 6.6e9),
    "granite-3.1-3b-a800m": (_GRANITE, 3.3e9, 0.88e9),
    "ERNIE-4.5-300B-A47B": (_ERNIE, 300e9, 47e9),
    "Qwen2.5-72B": (_QWEN25, 72.7e9, 72.7e9),
    "Mistral-Large-2407": (_MISTRAL, 122.6e9, 122.6e9),
    "falcon-7b": (_FALCON, 6.92e9, 6.92e9),
    "Qwen3-Omni-30B-A3B": (_OMNI, 30.5e9, 3.3e9),
    "bloom": (_BLOOM, 176.2e9, 176.2e9),
    "mpt-30b": (_MPT, 30.0e9, 30.0e9),
    "K-EXAONE-236B-A23B": (_K_EXAONE, 236e9, 23e9),
    "Bamba-9B": (_BAMBA, 9.78e9, 9.78e9),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters(name: str) -> None:
    """Total within 1 %, active (published with two digits) within 2.5 % of what the model cards say."""
    config, total, active = PUBLISHED[name]
    arch = read_config(config, name=name)
    assert total_params(arch) == pytest.approx(total, rel=0.01)
    assert active_params(arch) == pytest.approx(active, rel=0.025)
    assert not any("not understood" in text for text in arch.assumptions)


def test_defaults_that_files_rely_on_are_said() -> None:
    """Gemma 3's files leave its vocabulary to Transformers."""
    arch = read_config(_GEMMA3, name="x")
    assert arch.attention_kinds.count(AttentionKind.WINDOW) == 52
    assert any("vocab_size 262,208" in text for text in arch.assumptions)


def test_patterns_of_layers() -> None:
    """Window layers by letters, experts by a list, and rotary layers of Llama 4."""
    dense = {**_MISTRAL, "num_hidden_layers": 6, "sliding_window": 100, "sliding_window_pattern": "LLG"}
    kinds = read_config(dense, name="x").attention_kinds
    assert kinds == (AttentionKind.WINDOW, AttentionKind.WINDOW, AttentionKind.FULL) * 2
    moe = {
        **_V2_LITE,
        "num_hidden_layers": 3,
        "first_k_dense_replace": 0,
        "mlp_layer_types": ["dense", "sparse", "dense"],
    }
    assert read_config(moe, name="x").ffn_kinds == (FfnKind.DENSE, FfnKind.MOE, FfnKind.DENSE)
    llama4 = {**_PHI_MOE, "model_type": "llama4_text", "num_hidden_layers": 2, "attention_chunk_size": 64}
    kinds = read_config({**llama4, "no_rope_layers": [0, 1]}, name="x").attention_kinds
    assert kinds == (AttentionKind.FULL, AttentionKind.CHUNKED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("altup_num_inputs", 4),
        ("cross_attention_layers", [1]),
        ("engram_config", {"size": 3}),
    ],
)
def test_what_changes_the_work_and_has_no_formula_is_refused(name: str, value: object) -> None:
    """The error names the field, what it asks for, and how to go on; approximated, the model says what is left out."""
    with pytest.raises(InputError, match=rf"\$\.{name}: asks for .*--approximate"):
        read_config({**_PHI_MOE, name: value}, name="x")
    arch = read_config({**_PHI_MOE, name: value}, name="x", approximate=True)
    assert arch.groups == read_config(_PHI_MOE, name="x").groups
    assert any(name in text for text in arch.assumptions)


def test_fields_that_nothing_reads_are_refused() -> None:
    """A field of a model to come is named with what is modelled instead; what is off or costs nothing is not."""
    new = {"memory_banks": 4, "thinking_layers": [1, 2], "fancy_norm": False, "rope_theta": 10000}
    with pytest.raises(
        InputError, match=r"memory_banks: is not a field that is known.*without it the model has"
    ) as error:
        read_config({**_PHI_MOE, **new}, name="x")
    assert [p.path for p in error.value.problems] == ["$.memory_banks", "$.thinking_layers"]
    arch = read_config({**_PHI_MOE, **new}, name="x", approximate=True)
    assert any("`memory_banks` left out" in text and "`thinking_layers` left out" in text for text in arch.assumptions)


def test_gptq_leaves_out_what_dynamic_excludes() -> None:
    """Patterns with a minus stay in the checkpoint's plain dtype."""
    quantised = {"quant_method": "gptq", "bits": 4, "dynamic": {"-:.*attn.*": {}, "-:.*shared_expert.*": {}}}
    dtypes = read_config({**_V2_LITE, "quantization_config": quantised}, name="x").dtypes
    assert (dtypes.attention, dtypes.experts, dtypes.shared_experts) == ("bf16", "int4_g128", "bf16")


def test_groups_of_weights_in_formats_of_their_own() -> None:
    """compressed-tensors: a group that names modules goes before one that takes every linear layer."""

    def group(targets: list[str], bits: int) -> dict[str, Any]:
        return {
            "targets": targets,
            "weights": {"num_bits": bits, "type": "float", "group_size": 16 if bits == 4 else None},
        }

    groups = {"group_0": group(["Linear"], 8), "group_1": group(["re:.*mlp.experts.*"], 4)}
    quantised = {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]}
    dtypes = read_config({**_V2_LITE, "quantization_config": quantised}, name="x").dtypes
    assert (dtypes.attention, dtypes.experts, dtypes.lm_head) == ("fp8", "nvfp4", "bf16")


@pytest.mark.parametrize(
    "names",
    [
        ["Qwen3Model"],
        ["LlamaModel"],
        ["Gemma3TextModel"],
        ["LlamaBidirectionalModel"],
        ["Qwen3ForSequenceClassification"],
        ["LlamaForTokenClassification"],
        ["Qwen2ForRewardModel"],
        ["Qwen2ForProcessRewardModel"],
    ],
)
def test_a_model_without_an_lm_head_is_refused(names: list[str]) -> None:
    """Embeddings, rerankers and reward models were read as generators, an LM head of 1.2 GB and all."""
    with pytest.raises(InputError, match=f"got {names[0]}, which has no LM head") as caught:
        read_config({**_QWEN25, "architectures": names}, name="headless")
    assert [problem.path for problem in caught.value.problems] == ["$.architectures"]


@pytest.mark.parametrize(
    "names",
    [
        None,
        [],
        ["Qwen2ForCausalLM"],
        ["Qwen2LMHeadModel"],
        ["InternVLChatModel"],
        ["AquilaModel"],
        ["NVLM_D_Model"],
        ["Qwen2Model", "Qwen2ForCausalLM"],
        ["GritLM"],
    ],
)
def test_a_model_with_an_lm_head_reads_as_before(names: list[str] | None) -> None:
    """Classes that generate whatever they are called, and files that name none."""
    assert read_config({**_QWEN25, "architectures": names}, name="x") == read_config(_QWEN25, name="x")


def test_the_class_of_a_whole_says_nothing_of_its_language_model() -> None:
    """A multimodal model's own class has the LM head inside, or is bare."""
    for name in ("Gemma3ForConditionalGeneration", "Gemma3Model"):
        assert total_params(read_config({**_GEMMA3, "architectures": [name]}, name="x")) > 2e10
