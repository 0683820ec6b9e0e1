"""What is understood of a model, for people: layers by shape, weights by module and dtype, cache by context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.report.text_blocks import Block, Report, Table, named, text_table
from autotune.report.vocabulary.titles import MEMORY
from autotune.report.vocabulary.words import count


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
