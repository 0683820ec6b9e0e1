"""How weights are stored: by every published way of saying it, in bytes summed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.arch import load_model, read_config, read_config_file, weight_bytes, weight_groups, with_dtypes
from costmodel.arch.block import ONE_RANK
from costmodel.dtypes import BYTES_PER_WEIGHT, bytes_per_weight, compute_dtype, storage
from costmodel.errors import InputError

DENSE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1000,
    "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}
MIXTURE: dict[str, Any] = DENSE | {
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
}
LINEAR = 4 * (256 * (4 + 2 + 2) * 64 + 4 * 64 * 256 + 3 * 256 * 512)
"""Weights of the dense model's linear layers."""
REST = (2 * 1000 * 256 + 4 * 2 * 256) * 2
"""Bytes of what no format touches: embedding, LM head and norms of both models."""


def stored(quantization: dict[str, Any], base: dict[str, Any] = MIXTURE) -> dict[str, str]:
    """Dtypes of attention, experts and LM head of the mixture."""
    dtypes = read_config({**base, "quantization_config": quantization}, name="x").dtypes
    return {"attention": dtypes.attention, "experts": dtypes.experts, "head": dtypes.lm_head}


def compressed(bits: int, kind: str, group: int | None, **more: Any) -> dict[str, Any]:
    """Settings of compressed-tensors for all linear layers but the LM head."""
    weights = {"num_bits": bits, "type": kind, "group_size": group, **more}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}}
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]}


@pytest.mark.parametrize(
    ("quantization", "bytes_each"),
    [
        (compressed(4, "int", 32), 0.5 + 2 / 32),
        (compressed(4, "int", 64), 0.5 + 2 / 64),
        (compressed(4, "int", 128), 0.5 + 2 / 128),
        (compressed(4, "int", 128, symmetric=False), 0.5 + 2.5 / 128),
        (compressed(8, "int", 128), 1 + 2 / 128),
        (compressed(8, "float", None), 1),
        (compressed(8, "float", None, strategy="block", block_structure=[128, 128]), 1 + 4 / 128**2),
        (compressed(4, "float", 16), 0.5 + 1 / 16),
        (compressed(4, "float", 32), 0.5 + 1 / 32),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, 0.5 + 2.5 / 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, 0.5 + 2 / 128),
        ({"quant_method": "gptq", "bits": 3, "group_size": 64, "sym": False}, 0.375 + 2.375 / 64),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 1),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": True}, 0.5 + 2 / 32),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 32, "data_type": "mx_fp", "act_bits": 4}, 0.53125),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1 + 4 / 128**2),
        ({"quant_method": "fp8", "weight_block_size": [64, 32]}, 1 + 4 / (64 * 32)),
        ({"quant_method": "fbgemm_fp8"}, 1),
        ({"quant_method": "mxfp4"}, 0.53125),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}, 0.5625),
        ({"quant_method": "modelopt", "quant_algo": "MXFP8"}, 1 + 1 / 32),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ", "group_size": 128}, 0.5 + 2 / 128),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5 + 4 / 64),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 1),
        ({"quant_method": "fp_quant", "forward_dtype": "mxfp4"}, 0.53125),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}}, 0.5390625),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, 1),
        (
            {
                "quant_method": "torchao",
                "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}},
            },
            0.5 + 2.5 / 64,
        ),
        (
            {
                "quant_method": "torchao",
                "quant_type": {"default": {"_type": "Float8DynamicActivationFloat8WeightConfig"}},
            },
            1,
        ),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}},
                "exclude": ["lm_head"],
            },
            1,
        ),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {"weight": {"dtype": "fp4", "qscheme": "per_group", "group_size": 32}},
            },
            0.53125,
        ),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {"weight": {"dtype": "uint4", "qscheme": "per_group", "group_size": 128}},
            },
            0.5 + 2.5 / 128,
        ),
    ],
)
def test_bytes_follow_the_format(quantization: dict[str, Any], bytes_each: float) -> None:
    """Bits, scales and zero points of every linear layer; embedding, head and norms as they are."""
    arch = read_config({**DENSE, "quantization_config": quantization}, name="x")
    assert weight_bytes(arch) == pytest.approx(LINEAR * bytes_each + REST)


