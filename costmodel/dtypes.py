"""Storage dtypes: bytes per weight, scales included, and the dtype a weight is multiplied in."""

from __future__ import annotations

from collections.abc import Mapping

BYTES_PER_WEIGHT: dict[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    # one fp32 scale per 128 x 128 block (DeepSeek-V3 technical report, section 3.3)
    "fp8_block": 1.0 + 4.0 / (128 * 128),
    "int8": 1.0,
    # OCP Microscaling 1.0: one E8M0 byte per 32 elements
    "mxfp8": 1.0 + 1.0 / 32,
    "mxfp4": 0.5 + 1.0 / 32,
    # NVFP4: one E4M3 byte per 16 elements (and one fp32 per tensor, neglected)
    "nvfp4": 0.5 + 1.0 / 16,
    # group size 128: one fp16 scale per group (GPTQ, AWQ, compressed-tensors)
    "int4": 0.5 + 2.0 / 128,
}

KV_BYTES: dict[str, float] = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "nvfp4": 0.5625}

_COMPUTE = {
    "fp8": "fp8",
    "fp8_block": "fp8",
    "mxfp8": "fp8",
    "int8": "int8",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
}


def hardware_dtype(storage: str) -> str:
    """Dtype that weights stored as `storage` are meant to be multiplied in."""
    return _COMPUTE.get(storage, "bf16")


def compute_dtype(storage: str, peaks: Mapping[str, float]) -> str:
    """Dtype that weights stored as `storage` are multiplied in: their own where the hardware has it, else bf16.

    `peaks` are the GPU's dense peaks by dtype. 4-bit integer weights are always widened to bf16 (W4A16).
    """
    wanted = hardware_dtype(storage)
    return wanted if wanted in peaks else "bf16"
