"""Which storage dtypes the weights of a model have, as its checkpoint has them or as a study asks for."""

from __future__ import annotations

from costmodel.arch import Arch, WeightDtypes, stored_in


def weight_dtypes(arch: Arch, choice: str | None) -> WeightDtypes:
    """Dtypes by kind of matrix; `choice` is a dtype for all of them, None the checkpoint's own."""
    return stored_in(arch, choice).dtypes


def stored_dtypes(arch: Arch, choice: str | None) -> set[str]:
    """Dtypes of the matrices of all layers, embeddings and output head not counted."""
    return {dtype for group in stored_in(arch, choice).groups for _, dtype in group.block.dtypes}