@pytest.mark.parametrize(
    "wrapper", ["model.", "model.language_model.", "language_model.model.", "backbone.", "transformer."]
)
@pytest.mark.parametrize("entry", ["{}layers.{}.self_attn*", "{}layers.{}.self_attn", "{}layers.{}.self_attn.q_proj"])
def test_exclusions_under_any_wrapper(wrapper: str, entry: str) -> None:
    """Modules that are listed layer by layer are left as they are, whatever stands before `layers`."""
    ignore = ["lm_head", *(entry.format(wrapper, i) for i in range(4))]
    settings = {"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ignore}
    arch = read_config({**MIXTURE, "quantization_config": settings}, name="x")
    attention = {g.dtype for g in weight_groups(arch) if g.kind == "attention_full"}
    assert arch.dtypes.experts == "nvfp4"
    # where the queries alone are listed, the output projection is not
    assert attention == ({"bf16", "nvfp4"} if entry.endswith("q_proj") else {"bf16"})


def test_layers_of_their_own_dtype() -> None:
    """Some layers left out make a group of layers of their own; bytes are the sum of both."""
    ignore = ["lm_head", "model.layers.0.mlp.*", "model.layers.3*"]
    config = {**DENSE, "quantization_config": compressed(8, "float", None) | {"ignore": ignore}}
    arch = read_config(config, name="x")
    assert {g.name: g.per_layer for g in arch.groups} == {
        "full": (1, 1, 1, 0),
        "full#2": (0, 0, 0, 1),
        "dense": (1, 0, 0, 1),
        "dense#2": (0, 1, 1, 0),
    }
    attention, network = LINEAR / 4 - 3 * 256 * 512, 3 * 256 * 512
    plain = attention + 2 * network
    assert weight_bytes(arch) == pytest.approx((LINEAR - plain) + 2 * plain + REST)


@pytest.mark.parametrize(
    ("quantization", "attention", "experts"),
    [
        ({"quant_method": "fp8", "modules_to_not_convert": ["gate", "lm_head"]}, "fp8", "fp8"),
        ({"quant_method": "fp8", "ignored_layers": ["model.layers.*.self_attn"]}, "bf16", "fp8"),
        (compressed(4, "int", 32) | {"ignore": ["re:.*self_attn.*"]}, "bf16", "int4_g32"),
        (compressed(4, "int", 32) | {"ignore": ["re:model\\.layers\\.(0|1|2|3)\\.self_attn\\..*"]}, "bf16", "int4_g32"),
        (compressed(4, "int", 32) | {"ignore": ["re:.*\\.mlp\\.experts\\.\\d+\\..*"]}, "int4_g32", "bf16"),
        ({"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["self_attn"]}, "bf16", "int4_g128z"),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {
                    **{f"model.layers.{i}.self_attn.{p}_proj": {"quant_algo": "FP8"} for i in range(4) for p in "qkvo"},
                    **{f"model.layers.{i}.mlp.experts": {"quant_algo": "NVFP4", "group_size": 16} for i in range(4)},
                },
            },
            "fp8",
            "nvfp4",
        ),
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"+:.*attn.*": {"bits": 8}}},
            "int8_g128",
            "int4_g128",
        ),
        (
            {
                "quant_method": "auto-round",
                "bits": 4,
                "group_size": 128,
                "extra_config": {".*self_attn.*": {"bits": 16}},
            },
            "bf16",
            "int4_g128",
        ),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {
                    "weight": {"dtype": "fp4", "group_size": 32},
                    "input_tensors": {"dtype": "fp4"},
                },
                "layer_quant_config": {"*self_attn*": {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}}},
            },
            "fp8",
            "mxfp4",
        ),
        (
            {
                "quant_method": "torchao",
                "quant_type": {
                    "default": {
                        "_type": "ModuleFqnToConfig",
                        "_data": {
                            "module_fqn_to_config": {
                                "_default": {"_type": "Int8WeightOnlyConfig"},
                                "re:.*self_attn.*": None,
                            }
                        },
                    }
                },
            },
            "bf16",
            "int8_a16",
        ),
    ],
)
def test_a_dtype_per_module(quantization: dict[str, Any], attention: str, experts: str) -> None:
    """Lists of what is left out, and tables of what is stored otherwise."""
    assert stored(quantization) == {"attention": attention, "experts": experts, "head": "bf16"}


