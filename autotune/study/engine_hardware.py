"""What an engine cannot do on a GPU at all, and what it does in another way than the checkpoint says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.engines.names import ANY, WITHOUT_TRTLLM
from autotune.study.values import Search
from costmodel.arch import Arch, WeightDtypes, with_dtypes
from costmodel.dtypes import compute_dtype, hardware_dtype
from costmodel.errors import Problem
from costmodel.hardware import Cluster, Gpu

_NATIVE_ONLY = frozenset(("fp8", "fp8_block", "mxfp8", "nvfp4"))
"""Weights that TensorRT-LLM multiplies in their own dtype or not at all (its support matrix: FP8 from Ada on, NVFP4
from Blackwell on). MXFP4 it widens on Hopper, for gpt-oss."""

_QUICK_EXPERTS = {
    "mxfp4": "vLLM: VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8=1, TensorRT-LLM: moe_config.backend TRTLLM",
    "nvfp4": "TensorRT-LLM: moe_config.backend TRTLLM",
}
"""What InferenceMAX's launch scripts set for them on B200."""


def engine_problems(
    engines: Mapping[str, str | None], arch: Arch, gpu: Gpu, weight_dtypes: Sequence[str | None]
) -> list[Problem]:
    """Why engines, by the path of the field that names them, cannot serve the model on this GPU."""
    why = _trtllm_cannot(arch, gpu, weight_dtypes)
    if why is None:
        return []
    message = f"must run on {gpu.name}: {why}, got 'trtllm'"
    return [Problem(path=path, message=message) for path, engine in engines.items() if engine == "trtllm"]


def engines_that_run(engine: str, arch: Arch, clusters: Sequence[Cluster], search: Search, said: list[str]) -> str:
    """The study's engine; where it is any, without what runs on none or not all of the clusters, which is said."""
    if engine != ANY:
        return engine
    why = [w for c in clusters if (w := _trtllm_cannot(arch, c.gpu, search.weight_dtype)) is not None]
    if not why:
        return engine
    said.append(f"engine any: vLLM and SGLang; {why[0]}")
    return WITHOUT_TRTLLM


def multiplied_in(arch: Arch, clusters: Sequence[Cluster], search: Search) -> list[str]:
    """What GPUs multiply weights in, where it is not what they are stored in or depends on a server's settings."""
    out = []
    for gpu in (c.gpu for c in clusters):
        for storage in sorted({s for choice in search.weight_dtype for s in _storages(arch, choice)}):
            wanted, used = hardware_dtype(storage), compute_dtype(storage, gpu.peak_flops_per_s)
            if wanted != used:
                out.append(
                    f"model: {gpu.name} does not multiply in {wanted}: {storage} weights are read as stored and "
                    f"multiplied in {used}"
                )
        experts = {_dtypes(arch, choice).experts for choice in search.weight_dtype} if arch.is_moe else set()
        out += [
            f"model: {storage} experts on {gpu.name} by the quickest kernels, with activations of 4 or 8 bits "
            f"({setting}); others take two to six times as long"
            for storage, setting in _QUICK_EXPERTS.items()
            if storage in experts and gpu.generation.startswith("blackwell")
        ]
    return list(dict.fromkeys(out))


def _trtllm_cannot(arch: Arch, gpu: Gpu, weight_dtypes: Sequence[str | None]) -> str | None:
    if gpu.generation.startswith("cdna"):
        return "TensorRT-LLM runs on NVIDIA GPUs only"
    lacking = [
        storage
        for choice in weight_dtypes
        for storage in sorted(_storages(arch, choice) & _NATIVE_ONLY)[:1]
        if compute_dtype(storage, gpu.peak_flops_per_s) != hardware_dtype(storage)
    ]
    if len(lacking) < len(weight_dtypes):
        return None
    return f"TensorRT-LLM has no kernels for {lacking[0]} weights on {gpu.generation} GPUs"


def _dtypes(arch: Arch, choice: str | None) -> WeightDtypes:
    return (arch if choice is None else with_dtypes(arch, gemm_dtype=choice, moe_dtype=choice)).dtypes


def _storages(arch: Arch, choice: str | None) -> set[str]:
    dtypes = _dtypes(arch, choice)
    experts = {dtypes.experts, dtypes.shared_experts} if arch.is_moe else set()
    return {dtypes.attention, *experts, *({dtypes.dense_ffn} if arch.dense_shapes else set())}
