"""What single entries of quantisation settings say of a weight: the dtype's name (`costmodel.dtypes`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLAIN = "plain"
"""Not quantised: whatever the rest of the checkpoint is stored in."""
UNSAID = "unsaid"
"""Stands for a file that says nothing of activations."""

_SPELLINGS = {
    "nvfp4": ("NVFP4", "NVFP4_AWQ", "NVFP4_SVD", "W4A4_NVFP4"),
    "nvfp4_a16": ("W4A16_NVFP4",),
    "nvfp4_a8": ("W4A8_NVFP4_FP8",),
    "fp8": ("FP8", "FP8_PER_CHANNEL_PER_TOKEN"),
    "fp8_block": ("FP8_PB", "FP8_PB_WO", "FP8_PB_REAL"),
    "mxfp8": ("MXFP8",),
    "mxfp4": ("MXFP4",),
    "mxfp4_a8": ("W4A8_MXFP4_FP8",),
    "mxfp4_a16": ("W4A16_MXFP4",),
    "int4": ("INT4_AWQ", "W4A16_AWQ", "W4A16"),
    "int4_a8": ("W4A8_AWQ",),
    "int8_a16": ("W8A16",),
    "int8": ("INT8_SQ", "INT8", "W8A8_SQ_PER_CHANNEL"),
    PLAIN: ("NONE",),
}
MODELOPT = {algorithm: dtype for dtype, algorithms in _SPELLINGS.items() for algorithm in algorithms}
"""`quant_algo` of NVIDIA's Model Optimizer."""


def modelopt_dtype(algorithm: object, group: object = None) -> str | None:
    """Of one `quant_algo`, with its `group_size` where it is of integers; None for one that is not known."""
    name = MODELOPT.get(str(algorithm or "NONE").upper())
    if name is not None and name.startswith("int4") and type(group) is int and group > 0:
        return integers(4, group, zero=False) + name[len("int4") :]
    return name


def integers(bits: int, group: int, *, zero: bool, weight_only: bool = True) -> str:
    """Whole numbers with a scale for each `group` of them (0: for each channel), and a zero point beside it."""
    grouped = f"_g{group}" if group or bits != 8 else ""
    alone = "_a16" if bits == 8 and not group and weight_only else ""
    return f"int{bits}{grouped}{'z' if zero else ''}{alone}"


def _size(value: object) -> int:
    """A group size: -1 and None stand for a whole channel."""
    return value if type(value) is int and 0 < value <= 1_000_000 else 0


def compressed_tensors_dtype(weights: Mapping[str, Any], inputs: object) -> str | None:
    """Of one group's `weights`, with its `input_activations`; None where there is no such format.

    Floats of 4 bits are multiplied as such unless the file says that their activations are of other bits, or not
    quantised (None).
    """
    bits, kind, group = weights.get("num_bits"), weights.get("type", "int"), _size(weights.get("group_size"))
    activations = inputs.get("num_bits") if isinstance(inputs, Mapping) else 4 if inputs == UNSAID else None
    if bits == 8 and kind == "float":
        if group == 32:
            return "mxfp8"
        block = weights.get("block_structure")
        if isinstance(block, list) and len(block) == 2 and all(type(b) is int and 0 < b <= 65_536 for b in block):
            return fp8_blocks(block[0], block[1])
        return "fp8_block" if weights.get("strategy") == "block" else "fp8"
    if bits == 4 and kind == "float":
        return _beside("mxfp4" if group == 32 else "nvfp4", activations)
    if type(bits) is int and 2 <= bits <= 8 and kind == "int":
        asymmetric = weights.get("symmetric") is False
        if bits == 8 and activations in (4, 8) and not group:
            return "int8"
        name = integers(bits, group, zero=asymmetric)
        return f"{name}_a8" if activations == 8 and bits < 8 else name
    return None


def _beside(name: str, activation_bits: object) -> str:
    """Floats of 4 bits that are multiplied with activations of so many; None: of 16."""
    return name if activation_bits == 4 else f"{name}_a8" if activation_bits == 8 else f"{name}_a16"


def fp8_blocks(rows: int, columns: int) -> str:
    """FP8 with a scale for each block."""
    return "fp8_block" if (rows, columns) == (128, 128) else f"fp8_block{rows}x{columns}"


