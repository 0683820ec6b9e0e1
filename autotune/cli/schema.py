"""The fields of a study file: `autotune schema`."""

from __future__ import annotations

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema of a study file."""
    from autotune.report.files import to_json
    from autotune.study import json_schema

    click.echo(to_json(json_schema()), nl=False)
