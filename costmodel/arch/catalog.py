"""Models by name: facts of published config.json files, shipped with the package."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files

from costmodel.arch.arch import Arch, Layer
from costmodel.arch.block import ATTENTION, DENSE, EXPERTS, SHARED, B, Matrix
from costmodel.arch.config.module_names import is_plain_always
from costmodel.arch.config.read import read_config
from costmodel.dtypes import is_same_precision
from costmodel.errors import InputError

_DATA = files("costmodel.arch") / "catalog_data"
_SUFFIX_DTYPES = {
    "fp8": "fp8",
    "fp4": "nvfp4",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "awq": "int4",
    "gptq": "int4",
    "gptq-int4": "int4",
    "int4": "int4",
    "w4a16": "int4",
    "quantized.w4a16": "int4",
    "fp8-dynamic": "fp8",
    "w8a8": "int8",
    "int8": "int8",
    "bf16": "bf16",
}
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
def _index() -> dict[str, str]:
    """Lower-case keys a user may write -> catalog name; exact names win over shortened ones."""
    names = model_names()
    index: dict[str, str] = {}
    for name in names:
        index.setdefault(_simple(name), name)
    index.update(tomllib.loads((_DATA / "aliases.toml").read_text(encoding="utf-8")))
    for name in names:
        index[_short(name)] = name
    return index


def short_names() -> dict[str, tuple[str, ...]]:
    """Catalog name -> what may be written for it, shortest first."""
    found: dict[str, list[str]] = {name: [] for name in model_names()}
    for key, name in _index().items():
        found[name].append(key)
    return {name: tuple(sorted(keys, key=lambda k: (len(k), k))) for name, keys in found.items()}


def _short(name: str) -> str:
    """Without the organisation, lower case."""
    return re.split(r"/|--", name.strip().lower())[-1].removesuffix(".json").removesuffix("_config")


def _simple(name: str) -> str:
    """Also without what does not change the architecture."""
    short = _short(name).removeprefix("meta-")
    return re.sub(_SAME, "", short)


def find_model(name: str) -> tuple[str, str | None] | None:
    """Catalog name and the dtype that a quantised repack's suffix names, or None when unknown."""
    index = _index()
    for key in (_short(name), _short(name).removeprefix("meta-"), _simple(name)):
        if key in index:
            return index[key], None
    for suffix in sorted(_SUFFIX_DTYPES, key=len, reverse=True):
        if _short(name).endswith("-" + suffix):
            found = find_model(_short(name)[: -len(suffix) - 1])
            return None if found is None else (found[0], _SUFFIX_DTYPES[suffix])
    return None


def load_model(name: str) -> Arch:
    """Architecture of a model of the catalog.

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
    known, dtype = found
    config = json.loads((_DATA / (known.replace("/", "--") + ".json")).read_text(encoding="utf-8"))
    arch = read_config(config, name=known)
    return arch if dtype is None else with_dtypes(arch, gemm_dtype=dtype, moe_dtype=dtype)


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
                layer,
                attention=tuple(change(b) for b in layer.attention),
                ffn=tuple(change(b) for b in layer.ffn),
            )
    layers = tuple(known[layer] for layer in arch.layers)
    return replace(arch, layers=layers, kv_dtype=kv_dtype or arch.kv_dtype)
