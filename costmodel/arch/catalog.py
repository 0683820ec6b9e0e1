"""Models by name: facts of published config.json files, shipped with the package."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

from costmodel.arch.arch import Arch, Layer
from costmodel.arch.block import ATTENTION, DENSE, EXPERTS, SHARED, B, Matrix
from costmodel.arch.config.checkpoint import quantised_as
from costmodel.arch.config.module_names import is_plain_always
from costmodel.arch.config.read import read_config
from costmodel.arch.weights import checkpoint_dtype, weight_bytes
from costmodel.dtypes import is_quantised, is_same_precision
from costmodel.errors import InputError

_DATA = files("costmodel.arch") / "catalog_data"
_SUFFIX_DTYPES = {
    **dict.fromkeys(("fp8", "fp8-dynamic"), "fp8"),
    **dict.fromkeys(("fp4", "nvfp4"), "nvfp4"),
    "mxfp4": "mxfp4",
    **dict.fromkeys(("awq", "gptq", "gptq-int4", "int4", "w4a16", "quantized.w4a16"), "int4"),
    **dict.fromkeys(("w8a8", "int8"), "int8"),
    "bf16": "bf16",
}
GUESSED = "quantisation guessed by the name: "
"""How it is said that nothing is known of a checkpoint's quantisation but what its name says."""
QUANTISED = "quantization_config"
_SAME = r"(-(instruct|base|it|hf|chat|thinking|v0\.1|v0\.3|\d{4}|v\d))+$"


def model_names() -> tuple[str, ...]:
    """Names of the catalog, `org/model`, sorted."""
    return tuple(
        sorted(
            entry.name.removesuffix(".json").replace("--", "/")
            for entry in _DATA.iterdir()
            if entry.name.endswith(".json")
        )
    )


