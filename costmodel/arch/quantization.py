"""Quantisation settings of a checkpoint: which groups of weights are stored in which dtype."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from costmodel.arch.arch import WeightDtypes
from costmodel.arch.fields import Fields

_PROBES = {
    "attention": "model.layers.5.self_attn.q_proj",
    "dense_ffn": "model.layers.5.mlp.down_proj",
    "experts": "model.layers.5.mlp.experts.0.down_proj",
    "shared_experts": "model.layers.5.mlp.shared_experts.down_proj",
    "lm_head": "lm_head",
}
"""A module name of each group, to be matched against the exclusions."""


def read_quantization(fields: Fields, plain: str) -> tuple[WeightDtypes, int]:
    """Weight dtypes and block size (0: none) of a config; `plain` is what is not quantised.

    Routers, norms and embeddings stay in `plain` in every format; the LM head does unless the format says so.
    """
    unquantised = WeightDtypes(
        attention=plain, dense_ffn=plain, experts=plain, shared_experts=plain, embedding=plain, lm_head=plain
    )
    table = fields.table("quantization_config")
    if not table:
        return unquantised, 0
    quant = Fields(table, f"{fields.path}.quantization_config", fields.problems)
    excluded = [
        str(x)
        for key in ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers")
        for x in (quant.items(key) or [])
    ]
    # GPTQ: modules that `dynamic` marks with a minus are left as they are
    excluded += [f"re:{key[2:]}" for key in (quant.table("dynamic") or {}) if str(key).startswith("-:")]
    several = _several_schemes(quant)
    dtype, block = _dtype(quant) if several is None else ("", max(b for _, _, b in several))
    if dtype is None:
        return unquantised, 0

    def stored(module: str) -> str:
        if _is_excluded(module, excluded):
            return plain
        return dtype if several is None else next((d for t, d, _ in several if _is_target(module, t)), plain)

    chosen = {group: plain if group == "lm_head" else stored(module) for group, module in _PROBES.items()}
    return WeightDtypes(**chosen, embedding=plain), block


def _is_excluded(module: str, excluded: list[str]) -> bool:
    """Whether an exclusion covers the whole group, not just one layer of it.

    Lists name modules in full, by a tail (`lm_head`), with `*`, or as `re:` patterns. A list that names layers
    one by one counts only if it names the probed layer's module.
    """
    for entry in excluded:
        if entry.startswith("re:"):
            if _matches(entry[3:], module):
                return True
            continue
        pattern = re.escape(entry).replace(r"\*", ".*")
        if re.search(rf"(^|\.){pattern}(\.|$)", module):
            return True
    return False


def _is_target(module: str, targets: list[str]) -> bool:
    """Whether a group of compressed-tensors covers a module: by class, or by name."""
    return "Linear" in targets or _is_excluded(module, targets)


def _several_schemes(quant: Fields) -> list[tuple[list[str], str, int]] | None:
    """Targets, dtype and block of each group of weights, where a checkpoint has several; else None."""
    groups = quant.values.get("config_groups")
    if not isinstance(groups, Mapping):
        return None
    found = []
    for name, group in groups.items():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            dtype, block = _scheme(quant, f"config_groups.{name}.weights", weights)
            targets = group.get("targets")
            named = [str(t) for t in targets] if isinstance(targets, list) else ["Linear"]
            found.append((named, dtype or "bf16", block))
    # groups that name their modules go before those that take every linear layer
    found.sort(key=lambda f: "Linear" in f[0])
    return found if len(found) > 1 else None


def _matches(pattern: str, module: str) -> bool:
    """Match a pattern from a file, of which only `.*` and alternatives in brackets keep their meaning."""
    plain = re.sub(r"[\\^$]", "", pattern)
    escaped = ".*".join(re.escape(part) for part in plain.split(".*"))
    for sign in "()|":
        escaped = escaped.replace(re.escape(sign), sign)
    try:
        return re.match(escaped, module) is not None
    except re.error:
        return False


def _dtype(quant: Fields) -> tuple[str | None, int]:
    method = quant.text("quant_method").lower()
    if method == "fp8" or method == "fbgemm_fp8":
        size = quant.items("weight_block_size")
        if size is None:
            return "fp8", 0
        if len(size) != 2 or not all(isinstance(x, int) and not isinstance(x, bool) and x > 0 for x in size):
            quant.problem("weight_block_size", f"must be two positive whole numbers, got {size!r}")
            return None, 0
        return "fp8_block", int(size[0])
    if method == "mxfp4":
        return "mxfp4", 0
    if method == "modelopt" or quant.given("quant_algo") is not None:
        return _modelopt(quant), 0
    if method == "compressed-tensors":
        return _compressed_tensors(quant)
    if method in ("gptq", "awq", "auto-round", "autoround"):
        bits = quant.integer("bits", "w_bit", "weight_bits", default=4)
        if bits not in (4, 8):
            quant.problem("bits", f"must be 4 or 8, got {bits}")
        return ("int4" if bits == 4 else "int8"), 0
    if method == "bitsandbytes":
        return ("int4" if quant.values.get("load_in_4bit") else "int8"), 0
    quant.problem(
        "quant_method",
        f"must be one of fp8, mxfp4, modelopt, compressed-tensors, gptq, awq, bitsandbytes, got {method!r}",
    )
    return None, 0


def _modelopt(quant: Fields) -> str | None:
    algorithm = (quant.text("quant_algo") or quant.text("quant_method")).upper()
    known = {
        "NVFP4": "nvfp4",
        "FP8": "fp8",
        "W4A16_NVFP4": "nvfp4",
        "W4A8_AWQ": "int4",
        "INT4_AWQ": "int4",
        "FP8_PB_WO": "fp8_block",
        "MXFP8": "mxfp8",
        "MXFP4": "mxfp4",
        "W4A8_MXFP4_FP8": "mxfp4",
        "INT8_SQ": "int8",
    }
    if algorithm in known:
        return known[algorithm]
    groups = quant.table("config_groups")
    if groups:
        return _compressed_tensors(quant)[0]
    quant.problem("quant_algo", f"must be one of {', '.join(known)}, got {algorithm!r}")
    return None


def _compressed_tensors(quant: Fields) -> tuple[str | None, int]:
    groups = quant.table("config_groups") or {}
    for name, group in groups.items():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping):
            continue
        return _scheme(quant, f"config_groups.{name}.weights", weights)
    quant.problem("config_groups", f"must hold a group with weights, got {dict(groups)!r}")
    return None, 0


def _scheme(quant: Fields, path: str, weights: Mapping[str, Any]) -> tuple[str | None, int]:
    bits, kind, group = weights.get("num_bits"), weights.get("type"), weights.get("group_size")
    block = weights.get("block_structure")
    if bits == 8 and kind == "float":
        size = block[0] if isinstance(block, list) and block and isinstance(block[0], int) else 0
        if group == 32:
            return "mxfp8", 0
        return ("fp8_block", size) if size else ("fp8", 0)
    if bits == 8 and kind == "int":
        return "int8", 0
    if bits == 4 and kind == "int":
        return "int4", 0
    if bits == 4 and kind == "float":
        return ("mxfp4" if group == 32 else "nvfp4"), 0
    quant.problem(path, f"must be 4 or 8 bits of type int or float, got num_bits={bits!r}, type={kind!r}")
    return None, 0
