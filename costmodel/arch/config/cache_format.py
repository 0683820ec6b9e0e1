"""The dtype of the cache, by any published way of saying it in settings of quantisation."""

from __future__ import annotations

from collections.abc import Mapping

from costmodel.arch.config.fields import Fields

_AS_ACTIVATIONS = ("", "none", "auto", "bf16", "bfloat16", "fp16", "float16", "fp32", "float32")
_STORED = ("nvfp4", "fp8", "int8")
"""Beginnings of the names that files give (`fp8_e4m3`, `NVFP4_AFFINE`), which are the dtypes' own."""
_TABLES = ("kv_cache_quant_config", "kv_cache_config")
"""Quark's: of the projections whose outputs are cached."""


def kv_dtype(quant: Fields, plain: str) -> str:
    """Of the cache, where the checkpoint says it; else `plain`, that of the activations."""
    quant.read.update(("kv_cache_quant_algo", "kv_cache_dtype", "kv_cache_scheme", *_TABLES))
    for name in ("kv_cache_quant_algo", "kv_cache_dtype", "kv_cache_scheme"):
        value = quant.values.get(name)
        if value is None or (isinstance(value, Mapping) and not value):
            continue
        asked = _of_scheme(value) if isinstance(value, Mapping) else str(value).lower()
        if asked in _AS_ACTIVATIONS:
            continue
        found = next((dtype for dtype in _STORED if asked.startswith(dtype)), None)
        if found is None:
            quant.problem(name, f"must be one of {', '.join(_STORED)} or auto, got {value!r:.80}")
        return found or plain
    for name in _TABLES:
        table = quant.values.get(name)
        if isinstance(table, Mapping) and table:
            found = next((dtype for dtype in ("fp8", "int8") if dtype in str(table)[:2000]), None)
            if found is None:
                quant.problem(name, f"must be of fp8 or int8, got {str(table)[:80]}")
            return found or plain
    return _of_projections(quant) or plain


def _of_scheme(scheme: Mapping[str, object]) -> str:
    """The name of compressed-tensors' table of bits and kind."""
    bits, kind = scheme.get("num_bits"), scheme.get("type", "float")
    if bits == 8:
        return "int8" if kind == "int" else "fp8"
    return "nvfp4" if bits == 4 and kind == "float" else f"{bits} bits of {kind}"


def _of_projections(quant: Fields) -> str | None:
    """Quark: what the projections of keys and values put out is what is cached."""
    layers = quant.values.get("layer_quant_config")
    for pattern, entry in layers.items() if isinstance(layers, Mapping) else ():
        outputs = entry.get("output_tensors") if isinstance(entry, Mapping) else None
        if isinstance(pattern, str) and pattern.endswith(("k_proj", "v_proj")) and "fp8" in str(outputs)[:500]:
            return "fp8"
    return None
