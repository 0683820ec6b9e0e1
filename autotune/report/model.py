"""What is understood of a model: layers by shape, weights by module and dtype, cache by length of the context.

A document, and its report for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from autotune.report.text_blocks import Block, Report, Table, named, text_table
from autotune.report.vocabulary.titles import MEMORY
from autotune.report.vocabulary.words import count
from costmodel.arch import (
    Arch,
    Group,
    active_params,
    cache_bytes,
    kv_bytes_per_token,
    total_params,
    weight_bytes,
    weight_groups,
)

CONTEXTS = (1024, 8192, 131_072)
"""Lengths of a sequence, tokens, that the cache is shown at."""
_HIDDEN = frozenset(("kind", "dtypes", "norm_gains", "biases"))


def model_document(arch: Arch) -> dict[str, Any]:
    """A model as JSON."""
    kinds = [*(k.value for k in arch.attention_kinds), *(k.value for k in arch.ffn_kinds)]
    caches = {tokens: cache_bytes(arch, tokens) for tokens in CONTEXTS}
    return {
        "name": arch.name,
        "model_type": arch.model_type,
        "total_params": total_params(arch),
        "active_params": active_params(arch),
        "kv_bytes_per_token": kv_bytes_per_token(arch),
        "weight_bytes": weight_bytes(arch),
        "num_hidden_layers": arch.num_hidden_layers,
        "layers": dict(Counter(kinds)),
        "shapes": [_shape(g) for g in arch.groups],
        "weights": _weights(arch),
        "cache": {
            str(tokens): {"bytes_per_sequence": size, "bytes_per_token": size / tokens}
            for tokens, size in caches.items()
        },
        "kv_dtype": arch.kv_dtype,
        "max_position_embeddings": arch.max_position_embeddings,
        "assumptions": list(arch.assumptions),
    }


def _shape(group: Group) -> dict[str, Any]:
    """A group of layers: which they are, and the numbers of their block that are not those of an ordinary one."""
    block = group.block
    ordinary = {f.name: 0 if f.default is MISSING else f.default for f in fields(block) if f.name not in _HIDDEN}
    sizes = {name: value for name in ordinary if (value := getattr(block, name)) != ordinary[name]}
    return {
        "group": group.name,
        "layers": group.count,
        "in_layers": _ranges([i for i, n in enumerate(group.per_layer) if n]),
        "sizes": {name: int(value) for name, value in sizes.items()},
        "dtypes": dict(block.dtypes),
    }


def _ranges(numbers: list[int]) -> str:
    """Numbers as `0-2,5,8-60`; an even step as `3-59/4`."""
    parts: list[str] = []
    at = 0
    while at < len(numbers):
        step = numbers[at + 1] - numbers[at] if at + 1 < len(numbers) else 1
        end = at
        while end + 1 < len(numbers) and numbers[end + 1] - numbers[end] == step:
            end += 1
        if step > 1 and end - at < 2:  # two of them are no rhythm
            parts.append(str(numbers[at]))
            at += 1
            continue
        every = "" if step == 1 else f"/{step}"
        parts.append(str(numbers[at]) if at == end else f"{numbers[at]}-{numbers[end]}{every}")
        at = end + 1
    return ",".join(parts)


def _weights(arch: Arch) -> dict[str, dict[str, Any]]:
    """By module; a module that is stored in several dtypes once for each."""
    out: dict[str, dict[str, Any]] = {}
    for g in weight_groups(arch):
        key = g.kind if g.kind not in out else f"{g.kind}:{g.dtype}"
        out[key] = {"params": g.params, "bytes": g.bytes, "dtype": g.dtype, "layers": g.layers}
    return out


def model_report(document: Mapping[str, Any]) -> Report:
    """The report on a document of `model_document`."""
    d = document
    params = f"{d['total_params'] / 1e9:,.2f} B parameters, {d['active_params'] / 1e9:,.2f} B active"
    cache = f"{d['kv_bytes_per_token']:,.0f} bytes of cache per token"
    return Report(
        headline=f"{d['name']} ({d['model_type']})",
        lines=(f"{params}, {d['weight_bytes'] / 1e9:,.1f} GB, {cache}", count(d["num_hidden_layers"], "layer")),
        blocks=(
            Block(title="Layers by shape", table=_shape_table(d["shapes"])),
            Block(title="Weights", table=_weight_table(d["weights"])),
            Block(title="Cache", table=_cache_table(d["cache"], d["kv_dtype"])),
            Block(title="Assumed", lines=tuple(d["assumptions"]) or ("nothing",)),
        ),
    )


def _shape_table(shapes: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            s["group"],
            f"{s['layers']:,}",
            s["in_layers"],
            ", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in s["sizes"].items()),
        )
        for s in shapes
    ]
    return text_table(("kind", "layers", "which", "shape"), rows, texts=(0, 2, 3))


def _weight_table(weights: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        (named(kind, _titles(kind)), g["dtype"], f"{g['layers']:,}", f"{g['params']:,}", f"{g['bytes'] / 1e9:,.2f}")
        for kind, g in weights.items()
    ]
    return text_table(("weights", "dtype", "layers", "parameters", "GB"), rows, texts=(0, 1))


def _titles(key: str) -> dict[str, str]:
    """Title of a module's weights by its key in the document."""
    kind = key.partition(":")[0]
    attention = kind.startswith("attention_")
    title = f"{MEMORY['attention']} ({kind.removeprefix('attention_')})" if attention else MEMORY.get(kind, kind)
    return {key: title}


def _cache_table(cache: Mapping[str, Mapping[str, float]], dtype: str) -> Table:
    rows = [
        (f"{int(tokens):,} tokens", dtype, f"{c['bytes_per_token']:,.0f}", f"{c['bytes_per_sequence'] / 1e6:,.1f}")
        for tokens, c in cache.items()
    ]
    return text_table(("context", "dtype", "bytes per token", "MB per sequence"), rows, texts=(0, 1))
