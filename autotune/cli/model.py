"""What is understood of a model: `autotune model`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from autotune.cli.options import APPROXIMATE, SHOWN

if TYPE_CHECKING:
    from autotune.report.text_blocks import Report


@click.command()
@click.argument("name", metavar="FILE|FOLDER|NAME")
@APPROXIMATE
@SHOWN
def model(name: str, approximate: bool, as_json: bool) -> None:
    """Show what is understood of a model: a config.json, the folder it lies in, or a name of the catalog."""
    import os  # whose checks take a name of any length
    from pathlib import Path

    from autotune.cli.output import show
    from autotune.report.model import model_document
    from costmodel.arch import load_model, read_config_file

    path = Path(name)
    is_path = name.endswith(".json") or os.path.isfile(name) or os.path.isdir(name)
    arch = read_config_file(path, approximate=approximate) if is_path else load_model(name)
    show(model_document(arch), _report, as_json=as_json)


def _report(document: dict[str, Any]) -> Report:
    from autotune.report.model import model_report

    return model_report(document)