@pytest.mark.parametrize(
    ("quantization", "kv"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": None}, "bf16"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "NVFP4"}, "nvfp4"),
        (compressed(8, "float", None) | {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, "fp8"),
        (
            {
                "quant_method": "quark",
                "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}},
                "layer_quant_config": {
                    "*k_proj": {"weight": {"dtype": "fp8_e4m3"}, "output_tensors": {"dtype": "fp8_e4m3"}},
                },
            },
            "fp8",
        ),
    ],
)
def test_dtype_of_the_cache(quantization: dict[str, Any], kv: str) -> None:
    """What the checkpoint stores of it."""
    assert read_config({**DENSE, "quantization_config": quantization}, name="x").kv_dtype == kv


def test_what_lies_beside_goes_first(tmp_path: Path) -> None:
    """hf_quant_config.json counts where config.json says nothing or something else; a folder is a model."""
    (tmp_path / "config.json").write_text(json.dumps(DENSE), encoding="utf-8")
    document = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(document), encoding="utf-8")
    arch = read_config_file(tmp_path)
    assert (arch.dtypes.attention, arch.kv_dtype, arch.name) == ("fp8", "fp8", tmp_path.name)
    other = {**DENSE, "quantization_config": {"quant_method": "awq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(other), encoding="utf-8")
    arch = read_config_file(tmp_path / "config.json")
    assert arch.dtypes.attention == "fp8"
    assert any("hf_quant_config.json" in text for text in arch.assumptions)


@pytest.mark.parametrize(("share", "said"), [(1.0, False), (1.015, False), (1.03, True), (0.9, True)])
def test_the_size_of_the_files_is_held_against_ours(tmp_path: Path, share: float, said: bool) -> None:
    """A difference above 2 % is said."""
    (tmp_path / "config.json").write_text(json.dumps(DENSE), encoding="utf-8")
    size = weight_bytes(read_config(DENSE, name="x")) * share
    index = {"metadata": {"total_size": size}, "weight_map": {}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert any("index.json" in text for text in read_config_file(tmp_path).assumptions) == said


def test_a_folder_without_a_config_is_an_error(tmp_path: Path) -> None:
    """The error names the folder and what it must hold."""
    with pytest.raises(InputError, match=r"must hold a config\.json or a params\.json"):
        read_config_file(tmp_path)


@pytest.mark.parametrize(
    "pattern",
    ["re:(a+)+b", "re:a*b*c*d*e*f*x", "re:(a|a)*b", "re:(", "re:" + "a" * 5000, "*" * 100 + "a*b*c*d*e*f*g"],
)
def test_patterns_that_could_take_for_ever(pattern: str) -> None:
    """A pattern whose repeats could run away is refused by name."""
    config = {**DENSE, "quantization_config": compressed(8, "float", None) | {"ignore": [pattern]}}
    with pytest.raises(InputError, match=r"quantization_config\.ignore: must name modules"):
        read_config(config, name="x")


@pytest.mark.parametrize(
    ("quantization", "field"),
    [
        ({"quant_method": "magic"}, "quant_method"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size"),
        ({"quant_method": "gptq", "bits": 7}, "bits"),
        ({"quant_method": "modelopt", "quant_algo": "W3"}, "quant_algo"),
        (compressed(5, "float", None), "config_groups"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Unknown"}}}, "quant_type"),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "tf32"}}}, "global_quant_config"),
    ],
)
def test_unknown_formats_are_named(quantization: dict[str, Any], field: str) -> None:
    """No format is guessed."""
    with pytest.raises(InputError, match=field):
        read_config({**DENSE, "quantization_config": quantization}, name="x")


ASKED = sorted(BYTES_PER_WEIGHT)
CHECKPOINTS = ("gpt-oss-120b", "kimi-k2.5", "deepseek-v3", "llama-3.1-8b", "minimax-m2.5")


@given(st.sampled_from(CHECKPOINTS), st.sampled_from(ASKED), st.sampled_from(ASKED))
def test_a_dtype_that_is_asked_for_replaces_what_is_stored(name: str, gemm: str, moe: str) -> None:
    """Attention, networks and experts weigh what was asked for, or a form of it that the checkpoint has already."""
    arch = load_model(name)
    asked = with_dtypes(arch, gemm_dtype=gemm, moe_dtype=moe)
    for group in asked.groups:
        for m in group.block.matrices(1, ONE_RANK):
            wanted = {"attention": gemm, "dense_ffn": gemm, "shared_experts": gemm, "experts": moe}.get(m.weights)
            base = storage(group.block.dtype_of(m.name)).base
            assert wanted is None or m.name == "conv" or base == wanted or (wanted == "fp8" and base == "fp8_block")


def test_weight_only_formats_are_multiplied_in_sixteen_bits() -> None:
    """int4 never in FP4, nvfp4 where the hardware has it, and not where activations stay in 16 bits."""
    peaks = {"bf16": 1.0, "fp8": 2.0, "fp4": 4.0, "int8": 2.0}
    found = {
        n: compute_dtype(n, peaks) for n in ("int4", "int4_g32z", "nvfp4", "nvfp4_a16", "int8", "int8_g128", "mxfp4")
    }
    assert found == {
        "int4": "bf16",
        "int4_g32z": "bf16",
        "nvfp4": "fp4",
        "nvfp4_a16": "bf16",
        "int8": "int8",
        "int8_g128": "bf16",
        "mxfp4": "fp4",
    }
    assert compute_dtype("nvfp4", {"bf16": 1.0}) == "bf16"


@given(st.integers(2, 8), st.integers(1, 1024), st.booleans())
def test_smaller_groups_weigh_more(bits: int, group: int, zero: bool) -> None:
    """A scale, and a zero point of as many bits as a weight, for each group."""
    name = f"int{bits}_g{group}{'z' if zero else ''}"
    assert bytes_per_weight(name) == pytest.approx(bits / 8 + (2 + (bits / 8 if zero else 0)) / group)
    assert bytes_per_weight(name) > bytes_per_weight(f"int{bits}_g{group + 1}{'z' if zero else ''}")


@pytest.mark.parametrize("name", ["int9", "fp7", "int4_g", "nvfp4_a4", "", "fp8_block12"])
def test_names_of_no_dtype(name: str) -> None:
    """A dtype is one of a family or an error."""
    with pytest.raises(ValueError, match="a dtype must be"):
        storage(name)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"sparsity_config": {"format": "sparse-24-bitmask", "sparsity_structure": "2:4"}}, "sparsity_config"),
        ({"transform_config": {"config_groups": {"R3": {"type": "hadamard"}}}}, "transform_config"),
        ({"codebooks": 2}, "codebooks"),
        ({"format": "marlin-24"}, "format"),
    ],
)
def test_a_setting_that_is_not_known_is_named(settings: dict[str, Any], name: str) -> None:
    """It is an error with its path, and approximation says that it was left out."""
    config = {**DENSE, "quantization_config": compressed(8, "float", None) | settings}
    with pytest.raises(InputError, match=rf"\$\.quantization_config\.{name}: is not a field that is known"):
        read_config(config, name="x")
    arch = read_config(config, name="x", approximate=True)
    assert any(f"quantization_config.{name}" in text for text in arch.assumptions)


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsity_config": {}, "transform_config": {}, "version": "0.12.2", "quantization_status": "compressed"},
        {"sparsity_config": {"format": "dense", "ignore": []}, "global_compression_ratio": 1.5},
    ],
)
def test_settings_that_cost_nothing(settings: dict[str, Any]) -> None:
    """Files of the field are full of them."""
    plain = {**DENSE, "quantization_config": compressed(8, "float", None)}
    config = {**DENSE, "quantization_config": compressed(8, "float", None) | settings}
    assert read_config(config, name="x") == read_config(plain, name="x")


