"""A checkpoint on disk: its config.json, how its weights are stored, and how large its files say that they are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from costmodel.arch.arch import Arch
from costmodel.arch.config.read import read_config
from costmodel.arch.weights import weight_bytes
from costmodel.errors import InputError, Problem
from costmodel.files import read_file

MAX_CONFIG_BYTES = 10_000_000
MAX_INDEX_BYTES = 100_000_000
CONFIGS = ("config.json", "params.json")
"""What a folder's config is called, best first."""
INDEX = "model.safetensors.index.json"
NOTICED = 0.02
"""Difference from the size of the files that is said."""


def read_config_file(path: Path, *, approximate: bool = False) -> Arch:
    """Read a config.json, a params.json of Mistral's, or the folder that one lies in.

    A `hf_quant_config.json` beside it goes before what the file says of quantisation itself, and the size that a
    `model.safetensors.index.json` beside it states is held against the model's.

    Raises:
        InputError: naming the file, where there is none or it cannot be understood.
    """
    said: list[str] = []
    path, config, name = _checkpoint(path, said)
    try:
        arch = read_config(config, name=name, approximate=approximate)
    except InputError as error:
        raise InputError(Problem(path=f"{path}:{p.path}", message=p.message) for p in error.problems) from error
    said += _size_difference(path, arch)
    return replace(arch, assumptions=(*arch.assumptions, *said)) if said else arch


def checkpoint_config(path: Path) -> tuple[dict[str, Any], str]:
    """The content of a config.json with what lies beside it, and the model's name, for a file that stands alone.

    Raises:
        InputError: as `read_config_file`.
    """
    _, config, name = _checkpoint(path, [])
    return config, name


def _checkpoint(path: Path, said: list[str]) -> tuple[Path, dict[str, Any], str]:
    """The file itself, its content with the settings of quantisation beside it, and the model's name."""
    if os.path.isdir(path):  # also of a name that is too long for one
        path = _config_of(path)
    config = _read_object(path, MAX_CONFIG_BYTES)
    given = config.get("_name_or_path")
    name = given if isinstance(given, str) and given else path.name.removesuffix(".json").removesuffix("_config")
    if name in ("config", "params"):
        name = path.resolve().parent.name
    return path, _with_quantization(path, config, said), name


def _config_of(folder: Path) -> Path:
    for name in CONFIGS:
        if (folder / name).is_file():
            return folder / name
    raise InputError.single(str(folder), f"must hold a {' or a '.join(CONFIGS)}, got a folder without")


def _read_object(path: Path, limit: int) -> dict[str, Any]:
    try:
        value = json.loads(read_file(path, limit).decode("utf-8-sig"))
    except InputError:
        raise
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError.single(str(path), f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError.single(str(path), f"must hold a JSON object, got {type(value).__name__}")
    return value


def _beside(path: Path, name: str) -> Path | None:
    """A file of this name in the same folder; of `x_config.json` also `x_<name>`."""
    stem = path.name.removesuffix("config.json") if path.name.endswith("config.json") else ""
    found = [path.with_name(stem + name), *([] if stem else [path.with_name(name)])]
    return next((f for f in found if f.is_file()), None)


def _with_quantization(path: Path, config: dict[str, Any], said: list[str]) -> dict[str, Any]:
    """The config with the settings of the hf_quant_config.json beside it, where there is one."""
    beside = _beside(path, "hf_quant_config.json")
    if beside is None:
        return config
    document = _read_object(beside, MAX_CONFIG_BYTES)
    table = document.get("quantization", document)
    if not isinstance(table, Mapping):
        raise InputError.single(str(beside), f"quantization must be an object, got {table!r:.80}")
    if not table.get("quant_algo") and not table.get("quantized_layers"):
        return config
    inner = config.get("quantization_config")
    nested = next((v for v in config.values() if isinstance(v, Mapping) and v.get("quantization_config")), {})
    own = inner if isinstance(inner, Mapping) else nested.get("quantization_config")
    settings = dict(table)
    if isinstance(own, Mapping):
        over_fp8 = own.get("quant_method") == "fp8" and table.get("quantized_layers")
        if over_fp8:  # experts in FP4 over a checkpoint in FP8: what is not listed is as the config says
            settings = {**own, **table, "quant_method": "fp8"}
        elif _says_otherwise(own, table):
            said.append(
                f"model: {beside.name} ({table.get('quant_algo')}) goes before the quantisation of {path.name} "
                f"({own.get('quant_algo') or own.get('quant_method')})"
            )
    return quantised_as(config, settings)


def quantised_as(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A config with these settings of quantisation instead of its own, wherever it has them."""
    cleared = {
        k: {n: x for n, x in v.items() if n != "quantization_config"} if isinstance(v, Mapping) else v
        for k, v in config.items()
    }
    return {**cleared, "quantization_config": {"quant_method": "modelopt", **settings}}


def _says_otherwise(own: Mapping[str, Any], table: Mapping[str, Any]) -> bool:
    mine, theirs = (str(t.get("quant_algo") or t.get("quant_method") or "").upper() for t in (own, table))
    return mine not in (theirs, "MODELOPT")


def _size_difference(path: Path, arch: Arch) -> list[str]:
    """What the index of the checkpoint's files says of their size, where it differs from the model's."""
    beside = _beside(path, INDEX)
    if beside is None:
        return []
    metadata = _read_object(beside, MAX_INDEX_BYTES).get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    if isinstance(total, bool) or not isinstance(total, int | float) or not 0 < total < 1e16:
        return []
    counted = weight_bytes(arch)
    off = counted / total - 1.0
    if abs(off) <= NOTICED:
        return []
    said = f"model: {counted / 1e9:,.1f} GB are counted where {beside.name} states {total / 1e9:,.1f} GB ({off:+.1%})"
    return [f"{said}: other towers, multi-token-prediction modules, or weights that are stored otherwise"]
