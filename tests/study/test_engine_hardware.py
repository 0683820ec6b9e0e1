"""What an engine cannot do on a GPU is refused or left out; what it does in another way is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotune.disaggregated.search import pool_sides
from autotune.engines import ENGINES
from autotune.engines.facts import is_version
from autotune.launch.export import make_export
from autotune.study import dtype_choices, load_study
from autotune.tuning.answer_study import score_plan, tune
from autotune.tuning.study_space import study_space
from costmodel.arch import load_model, stored_in
from costmodel.errors import InputError
from costmodel.hardware import load_gpu
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


def test_a_dtype_that_an_engine_does_not_run_with_is_not_ranked() -> None:
    """Of a choice of dtypes those are left out that the engine has no kernels for on the GPU, and that is said."""
    asked = ["model=llama-70b", "engine=trtllm", "cluster.gpus=8", "cluster.gpu=a100_80_sxm", "baseline.plan=TP8"]
    study = load_study(DEEPSEEK, [*asked, 'search.weight_dtype=["fp8", "bf16"]'])
    assert {plan.knobs.weight_dtype for plan in tune(study).ranked} == {"bf16"}
    assert any("no native kernels for fp8 weights on ampere GPUs: left out" in a for a in study.assumptions)


def kept(engine: str, gpu: str, *more: str, model: str = "llama-70b") -> set[str | None]:
    """Cache dtypes of the ranked plans of a study that asks for three, in which many fit."""
    base = [f"model={model}", f"engine={engine}", f"cluster.gpu={gpu}", "cluster.gpus=8", "baseline.plan=TP8"]
    load = ["workload.concurrency=1500", "search.disaggregated=off", 'search.kv_dtype=["nvfp4", "fp8", "bf16"]']
    study = load_study(DEEPSEEK, [*base, *load, *more])
    return {pair[1] for pair in dtype_choices(study, engine, study.cluster.gpu)} | {
        plan.knobs.kv_dtype for plan in tune(study).ranked
    }


@pytest.mark.parametrize(
    ("engine", "gpu", "more", "expected"),
    [
        ("vllm", "mi300x", (), {"fp8", "bf16"}),
        ("vllm", "h100_sxm", (), {"nvfp4", "fp8", "bf16"}),
        ("vllm", "h100_sxm", ("engine_version=0.29.0",), {"fp8", "bf16"}),
        ("vllm", "b200_sxm", ("engine_version=0.29.0",), {"nvfp4", "fp8", "bf16"}),
        ("vllm", "a100_80_sxm", ("model=gpt-oss-120b",), {"bf16"}),
        ("vllm", "b200_sxm", ("model=deepseek-v3",), {"fp8", "bf16"}),
        ("vllm", "a100_80_sxm", ("model=deepseek-v3", "cluster.gpus=32", "baseline="), {"bf16"}),
        ("vllm", "a100_80_sxm", (), {"nvfp4", "fp8", "bf16"}),
        ("sglang", "a100_80_sxm", (), {"fp8", "bf16"}),
        ("sglang", "h100_sxm", (), {"fp8", "bf16"}),
        ("sglang", "mi300x", (), {"fp8", "bf16"}),
        ("sglang", "b200_sxm", (), {"nvfp4", "fp8", "bf16"}),
        ("trtllm", "h100_sxm", (), {"fp8", "bf16"}),
        ("trtllm", "b200_sxm", (), {"fp8", "bf16"}),
        ("trtllm", "b200_sxm", ('search.weight_dtype=["fp8"]',), {"nvfp4", "fp8", "bf16"}),
        ("trtllm", "b200_sxm", ('search.weight_dtype=["fp8"]', "engine_version=1.1.0"), {"fp8", "bf16"}),
    ],
)
def test_caches_are_kept_where_the_engine_has_them(
    engine: str, gpu: str, more: tuple[str, ...], expected: set[str]
) -> None:
    """By GPU, version, kind of attention and weights; what is not kept is not ranked."""
    assert kept(engine, gpu, *more) == expected


def test_a_plan_with_a_cache_that_is_not_kept_breaks_a_rule() -> None:
    """Scored by name, and exported, as one that breaks a rule of the engine's."""
    study = load_study(DEEPSEEK, ["model=llama-70b", "engine=sglang", "cluster.gpus=8", "baseline.plan=TP8"])
    scored = score_plan(study, "TP8", kv_dtype="nvfp4")
    assert scored.result is None
    assert [v.rule for v in scored.resolution.violations] == ["kv_dtype_support"]
    plan = score_plan(study, "TP8", kv_dtype="fp8").result
    assert plan is not None
    with pytest.raises(InputError, match="kv_dtype_support: SGLang keeps no nvfp4 KV cache on hopper GPUs"):
        make_export(study, replace(plan, knobs=replace(plan.knobs, kv_dtype="nvfp4")))


