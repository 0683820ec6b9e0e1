"""What commands are started with that no formula knows: options, fields, dtypes of the cache and variables, named."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.launch.reading.import_plan import import_plan
from tests.launch.commands import NAME, SGLANG, VLLM, trtllm


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{VLLM} --cpu-offload-gb 10", ("--cpu-offload-gb 10",)),
        (f"{VLLM} --cpu-offload-gb 0 --moe-backend auto --performance-mode balanced", ()),
        (f"{VLLM} --num-gpu-blocks-override 500 --max-model-len 8192", ("--num-gpu-blocks-override 500",)),
        (f"{VLLM} --enable-chunked-prefill --enable-prefix-caching --trust-remote-code --seed 1", ()),
        (f"{VLLM} --no-enable-chunked-prefill", ("--no-enable-chunked-prefill",)),
        (f"{VLLM} --disable-chunked-prefill", ("--disable-chunked-prefill",)),
        (f"{SGLANG} --cpu-offload-gb 4 --schedule-conservativeness 1", ("--cpu-offload-gb 4",)),
        (f"{SGLANG} --disable-overlap-schedule --log-level info", ("--disable-overlap-schedule",)),
        (f"{SGLANG} --max-total-tokens 5000", ("--max-total-tokens 5000",)),
        (
            f"{SGLANG} --swa-full-tokens-ratio 0.5 --mamba-full-memory-ratio 0.5 --max-mamba-cache-size 100",
            ("--swa-full-tokens-ratio 0.5", "--mamba-full-memory-ratio 0.5", "--max-mamba-cache-size 100"),
        ),
        (f"{SGLANG} --disable-hybrid-swa-memory", ("--disable-hybrid-swa-memory",)),
        (f"{VLLM} --quantization bitsandbytes", ("--quantization bitsandbytes",)),
        (f"{VLLM} --quantization awq --load-format gguf", ("--quantization awq", "--load-format gguf")),
        (f"{VLLM} -q gptq_marlin", ("--quantization gptq_marlin",)),
        (f"{VLLM} --quantization fp8 --dtype half", ()),
        (f"{VLLM} --dtype float32", ("--dtype float32",)),
        (f"{VLLM.replace('-Instruct', '-Instruct-FP8')} --quantization compressed-tensors", ()),
        (f"{VLLM.replace('-Instruct', '-Instruct-FP8')} --quantization awq", ("--quantization awq",)),
        (f"{SGLANG} --quantization awq --dtype float32", ("--quantization awq", "--dtype float32")),
        (f"{SGLANG} --quantization mxfp4 --dtype bfloat16", ()),
        (f"{SGLANG} --quantization unquant", ()),
        (f"{SGLANG} --modelopt-quant fp8", ("--modelopt-quant fp8",)),
        (f"trtllm-serve {NAME} --backend tensorrt", ("--backend tensorrt",)),
    ],
)
def test_what_no_formula_knows(command: str, said: tuple[str, ...]) -> None:
    """Options that change speed or memory are named; defaults, and those that change neither, are not."""
    assert import_plan(command).started.not_priced == said


STORES = """{"kv_connector":"MultiConnector","kv_role":"kv_both","kv_connector_extra_config":{"connectors":[
{"kv_connector":"NixlConnector","kv_role":"kv_both"},{"kv_connector":"OffloadingConnector","kv_role":"kv_both"}]}}"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("""--attention-config '{"backend":"FLASHINFER"}'""", """--attention-config {"backend":"FLASHINFER"}"""),
        ("--attention-config.backend FLASHINFER", """--attention-config {"backend": "FLASHINFER"}"""),
        ("--kv-cache-dtype-skip-layers 1 2", "--kv-cache-dtype-skip-layers 1 2"),
        ("--mamba-ssm-cache-dtype float32", "--mamba-ssm-cache-dtype float32"),
        ("--mamba-cache-mode align", "--mamba-cache-mode align"),
        ("--block-size 64", "--block-size 64"),
        (
            f"--kv-transfer-config '{STORES}'",
            "--kv-transfer-config.kv_connector_extra_config.connectors.1.kv_connector OffloadingConnector",
        ),
        (
            """--kv-transfer-config '{"kv_connector":"MooncakeStoreConnector"}'""",
            """--kv-transfer-config {"kv_connector":"MooncakeStoreConnector"}""",
        ),
    ],
)
def test_options_of_vllm_that_no_formula_knows(options: str, said: str) -> None:
    """Those of kernels, of the cache's layout, and stores of caches, lists within JSON objects included."""
    assert import_plan(f"{VLLM} {options}").started.not_priced == (said,)
    assert import_plan(f"{VLLM} --mamba-ssm-cache-dtype auto").started.not_priced == ()


