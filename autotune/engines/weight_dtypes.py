"""Which storage dtypes the weights of a model have, as its checkpoint has them or as a study asks for."""

from __future__ import annotations

from costmodel.arch import Arch, WeightDtypes, with_dtypes


def weight_dtypes(arch: Arch, choice: str | None) -> WeightDtypes:
    """Dtypes by kind of matrix; `choice` is a dtype for all of them, None the checkpoint's own."""
    return (arch if choice is None else with_dtypes(arch, gemm_dtype=choice, moe_dtype=choice)).dtypes


def stored_dtypes(arch: Arch, choice: str | None) -> set[str]:
    """Dtypes of the matrices that the model has, embeddings and output head not counted."""
    dtypes = weight_dtypes(arch, choice)
    experts = {dtypes.experts, dtypes.shared_experts} if arch.is_moe else set()
    return {dtypes.attention, *experts, *({dtypes.dense_ffn} if arch.intermediate_size else set())}
