"""What each engine calls the storage dtypes of weights and KV cache; what it has no option for is an error."""

from __future__ import annotations

from costmodel.errors import InputError

KV_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "vllm": {
        "bf16": ("bfloat16",),
        "fp16": ("float16",),
        "fp8": ("fp8",),
        "int8": ("int8_per_token_head",),
        "nvfp4": ("nvfp4",),
    },
    "sglang": {"bf16": ("bf16",), "fp8": ("fp8_e4m3",), "nvfp4": ("nvfp4", "fp4_e2m1")},
    "trtllm": {"fp8": ("fp8",), "nvfp4": ("nvfp4",)},
}
"""Ours -> what the engine's option takes; several where versions differ, newest first.

Sources: choices of `--kv-cache-dtype` in the option lists; `sync_quant_config_with_kv_cache_config_dtype` of
TensorRT-LLM's llm_args.py."""
WEIGHT_NAMES: dict[str, dict[str, str]] = {
    "vllm": {"fp8": "fp8"},
    "sglang": {"fp8": "fp8", "mxfp8": "mxfp8", "mxfp4": "mxfp4"},
    "trtllm": {},
}
"""Ours -> the `--quantization` that makes it of a bf16 checkpoint when it is loaded."""


def kv_name(engine: str, dtype: str, choices: tuple[str, ...]) -> str:
    """What the engine's option calls a KV dtype; `choices` are those of its version, empty where it lists none.

    Raises:
        InputError: `kv_dtype_support`: the engine has no such cache.
    """
    names = KV_NAMES[engine].get(dtype, ())
    for name in names:
        if not choices or name in choices:
            return name
    known = ", ".join(k for k, v in KV_NAMES[engine].items() if not choices or set(v) & set(choices))
    raise InputError.single("plan", f"kv_dtype_support: {engine} keeps a KV cache in {known}, got {dtype}")


def kv_dtype(engine: str, name: str) -> str | None:
    """Ours for what an option says; None for `auto`, the checkpoint's. The name itself where it is not ours."""
    if name == "auto":
        return None
    also = {"fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "bfloat16": "bf16", "float16": "fp16", "half": "fp16"}
    for ours, names in KV_NAMES[engine].items():
        if name in names:
            return ours
    return also.get(name, name)


def weight_name(engine: str, dtype: str, *, own_checkpoint: bool) -> str | None:
    """The quantisation to make when loading; None where the named checkpoint already is of that dtype.

    Raises:
        InputError: `weight_dtype_support`: the engine cannot make that dtype itself.
    """
    name = WEIGHT_NAMES[engine].get(dtype)
    if own_checkpoint:
        return None
    if name is None:
        can = ", ".join(WEIGHT_NAMES[engine]) or "no dtype"
        raise InputError.single(
            "plan",
            f"weight_dtype_support: {engine} makes {can} of a checkpoint when it loads it, the plan has weights in "
            f"{dtype}: name a checkpoint that is stored so with --model",
        )
    return name