@pytest.mark.parametrize(
    "settings",
    [
        {"kv_cache_scheme": {"num_bits": 3, "type": "float"}},
        {"kv_cache_quant_algo": "W2"},
        {"kv_cache_quant_config": {"*k_proj": {"output_tensors": {"dtype": "uint2"}}}},
    ],
)
def test_a_cache_of_no_known_dtype(settings: dict[str, Any]) -> None:
    """What it would take is not guessed."""
    config = {**DENSE, "quantization_config": compressed(8, "float", None) | settings}
    with pytest.raises(InputError, match=r"quantization_config\.kv_cache_[a-z_]+: must be"):
        read_config(config, name="x")


def test_settings_of_modelopt_as_its_own_file_nests_them() -> None:
    """`quantization` within the table is the table."""
    inner = {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    flat, nested = (
        read_config({**DENSE, "quantization_config": {"quant_method": "modelopt", **table}}, name="x")
        for table in (inner, {"quantization": inner, "producer": {"name": "modelopt"}})
    )
    assert nested == flat
    assert nested.kv_dtype == "fp8"


def test_torchao_of_older_releases() -> None:
    """The name of a format with its arguments beside it."""
    for table in ({"quant_type_kwargs": {"group_size": 32}}, {"group_size": 32}):
        config = {
            **DENSE,
            "quantization_config": {"quant_method": "torchao", "quant_type": "int4_weight_only", **table},
        }
        assert read_config(config, name="x").dtypes.attention == "int4_g32z"


@given(st.sampled_from(("gpt-oss-120b", "kimi-k2.5", "llama-3.1-8b")), st.sampled_from(("int4", "nvfp4", "mxfp4")))
def test_four_bits_asked_for_cost_the_same_whatever_is_stored(name: str, asked: str) -> None:
    """A format that is asked for is read and multiplied in its own way, over a checkpoint of another one as over bf16.

    Integers without activations are multiplied in 16 bits, NVFP4 and MXFP4 in four: never the one for the other.
    """
    arch = load_model(name)
    stored = next(d for d in ("int4", "nvfp4", "mxfp4") if d != asked)
    plain = with_dtypes(arch, gemm_dtype="bf16", moe_dtype="bf16")
    over = with_dtypes(with_dtypes(plain, gemm_dtype=stored, moe_dtype=stored), gemm_dtype=asked, moe_dtype=asked)
    assert over == with_dtypes(plain, gemm_dtype=asked, moe_dtype=asked)
    peaks = {"bf16": 1.0, "fp8": 2.0, "fp4": 4.0, "int8": 2.0}
    kind = over.dtypes.experts if over.is_moe else over.dtypes.dense_ffn
    assert compute_dtype(kind, peaks) == ("bf16" if asked == "int4" else "fp4")
