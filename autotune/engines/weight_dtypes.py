"""Which storage dtypes the weights of a model have, as its checkpoint has them or as a study asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from costmodel.arch import Arch, WeightDtypes, stored_in


def weight_dtypes(arch: Arch, choice: str | None) -> WeightDtypes:
    """Dtypes by kind of matrix; `choice` is a dtype for all of them, None the checkpoint's own."""
    return stored_in(arch, choice).dtypes


def stored_dtypes(arch: Arch, choice: str | None) -> set[str]:
    """Dtypes of the matrices of all layers, embeddings and output head not counted."""
    return {dtype for group in stored_in(arch, choice).groups for _, dtype in group.block.dtypes}


def lacking_dtype(arch: Arch, choices: Sequence[str | None], lacks: Callable[[str], bool]) -> str | None:
    """A storage dtype that keeps an engine from serving the model; None where one of the choices has none such.

    `choices`: as `weight_dtypes` takes them; `lacks`: whether the engine has no kernels for weights in a dtype.
    """
    found = [min((d for d in stored_dtypes(arch, choice) if lacks(d)), default=None) for choice in choices]
    return None if None in found else found[0]
