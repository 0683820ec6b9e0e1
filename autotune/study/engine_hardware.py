"""What an engine cannot do on a GPU at all, and what it does in another way than the checkpoint says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autotune.engines.names import ANY, ENGINES
from autotune.study.values import Search
from costmodel.arch import Arch, with_dtypes
from costmodel.dtypes import compute_dtype, hardware_dtype, storage
from costmodel.errors import InputError, Problem
from costmodel.hardware import Cluster, Gpu

_NATIVE_ONLY = frozenset(("fp8", "fp8_block", "mxfp8", "nvfp4"))
"""Weights that TensorRT-LLM multiplies in their own dtype or not at all (its support matrix: FP8 from Ada on, NVFP4
from Blackwell on). MXFP4 it widens on Hopper, for gpt-oss."""
_NATIVE_ONLY_ON_AMD = frozenset(("nvfp4",))
"""vLLM 0.33 (`_POSSIBLE_NVFP4_KERNELS` of vllm/model_executor/kernels/linear) has an emulation on ROCm, SGLang 0.5.23
(modelopt_quant.py) refuses. On NVIDIA's GPUs without FP4 both read NVFP4 by Marlin's weight-only kernels."""
_TITLES = {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM"}
_LACK = {"trtllm": "TensorRT-LLM has no", "vllm": "vLLM has only emulated", "sglang": "SGLang has no"}

_QUICK_EXPERTS = {
    "mxfp4": "vLLM: VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8=1, TensorRT-LLM: moe_config.backend TRTLLM",
    "nvfp4": "TensorRT-LLM: moe_config.backend TRTLLM",
}
"""What InferenceMAX's launch scripts set for them on B200."""


def engine_problems(
    engines: Mapping[str, str | None], arch: Arch, gpu: Gpu, weight_dtypes: Sequence[str | None]
) -> list[Problem]:
    """Why engines, by the path of the field that names them, cannot serve the model on this GPU."""
    return [
        Problem(path=path, message=f"must run on {gpu.name}: {why}, got {engine!r}")
        for path, engine in engines.items()
        if engine in ENGINES and (why := _cannot_run(engine, arch, gpu, weight_dtypes)) is not None
    ]


def engines_that_run(engine: str, arch: Arch, clusters: Sequence[Cluster], search: Search, said: list[str]) -> str:
    """The study's engine; where it is any, those that run on all of the clusters; why others do not is said.

    Raises:
        InputError: it is any, and none does.
    """
    if engine != ANY:
        return engine
    lacking = {
        name: why
        for name in ENGINES
        for c in reversed(clusters)  # the reason that stays is the first cluster's
        if (why := _cannot_run(name, arch, c.gpu, search.weight_dtype)) is not None
    }
    if not lacking:
        return engine
    left = [name for name in ENGINES if name not in lacking]
    if not left:
        raise InputError.single(
            "$.engine", f"must be able to serve the model: {'; '.join(lacking.values())}, got 'any'"
        )
    said.append(f"engine any: {' and '.join(_TITLES[name] for name in left)}; {'; '.join(lacking.values())}")
    return "+".join(left)


def multiplied_in(arch: Arch, clusters: Sequence[Cluster], search: Search) -> list[str]:
    """What GPUs multiply weights in, where it is not what they are stored in or depends on a server's settings."""
    out = []
    for gpu in (c.gpu for c in clusters):
        for stored in sorted({s for choice in search.weight_dtype for s in _storages(arch, choice)}):
            wanted, used = hardware_dtype(stored), compute_dtype(stored, gpu.peak_flops_per_s)
            if wanted != used:
                out.append(
                    f"model: {gpu.name} does not multiply in {wanted}: {stored} weights are read as stored and "
                    f"multiplied in {used}"
                )
        experts = {_asked(arch, choice).dtypes.experts for choice in search.weight_dtype} if arch.is_moe else set()
        out += [
            f"model: {stored} experts on {gpu.name} by the quickest kernels, with activations of 4 or 8 bits "
            f"({setting}); others take two to six times as long"
            for stored, setting in _QUICK_EXPERTS.items()
            if stored in experts and gpu.generation.startswith("blackwell")
        ]
    return list(dict.fromkeys(out))


def _cannot_run(engine: str, arch: Arch, gpu: Gpu, weight_dtypes: Sequence[str | None]) -> str | None:
    amd = gpu.generation.startswith("cdna")
    if amd and engine == "trtllm":
        return "TensorRT-LLM runs on NVIDIA GPUs only"
    native = _NATIVE_ONLY if engine == "trtllm" else _NATIVE_ONLY_ON_AMD if amd else frozenset()
    lacking = [
        stored
        for choice in weight_dtypes
        for stored in sorted(s for s in _storages(arch, choice) if storage(s).base in native)[:1]
        if amd or hardware_dtype(storage(stored).base) not in gpu.peak_flops_per_s
    ]
    if len(lacking) < len(weight_dtypes):
        return None
    return f"{_LACK[engine]} kernels for {lacking[0]} weights on {gpu.generation} GPUs"


def _asked(arch: Arch, choice: str | None) -> Arch:
    return arch if choice is None else with_dtypes(arch, gemm_dtype=choice, moe_dtype=choice)


def _storages(arch: Arch, choice: str | None) -> set[str]:
    return {dtype for group in _asked(arch, choice).groups for _, dtype in group.block.dtypes}
