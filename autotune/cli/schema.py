"""The fields of a study file: `autotune schema`."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "--format",
    "form",
    default="json",
    show_default=True,
    type=click.Choice(["json", "markdown"]),
    help="JSON Schema, for editors and programs, or a page for people.",
)
def schema(form: str) -> None:
    """Print the fields of a study file, as a JSON Schema or as a page."""
    if form == "markdown":
        from autotune.report.study_reference import study_reference

        click.echo(study_reference(), nl=False)
        return
    from autotune.report.files import to_json
    from autotune.study.study_table import json_schema

    click.echo(to_json(json_schema()), nl=False)
