"""`autotune import`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from autotune.cli.options import wants_json
from autotune.launch.reading.import_plan import import_plan
from autotune.report.files import to_json
from autotune.report.launch import import_document, print_import
from autotune.study import load_study
from costmodel.errors import InputError


def run_import(
    *,
    source: tuple[str, ...],
    study: str | None,
    overrides: tuple[str, ...],
    model_name: str | None,
    engine_version: str | None,
    as_json: bool,
    as_table: bool,
) -> None:
    """Read what runs today and show it."""
    if overrides and study is None:
        raise InputError.single("--set", "changes fields of a study: name it with --study")
    loaded = None if study is None else load_study(Path(study), overrides)
    text = source[0] if len(source) == 1 else shlex.join(source)
    imported = import_plan(text, version=engine_version, study=loaded, model=model_name)
    document = import_document(imported)
    if wants_json(as_json, as_table):
        click.echo(to_json(document), nl=False)
    else:
        print_import(document)
