"""What is understood of a model: layers by shape, weights by module and dtype, cache by length of the context."""

from __future__ import annotations

from collections import Counter
from dataclasses import MISSING, fields
from typing import Any

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
