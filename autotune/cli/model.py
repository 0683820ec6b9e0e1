"""What is understood of a model: `autotune model`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from autotune.cli.options import SHOWN

if TYPE_CHECKING:
    from autotune.report.text_blocks import Report
    from costmodel.arch import Arch


@click.command()
@click.argument("name", metavar="FILE|NAME")
@SHOWN
def model(name: str, as_json: bool, as_table: bool) -> None:
    """Show what is understood of a model: a config.json or a name of the catalog."""
    from pathlib import Path

    from autotune.cli.output import show
    from costmodel.arch import load_model, read_config_file

    path = Path(name)
    arch = read_config_file(path) if name.endswith(".json") or path.is_file() else load_model(name)
    show(_document(arch), _report, as_json=as_json, as_table=as_table)


def _document(arch: Arch) -> dict[str, Any]:
    from collections import Counter

    from costmodel.arch import active_params, kv_bytes_per_token, total_params, weight_bytes, weight_groups

    kinds = [*(k.value for k in arch.attention_kinds), *(k.value for k in arch.ffn_kinds)]
    return {
        "name": arch.name,
        "model_type": arch.model_type,
        "total_params": total_params(arch),
        "active_params": active_params(arch),
        "kv_bytes_per_token": kv_bytes_per_token(arch),
        "weight_bytes": weight_bytes(arch),
        "num_hidden_layers": arch.num_hidden_layers,
        "layers": dict(Counter(kinds)),
        "weights": {
            g.kind: {"params": g.params, "bytes": g.bytes, "dtype": g.dtype, "layers": g.layers}
            for g in weight_groups(arch)
        },
        "kv_dtype": arch.kv_dtype,
        "assumptions": list(arch.assumptions),
    }


def _report(document: dict[str, Any]) -> Report:
    from autotune.report.text_blocks import Block, Report, named, text_table
    from autotune.report.vocabulary.titles import MEMORY

    layers = ", ".join(f"{n} {kind}" for kind, n in document["layers"].items())
    params = f"{document['total_params'] / 1e9:,.2f} B parameters, {document['active_params'] / 1e9:,.2f} B active"
    cache = f"{document['kv_bytes_per_token']:,.0f} bytes of cache per token"
    titles = {kind: f"{MEMORY['attention']} ({kind.partition('_')[2]})" for kind in document["weights"]} | MEMORY
    rows = [
        (named(kind, titles), g["dtype"], str(g["layers"]), f"{g['params']:,}", f"{g['bytes'] / 1e9:,.2f}")
        for kind, g in document["weights"].items()
    ]
    table = text_table(("weights", "dtype", "layers", "parameters", "GB"), rows, texts=(0, 1))
    return Report(
        headline=f"{document['name']} ({document['model_type']})",
        lines=(
            f"{params}, {document['weight_bytes'] / 1e9:,.1f} GB, {cache}",
            f"{document['num_hidden_layers']} layers: {layers}",
        ),
        blocks=(Block(title="Weights", table=table), Block(title="Assumed", lines=tuple(document["assumptions"]))),
    )
