"""Storage dtypes: bits, groups, scales and zero points of a weight, and the dtype that it is multiplied in.

A dtype is a name. Those of `BYTES_PER_WEIGHT` can be asked for; a checkpoint may store weights in others of the same
families: `int4_g32` has a scale for each 32 weights, `int4_g128z` a zero point beside it, `nvfp4_a16` is multiplied
with activations of 16 bits, `fp8_block64x64` has a scale for each block of that size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

SCALE_BYTES = 2.0
"""Of a group of integers: fp16 or bf16 (GPTQ, AWQ, compressed-tensors)."""
DEFAULT_GROUP = 128
"""Of 4-bit integers where a dtype names none, as GPTQ and AWQ checkpoints mostly have it."""

_PLAIN = {"fp32": 32, "bf16": 16, "fp16": 16}
_FLOATS: dict[str, tuple[int, int, float, str]] = {
    # OCP Microscaling 1.0: one E8M0 byte per 32 elements
    "mxfp8": (8, 32, 1.0, "fp8"),
    "mxfp6": (6, 32, 1.0, "bf16"),
    "mxfp4": (4, 32, 1.0, "fp4"),
    # one E4M3 byte per 16 elements (and one fp32 per tensor, neglected)
    "nvfp4": (4, 16, 1.0, "fp4"),
    # bitsandbytes: an fp32 per 64 elements; doubly quantised, a byte per 64 and an fp32 per 64 x 256
    "nf4": (4, 64, 4.0, "bf16"),
    "nf4_dq": (4, 64, 1.0 + 4.0 / 256, "bf16"),
    "fp8": (8, 0, 0.0, "fp8"),
}
"""Bits, elements to a scale, bytes of the scale, dtype that it is multiplied in."""
_NAME: re.Pattern[str] = re.compile(
    r"(?P<base>int[2-8]|fp8_block(?:(?P<rows>\d+)x(?P<columns>\d+))?|nf4_dq|nf4|mxfp[468]|nvfp4|fp8)"
    r"(?:_g(?P<group>\d+))?(?P<zero>z)?(?:_a(?P<activations>8|16))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How a weight is stored."""

    base: str
    """Family, as it can be asked for: `int4` of `int4_g32z`, `fp8_block` of `fp8_block64x64`."""
    bits: int
    bytes: float
    """Per weight, scales and zero points included."""
    group: int
    """Weights along the input of a matrix that share a scale; 0 where a tensor or a whole channel does."""
    group_rows: int = 1
    """Outputs of a matrix that share it (128 in blocks of 128 x 128)."""
    compute: str = "bf16"
    """Dtype that it is meant to be multiplied in."""


@lru_cache(maxsize=1024)
def storage(name: str) -> Storage:
    """What a dtype's name says.

    Raises:
        ValueError: no dtype is called so.
    """
    if name in _PLAIN:
        return Storage(base=name, bits=_PLAIN[name], bytes=_PLAIN[name] / 8, group=0)
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"a dtype must be one of {', '.join(BYTES_PER_WEIGHT)} or of their families, got {name!r}")
    base = match["base"]
    if base.startswith("fp8_block"):
        rows, columns = int(match["rows"] or 128), int(match["columns"] or 128)
        # one fp32 scale per block (DeepSeek-V3 technical report, section 3.3)
        return Storage(
            base="fp8_block", bits=8, bytes=1.0 + 4.0 / (rows * columns), group=columns, group_rows=rows, compute="fp8"
        )
    if base in _FLOATS:
        bits, group, scale, compute = _FLOATS[base]
        compute = "bf16" if match["activations"] == "16" else "fp8" if match["activations"] == "8" else compute
        return Storage(
            base=base, bits=bits, bytes=bits / 8 + (scale / group if group else 0.0), group=group, compute=compute
        )
    bits = int(base[3:])
    given = match["group"]
    group = int(given) if given else (0 if bits == 8 else DEFAULT_GROUP)
    extra = (SCALE_BYTES + (bits / 8 if match["zero"] else 0.0)) / group if group else 0.0
    # integers are multiplied as such only where activations are too: 8 bits, without groups (W8A8)
    own = bits == 8 and not group and match["activations"] != "16"
    compute = "fp8" if match["activations"] == "8" else "int8" if own else "bf16"
    return Storage(base=base, bits=bits, bytes=bits / 8 + extra, group=group, compute=compute)


_ASKED = ("fp32", "bf16", "fp16", "fp8", "fp8_block", "int8", "mxfp8", "mxfp4", "nvfp4", "int4")
BYTES_PER_WEIGHT: dict[str, float] = {}
"""Dtypes that can be asked for -> bytes per weight, scales included."""
BYTES_PER_WEIGHT.update({name: storage(name).bytes for name in _ASKED})
KV_BYTES: dict[str, float] = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "nvfp4": 0.5625}


def bytes_per_weight(name: str) -> float:
    """Bytes per weight of any dtype, scales and zero points included."""
    return storage(name).bytes


def kv_bytes(name: str) -> float:
    """Bytes per cached value."""
    return KV_BYTES[name]


def is_quantised(name: str) -> bool:
    """Whether weights stored so have less than 16 bits."""
    return storage(name).bits < 16


def is_same_precision(stored: str, asked: str) -> bool:
    """Whether weights that are `stored` so are what is asked for: `int4` names no group, `fp8` no blocks."""
    base = storage(stored).base
    return base == asked or (asked == "fp8" and base == "fp8_block")


def integer_group(name: str) -> int:
    """Weights along an input that share a scale, of integers whose dtype names a group; 0 for all others.

    `int4` alone, as it is asked for, leaves the group to whoever makes the checkpoint.
    """
    return storage(name).group if name.startswith("int") and "_g" in name else 0


def hardware_dtype(name: str) -> str:
    """Dtype that weights stored so are meant to be multiplied in."""
    return storage(name).compute


def compute_dtype(name: str, peaks: Mapping[str, float]) -> str:
    """Dtype that weights stored so are multiplied in: their own where the hardware has it, else bf16.

    `peaks` are the GPU's dense peaks by dtype. 4-bit integer weights are always widened to bf16 (W4A16).
    """
    wanted = hardware_dtype(name)
    return wanted if wanted in peaks else "bf16"
