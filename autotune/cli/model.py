"""What is understood of a model: `autotune model`."""

from __future__ import annotations

import click

from autotune.cli.options import APPROXIMATE, SHOWN


@click.command()
@click.argument("name", metavar="FILE|FOLDER|NAME")
@APPROXIMATE
@SHOWN
def model(name: str, approximate: bool, as_json: bool) -> None:
    """Show what is understood of a model: a config.json, the folder it lies in, or a name of the catalog."""
    import os  # whose checks take a name of any length
    from pathlib import Path

    from autotune.cli.output import show
    from autotune.report.model import model_document, model_report
    from costmodel.arch import load_model, read_config_file

    path = Path(name)
    is_path = name.endswith(".json") or os.path.isfile(name) or os.path.isdir(name)
    arch = read_config_file(path, approximate=approximate) if is_path else load_model(name)
    show(model_document(arch), model_report, as_json=as_json)