def quark_dtype(weight: object, inputs: object) -> str | None:
    """Of Quark's `weight`, a table or several of them one over the other, with its `input_tensors`."""
    if isinstance(weight, list):
        weight = next((w for w in weight if isinstance(w, Mapping)), None)
    if weight is None:
        return PLAIN
    if not isinstance(weight, Mapping):
        return None
    kind, group, scheme = str(weight.get("dtype", "")).lower(), _size(weight.get("group_size")), weight.get("qscheme")
    if isinstance(inputs, list):
        inputs = next((i for i in inputs if isinstance(i, Mapping)), None)
    activations = str(inputs.get("dtype", "")).lower() if isinstance(inputs, Mapping) else ""
    if kind.startswith("fp8"):
        if group == 32:
            return "mxfp8"
        return "fp8_block" if scheme == "per_block" else "fp8"
    if kind.startswith(("fp4", "mxfp4")):
        bits = next((b for b in (4, 8) if str(b) in activations), None)
        return _beside("nvfp4" if group == 16 else "mxfp4", bits)
    if kind.startswith(("fp6", "mxfp6")):
        return "mxfp6"
    if kind.startswith(("int4", "uint4", "int2", "uint2", "int3", "uint3")):
        bits = int(kind.lstrip("uint")[0])
        return integers(bits, group if scheme == "per_group" else 0, zero=kind.startswith("u"))
    if kind.startswith(("int8", "uint8")):
        return "int8" if "int8" in activations and not group else integers(8, group, zero=False)
    return {"bfloat16": PLAIN, "float16": PLAIN, "": PLAIN}.get(kind)


def torchao_dtype(kind: object) -> str | None:
    """Of a torchao setting: the old names (`int4_weight_only`), or a table with `_type` and `_data`."""
    data: Mapping[str, Any] = {}
    name = kind
    if isinstance(kind, Mapping):
        inner = kind.get("_data")
        data = inner if isinstance(inner, Mapping) else {}
        name = kind.get("_type")
    text = str(name or "").lower().replace("_", "").removesuffix("config")
    group = _size(data.get("group_size")) or 128
    if "nvfp4" in text:
        return "nvfp4"
    if "mxfp" in text or text.startswith("mx"):
        return "mxfp4" if "float4" in str(data) else "mxfp8"
    if "float8" in text and "int4" in text:
        return f"int4_g{group}_a8"
    if "float8" in text:
        return "fp8"
    if "int8dynamicactivationint4" in text:
        return f"int4_g{_size(data.get('group_size')) or 32}_a8"
    if "int8dynamicactivationint8" in text:
        return "int8"
    if "int4weightonly" in text or "uintxweightonly" in text:
        return f"int4_g{group}z"
    if "int8weightonly" in text:
        return "int8_a16"
    return None


def integer_dtype(values: Mapping[str, Any], bits: int) -> str:
    """Of the settings of GPTQ, AWQ or AutoRound with weights of so many bits."""
    if bits >= 16:
        return PLAIN
    group = values.get("group_size", values.get("q_group_size", 128))
    # AWQ has zero points unless it says otherwise; GPTQ and AutoRound are symmetric unless they say otherwise
    asymmetric = "awq" in str(values.get("quant_method", "")).lower() if "sym" not in values else values["sym"] is False
    zero = values.get("zero_point", asymmetric) is True
    return integers(bits, group if type(group) is int and 0 < group <= 1_000_000 else 0, zero=zero)


def auto_round_dtype(values: Mapping[str, Any]) -> str | None:
    """AutoRound's formats that are no integers: `data_type` names them."""
    kind = str(values.get("data_type") or values.get("data-type") or "").lower()
    activations = values.get("act_bits")
    if kind.startswith(("mx_fp", "mx_fp4", "mxfp")):
        wide = values.get("bits") == 8
        return "mxfp8" if wide else "mxfp4" if activations == 4 else "mxfp4_a16"
    if kind.startswith(("nv_fp", "nvfp", "fp4")):
        return "nvfp4" if activations == 4 else "nvfp4_a16"
    if kind.startswith("fp") and values.get("bits") == 8:
        return "fp8"
    return None
