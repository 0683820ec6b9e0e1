"""What is understood of a model: layers by shape, weights by module and dtype, cache by length of the context."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
    """A group of layers: which they are, and the numbers of their block that are not 0."""
    block = group.block
    sizes = {f.name: getattr(block, f.name) for f in fields(block) if f.name not in _HIDDEN}
    return {
        "group": group.name,
        "layers": group.count,
        "in_layers": _ranges([i for i, n in enumerate(group.per_layer) if n]),
        "sizes": {name: int(value) for name, value in sizes.items() if value},
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


def print_model(console: Console, document: dict[str, Any]) -> None:
    """The same for people."""
    console.print(f"[bold]{escape(document['name'])}[/] ({escape(document['model_type'])})", highlight=False)
    console.print(
        f"{document['total_params'] / 1e9:,.2f} B parameters, {document['active_params'] / 1e9:,.2f} B active, "
        f"{document['weight_bytes'] / 1e9:,.1f} GB, {document['kv_bytes_per_token']:,.0f} bytes of cache per token",
        highlight=False,
    )
    console.print(f"{document['num_hidden_layers']} layers", highlight=False)
    table = Table("layers", "number", "which", "shape", box=None, pad_edge=False, header_style="bold")
    for shape in document["shapes"]:
        sizes = ", ".join(f"{name} {value:,}" for name, value in shape["sizes"].items())
        table.add_row(shape["group"], str(shape["layers"]), shape["in_layers"], sizes)
    console.print(table)
    table = Table("weights", "dtype", "layers", "parameters", "GB", box=None, pad_edge=False, header_style="bold")
    for kind, g in document["weights"].items():
        table.add_row(kind, g["dtype"], str(g["layers"]), f"{g['params']:,}", f"{g['bytes'] / 1e9:,.2f}")
    console.print(table)
    table = Table("cache", "bytes per token", "MB per sequence", box=None, pad_edge=False, header_style="bold")
    for tokens, cache in document["cache"].items():
        table.add_row(
            f"{int(tokens):,} tokens in {document['kv_dtype']}",
            f"{cache['bytes_per_token']:,.0f}",
            f"{cache['bytes_per_sequence'] / 1e6:,.1f}",
        )
    console.print(table)
    for text in document["assumptions"]:
        console.print(f"  - {escape(text)}", highlight=False)