@pytest.mark.parametrize(
    "option",
    [
        "--mamba-ssm-dtype bfloat16", "--enable-symm-mem", "--enable-nccl-nvls", "--enable-mscclpp", "--page-size 64",
        "--enable-flashinfer-allreduce-fusion", "--disable-chunked-prefix-cache", "--disable-shared-experts-fusion",
    ],
)  # fmt: skip
def test_options_of_sglang_that_no_formula_knows(option: str) -> None:
    """Those of kernels, of collectives and of the cache's layout."""
    assert import_plan(f"{SGLANG} {option}").started.not_priced == (option,)


def test_fields_of_trtllm_that_no_formula_knows(tmp_path: Path) -> None:
    """Those of kernels and of collectives, and beams."""
    file = """
allreduce_strategy: NCCL
enable_autotuner: false
moe_config: { use_low_precision_moe_combine: true }
kv_cache_config: { tokens_per_block: 64 }
"""
    read = trtllm(tmp_path, file)
    assert len(read.started.not_priced) == 4
    assert trtllm(tmp_path, "allreduce_strategy: AUTO\nenable_autotuner: true\n").started.not_priced == ()
    beams = import_plan(f"trtllm-serve {NAME} --max_beam_width 4").started.not_priced
    assert beams == ("--max_beam_width 4",)
    assert import_plan(f"trtllm-serve {NAME} --max_beam_width 1").started.not_priced == ()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"VLLM_USE_DEEP_GEMM=0 {VLLM}", ("VLLM_USE_DEEP_GEMM=0",)),
        (f"VLLM_ATTENTION_BACKEND=FLASHINFER {VLLM}", ("VLLM_ATTENTION_BACKEND=FLASHINFER",)),
        (
            f"docker run -e VLLM_USE_FLASHINFER_MOE_FP8=1 -e HF_HOME=/x vllm/vllm-openai:v0.24.0 {NAME}",
            ("VLLM_USE_FLASHINFER_MOE_FP8=1",),
        ),
        (f"VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8=1 {VLLM}", ()),  # as what is priced was measured
        (f"VLLM_LOGGING_LEVEL=DEBUG VLLM_RPC_TIMEOUT=1 VLLM_HOST_IP=10.0.0.1 {VLLM}", ()),
        (f"SGLANG_ENABLE_JIT_DEEPGEMM=0 VLLM_USE_DEEP_GEMM=0 {SGLANG}", ("SGLANG_ENABLE_JIT_DEEPGEMM=0",)),
        (f"SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK=256 SGLANG_DEEPEP_V2_TRACE_CONTIG=1 {SGLANG}", ()),
        (f"TRTLLM_ENABLE_PDL=1 trtllm-serve {NAME}", ("TRTLLM_ENABLE_PDL=1",)),
    ],
)
def test_variables_that_choose_kernels(command: str, said: tuple[str, ...]) -> None:
    """Those of the engine that runs, but for what exports set and what the calibration was measured with."""
    assert import_plan(command).started.not_priced == said


@pytest.mark.parametrize(
    ("command", "dtype", "said"),
    [
        (f"{VLLM} --kv-cache-dtype auto", None, ()),
        (f"{VLLM} --kv-cache-dtype fp8_e4m3", "fp8", ()),
        (f"{VLLM} --kv-cache-dtype fp8_inc", "fp8", ()),
        (f"{VLLM} --kv-cache-dtype turboquant_4bit_nc", None, ("--kv-cache-dtype turboquant_4bit_nc",)),
        (f"{VLLM} --kv-cache-dtype nonsense", None, ("--kv-cache-dtype nonsense",)),
        (f"{SGLANG} --kv-cache-dtype fp4_mx_block16", "nvfp4", ()),
        (f"{SGLANG} --kv-cache-dtype mxfp8", None, ("--kv-cache-dtype mxfp8",)),
    ],
)
def test_a_cache_that_no_formula_knows_is_named(command: str, dtype: str | None, said: tuple[str, ...]) -> None:
    """A dtype of the cache is scored or named: it is never the checkpoint's without a word."""
    read = import_plan(command)
    assert (read.baseline().kv_dtype, read.started.not_priced) == (dtype, said)


def test_a_cache_of_nearly_a_known_size_is_scored_and_named() -> None:
    """DeepSeek's sparse attention keeps scales and a part in 16 bits beside its FP8."""
    read = import_plan("vllm serve deepseek-ai/DeepSeek-V3.2 -tp 8 --kv-cache-dtype fp8_ds_mla")
    assert read.baseline().kv_dtype == "fp8"
    assert len(read.started.not_priced) == 1
    assert read.started.not_priced[0].startswith("--kv-cache-dtype fp8_ds_mla (taken as fp8")


def test_an_object_that_nobody_writes_is_no_harm() -> None:
    """One as deep as JSON is read is named and not looked into."""
    for depth in (10, 400, 900, 5000):
        text = '{"a":' * depth + "1" + "}" * depth
        assert len(import_plan(f"{VLLM} --compilation-config '{text}'").started.not_priced) == 1
