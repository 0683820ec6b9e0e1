"""What an engine's code for a family of models lacks, and where shards would cut the groups of quantised weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.arch import Arch
from costmodel.arch.block import DENSE, ONE_RANK, SHARED, Block
from costmodel.dtypes import integer_group

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

WITHOUT_STAGES: Mapping[str, frozenset[str]] = {
    # 0.33: classes of vllm/model_executor/models without the `SupportsPP` interface, for which vllm/config/model.py
    # raises "Pipeline parallelism is not supported for this model"
    "vllm": frozenset(("aria", "gemma3n", "hrm_text", "iquestloopcoder", "mamba2", "phi4mm", "zamba2")),
    # 0.5.23: classes of sglang/srt/models whose `forward` takes no `pp_proxy_tensors`, for which
    # sglang/srt/model_executor/model_runner.py asserts "Pipeline Parallel is not compatible with this model"
    "sglang": frozenset(
        (
            "afmoe", "baichuan", "chatglm", "cohere", "cohere2", "cohere2_moe", "dbrx", "deepseek", "ernie4_5",
            "ernie4_5_moe", "ernie4_5_moe_vl", "ernie4_5_vl_moe", "exaone", "falcon_h1", "gemma", "gemma2", "gemma3",
            "gemma3n", "gpt2", "gpt_bigcode", "gptj", "granite", "granite_swa", "granitemoe", "granitemoe_swa",
            "granitemoeshared", "grok", "grok-1", "hrm_text", "hunyuan", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3",
            "hy_v4", "internlm2", "jet_nemotron", "lfm2", "lfm2_moe", "llama4", "longcat_flash", "mimo", "minicpm",
            "minicpm3", "olmo", "olmo2", "olmo3", "olmoe", "orion", "persimmon", "phi", "phi4mm", "phimoe", "qwen",
            "qwen2_vl", "qwen3_next", "stablelm", "starcoder2", "step3", "step3p7", "step3_vl", "xverse",
        )
    ),
    # tensorrt_llm/_torch/models/modeling_utils.py cuts any `DecoderModel` into stages
    "trtllm": frozenset(),
}  # fmt: skip
"""Families (`model_type`) whose class an engine cannot cut into pipeline stages."""

WITHOUT_KV_COPIES: Mapping[str, frozenset[str]] = {
    # 0.33, vllm/model_executor/models/gpt_oss.py: KV heads // tensor-parallel size, which is 0 beyond the heads
    "vllm": frozenset(("gpt_oss",)),
    "sglang": frozenset(),
    "trtllm": frozenset(),
}
"""Families whose class does not hold a KV head on more than one rank."""

WHOLE_IN_EXPERT_MODELS: Mapping[str, frozenset[str]] = {
    "vllm": frozenset(),
    "sglang": frozenset((DENSE, SHARED)),
    "trtllm": frozenset((DENSE, SHARED)),
}
"""Weights that an engine can keep whole on every rank in mixtures of experts (`--moe-dense-tp-size 1`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """How candidates cut a layer: columns of shape `(num_candidates,)`."""

    attn_tp: NDArray[np.float64]
    moe_tp: NDArray[np.float64]
    attn_cp: float = 1.0
    dcp: float = 1.0
    moe_ep: float = 1.0
    redundant_experts: float = 0.0


def is_of(arch: Arch, families: Collection[str]) -> bool:
    """Whether a model is of one of these families; that of a text model within another counts as the family's."""
    return arch.model_type.removesuffix("_text") in families


def grouped_inputs(arch: Arch, whole: Collection[str] = ()) -> Iterator[tuple[Block, str, int]]:
    """Block, matrix and group of every matrix that stores integers in groups along its input.

    Weights of the kinds in `whole` are left out.
    """
    for block in (group.block for group in arch.groups):
        for matrix in block.matrices(arch.hidden_size, ONE_RANK):
            size = integer_group(block.dtype_of(matrix.name))
            if size and matrix.weights not in whole:
                yield block, matrix.name, size


def cuts_groups(arch: Arch, engine: str, attn_tp: Ints, moe_tp: Ints) -> Bools:
    """Whether shards of a matrix's input hold parts of groups of integers, which share a scale.

    vLLM 0.33: `AutoAWQLinearMethod` ("The input size is not aligned with the quantized weight shape. This can be caused
    by too large tensor parallel size"), `verify_marlin_supports_shape`, `verify_group_size_divides_partition` of
    compressed-tensors' W4A16, and `CompressedTensorsWNA16MoEMethod` for experts. (Experts of AWQ and GPTQ fall back to
    kernels that halve the groups, which are not modelled.) SGLang 0.5.23: `awq_linear.py`, `marlin_utils.py`,
    `compressed_tensors_wNa16.py`. TensorRT-LLM: `W4A16_AWQ_LinearMethod` of tensorrt_llm/_torch/modules/linear.py.
    """
    shards = Shards(attn_tp=attn_tp.astype(np.float64), moe_tp=moe_tp.astype(np.float64))
    out = np.zeros(attn_tp.shape, dtype=bool)
    for block, matrix, size in grouped_inputs(arch, WHOLE_IN_EXPERT_MODELS[engine] if arch.is_moe else ()):
        uncut = block.inputs(arch.hidden_size, ONE_RANK)[matrix]
        held = block.inputs(arch.hidden_size, shards)[matrix]
        out |= np.asarray((held != uncut) & (held % size != 0))
    return out


def cut_inputs(arch: Arch) -> set[int]:
    """Inputs, in elements, of the matrices whose groups shards may cut."""
    two = Shards(attn_tp=np.array([2.0]), moe_tp=np.array([2.0]))
    found = set()
    for block, matrix, _ in grouped_inputs(arch):
        uncut = block.inputs(arch.hidden_size, ONE_RANK)[matrix]
        if np.any(np.asarray(block.inputs(arch.hidden_size, two)[matrix] != uncut)):
            found.add(int(uncut))
    return found