@lru_cache(maxsize=1)
def _aliases() -> dict[str, dict[str, Any]]:
    return tomllib.loads((_DATA / "aliases.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _index() -> dict[str, str]:
    """Lower-case keys a user may write -> the model's name on the hub; exact names win over shortened ones."""
    names = (*model_names(), *_aliases()["same_config"])
    index: dict[str, str] = {}
    for name in names:
        index.setdefault(_simple(name), name)
    index.update(_aliases()["short"])
    for name in names:
        index[_short(name)] = name
    return index


def _entry(name: str) -> tuple[str, dict[str, Any]]:
    """The catalog's model that one on the hub is like, and the fields of its config that differ."""
    like = _aliases()["same_config"].get(name, name)
    return (like, {}) if isinstance(like, str) else (like["of"], {k: v for k, v in like.items() if k != "of"})


def short_names() -> dict[str, tuple[str, ...]]:
    """Catalog name -> what may be written for it, shortest first."""
    found: dict[str, list[str]] = {name: [] for name in model_names()}
    for key, name in _index().items():
        found[_entry(name)[0]].append(key)
    return {name: tuple(sorted(keys, key=lambda k: (len(k), k))) for name, keys in found.items()}


def _short(name: str) -> str:
    """Without the organisation, lower case."""
    return re.split(r"/|--", name.strip().lower())[-1].removesuffix(".json").removesuffix("_config")


def _simple(name: str) -> str:
    """Also without what does not change the architecture."""
    short = _short(name).removeprefix("meta-")
    return re.sub(_SAME, "", short)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a model's name means."""

    catalog: str
    """The model of the catalog whose config it has."""
    hub: str | None
    """Its name on the Hugging Face hub; None: it is a variant of the catalog's whose name nobody gave."""
    changes: Mapping[str, Any]
    """Fields of its config that differ from the catalog's."""
    dtype: str | None = None
    """Of its weights, as a quantised repack's suffix says; None: the catalog's."""


def find_model(name: str) -> Found | None:
    """What a name means, or None when it is unknown. A name with an organisation is the hub's, whoever made it."""
    index, short = _index(), _short(name)
    given = name.strip() if "/" in name.strip("/") else None
    for key in (short, short.removeprefix("meta-"), _simple(name)):
        if key in index:
            known, exact = index[key], key in (short, short.removeprefix("meta-"))
            catalog, changes = _entry(known)
            hub = known if exact and (given is None or given.lower() == known.lower()) else given
            return Found(catalog=catalog, hub=hub, changes=changes)
    for suffix in sorted(_SUFFIX_DTYPES, key=len, reverse=True):
        if short.endswith("-" + suffix):
            found = find_model(short[: -len(suffix) - 1])
            return None if found is None else replace(found, hub=given, dtype=_SUFFIX_DTYPES[suffix])
    return None


def load_model(name: str) -> Arch:
    """Architecture of a model of the catalog, or of one with the same config; its name is the hub's where that is
    known, else as it is given.

    Raises:
        InputError: unknown name; lists the nearest ones and how else to give a model.
    """
    found = find_model(name)
    if found is None:
        near = difflib.get_close_matches(_simple(name), [_simple(n) for n in model_names()], n=3, cutoff=0.5)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise InputError.single(
            "model",
            f"{name!r} is not in the catalog{hint}. Give the path of its config.json; `autotune validate` "
            "and `calibrate` take a folder of them with --models",
        )
    config = json.loads((_DATA / (found.catalog.replace("/", "--") + ".json")).read_text(encoding="utf-8"))
    config |= {field: value for field, value in found.changes.items() if field != QUANTISED}
    if QUANTISED in found.changes:
        config = quantised_as(config, found.changes[QUANTISED])
    arch = read_config(config, name=found.hub or name.strip())
    said = [] if arch.name == found.catalog else [f"config of {arch.name} taken to be that of {found.catalog}"]
    if QUANTISED in found.changes and found.hub not in _aliases()["same_config"]:
        said.append(f"{GUESSED}{arch.name} taken to be quantised as the published checkpoint that is called so")
    stored = stored_in(arch, found.dtype)
    if stored.layers != arch.layers and is_quantised(str(found.dtype)):
        said.append(
            f"{GUESSED}{arch.name} taken to hold {found.dtype} in all layers, and a KV cache in {stored.kv_dtype}; "
            "what its makers left in 16 bits and which cache they ask for stands in the folder with its config.json"
        )
    return replace(stored, assumptions=(*arch.assumptions, *said))


@lru_cache(maxsize=256)
def stored_in(arch: Arch, dtype: str | None) -> Arch:
    """The architecture with all its weights in one dtype; as its checkpoint has them where that is said to be of the
    dtype already, whose makers leave some matrices in 16 bits, and where it is None.
    """
    if dtype is None or is_same_precision(checkpoint_dtype(arch), dtype):
        return arch
    return with_dtypes(arch, gemm_dtype=dtype, moe_dtype=dtype)


def stored_dtypes(arch: Arch, dtype: str | None) -> set[str]:
    """Dtypes of the matrices of all layers of `stored_in`, embeddings and output head not counted."""
    return {own for group in stored_in(arch, dtype).groups for _, own in group.block.dtypes}


def least_weight_bytes(arch: Arch, dtypes: Sequence[str | None]) -> float:
    """Bytes of the weights in the one of some dtypes (None: as the checkpoint has them) that takes the least."""
    return min(weight_bytes(stored_in(arch, dtype)) for dtype in dtypes)


def with_dtypes(
    arch: Arch, *, gemm_dtype: str | None = None, moe_dtype: str | None = None, kv_dtype: str | None = None
) -> Arch:
    """The same architecture with other storage dtypes; LM head, embedding, routers and convolutions stay.

    `gemm_dtype` sets attention, dense and shared networks; `moe_dtype` the routed experts. Weights that are stored in
    a form of what is asked for stay as they are: `int4` leaves groups of 32, `fp8` leaves blocks.
    """
    asked = {ATTENTION: gemm_dtype, DENSE: gemm_dtype, SHARED: gemm_dtype, EXPERTS: moe_dtype}

    def change(block: B) -> B:
        def chosen(m: Matrix) -> str:
            stored, wanted = block.dtype_of(m.name), asked.get(m.weights)
            kept = wanted is None or is_plain_always(block, m.name) or is_same_precision(stored, wanted)
            return stored if kept else str(wanted)

        return block.with_dtypes(chosen)

    known: dict[Layer, Layer] = {}
    for layer in arch.layers:
        if layer not in known:
            known[layer] = replace(
                layer, attention=tuple(change(b) for b in layer.attention), ffn=tuple(change(b) for b in layer.ffn)
            )
    layers = tuple(known[layer] for layer in arch.layers)
    return replace(arch, layers=layers, kv_dtype=kv_dtype or arch.kv_dtype)
