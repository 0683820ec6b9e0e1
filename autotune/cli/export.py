"""`autotune export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from autotune.cli.options import EXIT_INFEASIBLE, wants_json
from autotune.files import OutFile
from autotune.launch.export import Export, choose_plan, current_service, imported_service, make_export
from autotune.launch.files import write_export
from autotune.launch.plan import Service
from autotune.launch.reading.import_plan import import_plan
from autotune.launch.reading.parse import find_engine
from autotune.launch.targets.registry import TARGETS, Target, target_files
from autotune.report.files import to_json
from autotune.report.launch import export_document, print_export
from autotune.study import Study, load_study
from autotune.study.portable import portable_study

MAX_NAME = 250
"""Longer than this, `--from` is no file name on any system."""


def run_export(
    *,
    study: str,
    overrides: tuple[str, ...],
    plan: str | None,
    target: str,
    out: str,
    engine_version: str | None,
    model: str | None,
    current: str | None,
    hybrid_lb: bool,
    image: str | None,
    as_json: bool,
    as_table: bool,
) -> int:
    """Write the launch files of a plan; the exit code."""
    loaded, chosen = load_study(Path(study), overrides), TARGETS[target]
    result, said = choose_plan(loaded, chosen, plan)
    if result is None:
        click.echo("error: no plan of the target's engine keeps every limit; name one with --plan", err=True)
        return EXIT_INFEASIBLE
    export = make_export(
        loaded,
        result,
        said=said,
        version=engine_version,
        model=model,
        hybrid_lb=hybrid_lb,
        image=image,
        current=None if current is None else _current(loaded, current),
        usual_version=chosen.version,
    )
    files = _write(chosen, export, Path(out), portable_study(Path(study), overrides))
    document = export_document(export.launch, target=target, folder=out, files=files)
    if wants_json(as_json, as_table):
        click.echo(to_json(document), nl=False)
    else:
        print_export(document)
    return 0


def _write(target: Target, export: Export, folder: Path, study: Mapping[str, str]) -> list[str]:
    files = target_files(target, export.launch, current=export.current)
    files |= {name: OutFile(text=text) for name, text in study.items()}
    write_export(folder, files)
    return sorted(files)


def _current(study: Study, text: str) -> Service:
    """What runs now: of a file, folder or command as `autotune import` reads it, else a plan string or `baseline`."""
    path = Path(text)
    if find_engine(text.split()) is not None or (len(text) < MAX_NAME and "\x00" not in text and path.exists()):
        return imported_service(study, import_plan(text, study=study))
    return current_service(study, text)
