"""Groups of quantised integers along a matrix's input: a group shares a scale, and must lie on one rank whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from costmodel.arch import Arch
from costmodel.arch.block import ONE_RANK, Block, Shards
from costmodel.dtypes import integer_group

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def grouped_inputs(arch: Arch, whole: Collection[str] = ()) -> Iterator[tuple[Block, str, int]]:
    """Block, matrix and group of every matrix that stores integers in groups along its input.

    Weights of the kinds in `whole` are left out.
    """
    for block in (group.block for group in arch.groups):
        for matrix in block.matrices(arch.hidden_size, ONE_RANK):
            size = integer_group(block.dtype_of(matrix.name))
            if size and matrix.weights not in whole:
                yield block, matrix.name, size


def cuts_groups(arch: Arch, attn_tp: Ints, moe_tp: Ints, whole: Collection[str] = ()) -> Bools:
    """Whether shards of a matrix's input hold parts of groups of integers; weights of the kinds in `whole` are not cut.

    vLLM 0.33: `AutoAWQLinearMethod` ("The input size is not aligned with the quantized weight shape. This can be caused
    by too large tensor parallel size"), `verify_marlin_supports_shape`, `verify_group_size_divides_partition` of
    compressed-tensors' W4A16, and `CompressedTensorsWNA16MoEMethod` for experts. (Experts of AWQ and GPTQ fall back to
    kernels that halve the groups, which are not modelled.) SGLang 0.5.23: `awq_linear.py`, `marlin_utils.py`,
    `compressed_tensors_wNa16.py`. TensorRT-LLM: `W4A16_AWQ_LinearMethod` of tensorrt_llm/_torch/modules/linear.py.
    """
    shards = Shards(attn_tp=attn_tp.astype(np.float64), moe_tp=moe_tp.astype(np.float64))
    out = np.zeros(attn_tp.shape, dtype=bool)
    for block, matrix, size in grouped_inputs(arch, whole):
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
