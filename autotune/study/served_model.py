"""Whether what runs serves the study's model, and how its checkpoint stores the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from costmodel.arch import Arch, load_model, with_dtypes
from costmodel.arch.block import HEAD
from costmodel.arch.catalog import GUESSED, find_model
from costmodel.arch.weights import weight_bytes, weight_groups
from costmodel.dtypes import BYTES_PER_WEIGHT
from costmodel.errors import InputError

OF_THE_VOCABULARY = ("embedding", "side_embedding", HEAD)
"""Weights that may differ between checkpoints of one model: vocabularies are padded and extended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """What the name of a model in a command says beside the study's own model."""

    dtype: str | None = None
    """Storage dtype of its weights where the checkpoint differs from the study's, the nearest one where its modules
    differ; None: it does not, or is not known.
    """
    kv_dtype: str | None = None
    """The same of the KV cache that it asks for."""
    said: tuple[str, ...] = ()
    """What was assumed."""


def served_model(name: str, arch: Arch) -> ServedModel:
    """A model of a command, by its name, beside the one of the study.

    Raises:
        InputError: it is another model, and no path whose last part only happens to be called so.
    """
    if name == arch.name:
        return ServedModel()
    taken = f"model {name!r} taken for the study's, {arch.name}"
    if find_model(name) is None:
        return ServedModel(said=(f"{taken}: its name is not known",))
    served = load_model(name)
    if _shape(served) != _shape(arch):
        if name.startswith(("/", ".", "~")) or "://" in name or Path(name).exists():
            return ServedModel(said=(f"{taken}: by its name it would be another",))
        raise InputError.single(
            "model", f"must be the study's, {arch.name}: what runs serves {name}. Ask with a study of that model"
        )
    guessed = tuple(text for text in served.assumptions if text.startswith(GUESSED))
    kv, kv_said = None, ""
    if served.kv_dtype != arch.kv_dtype:
        kv, kv_said = served.kv_dtype, f", with a KV cache in {served.kv_dtype}"
    if served.layers == arch.layers:
        return ServedModel(kv_dtype=kv, said=(f"{taken}{kv_said}", *guessed))
    size = weight_bytes(served)
    kinds = {dtype: with_dtypes(arch, gemm_dtype=dtype, moe_dtype=dtype) for dtype in BYTES_PER_WEIGHT}
    dtype = next((name for name, kind in kinds.items() if kind.layers == served.layers), None)
    if dtype is not None:
        return ServedModel(dtype=dtype, kv_dtype=kv, said=(f"{taken}, with weights in {dtype}{kv_said}", *guessed))
    sizes = {name: weight_bytes(kind) for name, kind in kinds.items()}
    dtype = min(sizes, key=lambda name: abs(sizes[name] - size))
    said = f"{taken}, with weights in {dtype} ({sizes[dtype] / 1e9:,.1f} GB where its own are {size / 1e9:,.1f} GB)"
    return ServedModel(dtype=dtype, kv_dtype=kv, said=(f"{said}{kv_said}: name it as the study's model", *guessed))


def _shape(arch: Arch) -> tuple[int, int, dict[str, int]]:
    """What tells models apart: width, layers, and parameters by kind, however they are stored."""
    params: dict[str, int] = {}
    for group in weight_groups(arch):
        if group.kind not in OF_THE_VOCABULARY:
            params[group.kind] = params.get(group.kind, 0) + group.params
    return arch.hidden_size, arch.num_hidden_layers, params
