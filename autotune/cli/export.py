"""`autotune export`."""

from __future__ import annotations

from pathlib import Path

import click

from autotune.cli.options import EXIT_INFEASIBLE, wants_json
from autotune.engines.service import Service
from autotune.launch.export import choose_plan, current_service, imported_service, make_export
from autotune.launch.files import OutFile, write_folder
from autotune.launch.reading.import_plan import import_plan
from autotune.launch.reading.parse import find_engine
from autotune.launch.service import LaunchOptions
from autotune.launch.targets.registry import find_target, target_files
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
    loaded, chosen = load_study(Path(study), overrides), find_target(target)
    result, said = choose_plan(loaded, chosen, plan)
    if result is None:
        click.echo("error: no plan of the target's engine keeps every limit; name one with --plan", err=True)
        return EXIT_INFEASIBLE
    now = None if current is None else _current(loaded, current)
    launch = make_export(
        loaded,
        result,
        asked=LaunchOptions(version=engine_version, model=model, hybrid_lb=hybrid_lb, image=image),
        assumptions=said,
        usual_version=chosen.version,
    )
    files = target_files(chosen, launch, current=now)
    files |= {name: OutFile(text=text) for name, text in portable_study(Path(study), overrides).items()}
    write_folder(Path(out), files)
    document = export_document(launch, target=target, folder=out, files=sorted(files))
    if wants_json(as_json, as_table):
        click.echo(to_json(document), nl=False)
    else:
        print_export(document)
    return 0


def _current(study: Study, text: str) -> Service:
    """What runs now: of a file, folder or command as `autotune import` reads it, else a plan string or `baseline`."""
    path = Path(text)
    if find_engine(text.split()) is not None or (len(text) < MAX_NAME and "\x00" not in text and path.exists()):
        return imported_service(study, import_plan(text, study=study))
    return current_service(study, text)