def test_pools_hand_over_what_the_engine_can() -> None:
    """SGLang transfers no NVFP4 cache but of attention over a latent."""
    base = ["cluster.gpu=b200_sxm", "cluster.gpus=8", "engine=sglang", "baseline.plan=TP8", 'search.kv_dtype=["nvfp4"]']
    study = load_study(DEEPSEEK, [*base, "model=qwen3-30b", "search.disaggregated=auto"])
    assert list(pool_sides(study)) == []
    found = score_plan(study, "P4:TP4+D4:TP4")
    assert [v.rule for v in found.resolution.violations] == ["kv_dtype_support"]


@pytest.mark.parametrize("gpu", ["b200_sxm", "b300_sxm"])
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_integers_of_8_bits_are_multiplied_up_to_hopper(engine: str, gpu: str) -> None:
    """W8A8 on Blackwell raises in both engines' kernels; weights alone in 8 bits are widened."""
    asked = [
        "model=llama-70b",
        f"engine={engine}",
        "cluster.gpus=8",
        "baseline.plan=TP8",
        'search.weight_dtype=["int8"]',
    ]
    with pytest.raises(
        InputError, match=r"\$\.engine: .*int8 weights that are multiplied as such \(W8A8\) on blackwell"
    ):
        load_study(DEEPSEEK, [*asked, f"cluster.gpu={gpu}"])
    assert load_study(DEEPSEEK, [*asked, "cluster.gpu=h100_sxm"]).engine == engine
    arch = stored_in(load_model("llama-70b"), "int8_a16")
    assert ENGINES[engine].cannot_run(arch, load_gpu(gpu), (None,)) is None


@pytest.mark.parametrize(
    ("dtype", "why"), [("int8", "W8A8"), ("nf4", "reads no nf4"), ("int3_g128", "reads no int3_g128")]
)
def test_tensorrt_llm_reads_the_formats_that_it_lists(dtype: str, why: str) -> None:
    """Nothing of bitsandbytes, integers of 4 and 8 bits alone; how integers are packed is said not to be checked."""
    engine, gpu, model = ENGINES["trtllm"], load_gpu("h100"), load_model("llama-70b")
    assert why in str(engine.cannot_run(stored_in(model, dtype), gpu, (None,)))
    assert engine.cannot_run(stored_in(model, "int4_g128"), gpu, (None,)) is None
    asked = ["model=llama-70b", "engine=trtllm", "cluster.gpus=8", "baseline.plan=TP8", 'search.weight_dtype=["int4"]']
    assert any("is not checked" in a for a in load_study(DEEPSEEK, asked).assumptions)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.12", "engine_version 0.12: older than vLLM 0.24.0"),
        ("0.40.0", "engine_version 0.40.0: newer than vLLM 0.33.0"),
        ("nightly-5b8c30d62b754b57", "names no release"),
    ],
)
def test_versions_whose_rules_are_not_known_are_said(version: str, said: str) -> None:
    """Older or newer than the lists of options; `--set` takes a version of two numbers as text."""
    study = load_study(DEEPSEEK, [f"engine_version={version}"])
    assert study.engine_version == version
    assert any(said in a for a in study.assumptions)
    assert not any("engine_version" in a for a in load_study(DEEPSEEK, ["engine_version=0.33.0"]).assumptions)


def test_versions_of_measured_runs_are_versions() -> None:
    """Every one that a measured run may have, and nothing that only looks like a word."""
    for version in (
        "0.5.6.post2", "1.2.0rc6.post3", "1.1.0rc2.post2", "v0.33.0", "0.12", "1", "0.34.0.dev12+g5b8c30d",
        "nightly-dev", "nightly-dev-20260216-d3bae71e", "nightly-5b8c30d62b754b57", "gpt-oss-dev",
        "dynamo-0.5.1-rc0.pre3", "main",
    ):  # fmt: skip
        assert is_version(version), version
    for text in ("abc", "latest", "", "../x", "vllm", "0.12 ", "developer"):
        assert not is_version(text), text


def test_a_model_that_the_version_has_no_class_for_is_an_error() -> None:
    """Said before anything is ranked, as `export` says it."""
    with pytest.raises(InputError, match=r"\$\.engine: .*vLLM 0\.9\.0 has no class for models of gpt_oss"):
        load_study(DEEPSEEK, [*SMALL, "model=gpt-oss-120b", "engine=vllm", "engine_version=0.9.0"])
    reference = load_study(FOLDER / "reference-128.toml", ["engine=trtllm", "baseline.plan=TP16"])
    assert any("has a class for it is not checked" in a for a in reference.assumptions)
    study = load_study(DEEPSEEK, [*SMALL, "model=jamba-large", "engine=any"])
    assert any("TensorRT-LLM 1.2.1 has no class for models of jamba" in a for a in study.assumptions)


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
