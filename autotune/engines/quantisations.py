"""What the quantisation that a server is told means for the checkpoint that the cost model prices."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from costmodel.arch import Arch
from costmodel.arch.weights import checkpoint_dtype
from costmodel.dtypes import is_quantised, storage

NONE = ("none", "unquant")
"""Values that ask for the checkpoint as it is."""
_FP8, _INT4 = ("fp8", "fp8_block"), ("int4",)
STORED_AS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("awq", "awq-marlin", "marlin", "qoq", "w4afp8"), _INT4),
    **dict.fromkeys(("gptq", "gptq-marlin"), ("int2", "int3", "int4", "int5", "int6", "int7", "int8")),
    **dict.fromkeys(("fp8", "fbgemm-fp8", "modelopt", "modelopt-fp8", "w8a8-fp8"), _FP8),
    **dict.fromkeys(("modelopt-fp4", "petit-nvfp4"), ("nvfp4",)),
    "moe-wna16": ("int4", "int8"),
    "w8a8-int8": ("int8",),
    "mxfp4": ("mxfp4",),
    "mxfp8": ("mxfp8",),
    "bitsandbytes": ("nf4", "nf4_dq", "int8"),
    "gguf": (),
}
"""Method -> families of dtypes in which a checkpoint that it reads stores its weights. Of others it may be any."""


def is_priced(method: str, made: Collection[str], arch: Arch, dtype: str | None) -> bool:
    """Whether weights under a method of quantisation are those that the cost model has.

    Args:
        method: the option's value.
        made: values of the option that make a dtype of ours of a checkpoint in 16 bits.
        arch: the model, its weights as the checkpoint stores them.
        dtype: in which the checkpoint that is served stores them where that is another; None: as `arch`.
    """
    stored, named = dtype or checkpoint_dtype(arch), method.lower()
    if named in NONE:
        return True
    if not is_quantised(stored):
        return named in made
    families = STORED_AS.get(named.replace("_", "-"))
    return families is None or storage(stored).base in families
