"""What an engine cannot do on a GPU is refused or left out; what it does in another way is said."""

from __future__ import annotations

import pytest

from autotune.study import load_study
from autotune.tuning.study_space import study_space
from costmodel.errors import InputError
from tests.studies import FOLDER

DEEPSEEK = FOLDER / "deepseek-v3-128xh200.toml"
SMALL = ["cluster.gpus=32", "baseline.plan=ADP8+EP8"]


@pytest.mark.parametrize(
    ("gpu", "why"),
    [("mi300x", "NVIDIA GPUs only"), ("a100_80_sxm", "no native kernels for fp8_block weights on ampere GPUs")],
)
def test_an_engine_that_does_not_run(gpu: str, why: str) -> None:
    """TensorRT-LLM asked for where it does not run is wrong input; with any engine the others are searched."""
    with pytest.raises(InputError, match=rf"\$\.engine: .*{why}"):
        load_study(DEEPSEEK, [*SMALL, f"cluster.gpu={gpu}", "engine=trtllm"])
    with pytest.raises(InputError, match=rf"\$\.baseline\.engine: .*{why}"):
        load_study(DEEPSEEK, [*SMALL, f"cluster.gpu={gpu}", "engine=any", "baseline.engine=trtllm"])
    study = load_study(DEEPSEEK, [*SMALL, f"cluster.gpu={gpu}", "engine=any"])
    assert any(why in text for text in study.assumptions)
    assert {c.engine for c in study_space(study).candidates} == {"vllm", "sglang"}


def test_nvfp4_is_no_ones_on_amd_and_marlins_on_hopper() -> None:
    """On ROCm vLLM emulates NVFP4 and SGLang refuses it; on Hopper both widen it, and TensorRT-LLM refuses it."""
    asked = [*SMALL, 'search.weight_dtype=["nvfp4"]']
    for engine, why in (
        ("vllm", "vLLM has no native kernels for nvfp4"),
        ("sglang", "SGLang has no native kernels for nvfp4"),
    ):
        with pytest.raises(InputError, match=rf"\$\.engine: .*{why}"):
            load_study(DEEPSEEK, [*asked, "cluster.gpu=mi300x", f"engine={engine}"])
    with pytest.raises(InputError, match=r"\$\.engine: must be able to serve the model here: .*NVIDIA GPUs only"):
        load_study(DEEPSEEK, [*asked, "cluster.gpu=mi300x", "engine=any"])
    study = load_study(DEEPSEEK, [*asked, "engine=any"])
    assert {c.engine for c in study_space(study).candidates} == {"vllm", "sglang"}
    assert any("TensorRT-LLM has no native kernels for nvfp4 weights on hopper" in a for a in study.assumptions)


def test_an_engine_that_runs_with_one_of_the_dtypes() -> None:
    """A choice of weight dtypes keeps the engine, as long as one of them works."""
    overrides = [*SMALL, "cluster.gpu=a100_80_sxm", "engine=trtllm", 'search.weight_dtype=["bf16", "fp8"]']
    assert load_study(DEEPSEEK, overrides).engine == "trtllm"


def test_weights_that_are_widened_are_said() -> None:
    """FP4 on Hopper saves memory and no arithmetic; FP8 needs no word there."""
    study = load_study(DEEPSEEK, ['search.weight_dtype=["fp8", "nvfp4"]'])
    assert [a for a in study.assumptions if "multiplied" in a] == [
        "model: h200_sxm does not multiply in fp4: nvfp4 weights are read as stored and multiplied in bf16"
    ]
    assert not any("multiplied" in a for a in load_study(DEEPSEEK).assumptions)


@pytest.mark.parametrize(
    ("gpu", "said"), [("b200_sxm", "VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8=1"), ("h200_sxm", "multiplied in bf16")]
)
def test_experts_of_four_bits_are_said(gpu: str, said: str) -> None:
    """On Blackwell how quick they are depends on a setting, on Hopper they are widened whatever it says."""
    study = load_study(DEEPSEEK, [*SMALL[:1], "baseline.plan=TP8+DP4", "model=gpt-oss-120b", f"cluster.gpu={gpu}"])
    assert [said in a for a in study.assumptions if "mxfp4" in a] == [True]
