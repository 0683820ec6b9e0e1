"""What is known before anything is scored: space, model, catalog, schema."""

from __future__ import annotations

import click

from autotune.cli.options import APPROXIMATE, JSON, SET, STUDY, TABLE, wants_json


@click.command()
@STUDY
@SET
@JSON
@TABLE
def space(study: str, overrides: tuple[str, ...], as_json: bool, as_table: bool) -> None:
    """List the valid layouts of STUDY, and how many each rule forbids, without scoring."""
    from autotune.cli.inspect import run_space

    run_space(study, overrides, as_json=wants_json(as_json, as_table))


@click.command()
@click.argument("name", metavar="FILE|FOLDER|NAME")
@APPROXIMATE
@JSON
@TABLE
def model(name: str, approximate: bool, as_json: bool, as_table: bool) -> None:
    """Show what is understood of a model: a config.json, the folder it lies in, or a name of the catalog."""
    from autotune.cli.inspect import run_model

    run_model(name, as_json=wants_json(as_json, as_table), approximate=approximate)


@click.command()
@JSON
@TABLE
def catalog(as_json: bool, as_table: bool) -> None:
    """List the models and GPUs known by name."""
    from autotune.cli.inspect import run_catalog

    run_catalog(as_json=wants_json(as_json, as_table))


@click.command()
def schema() -> None:
    """Print the JSON Schema of a study file."""
    from autotune.report.files import to_json
    from autotune.study import json_schema

    click.echo(to_json(json_schema()), nl=False)
