"""`autotune calibrate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from autotune.cli.measured import measured_on
from autotune.files import write_file
from autotune.report.console import Terminal
from autotune.report.document import finite
from autotune.report.files import to_json
from autotune.validation.bench import SUFFIXES, read_results
from costmodel.calibration.profile import profile_text
from costmodel.measured.learn_profile import calibrate
from costmodel.measured.runs import Run
from costmodel.measured.runs_csv import read_runs

WIDTH = 156


def run_calibrate(
    *,
    runs: tuple[str, ...],
    out: str,
    models: str | None,
    study: str | None,
    plan: str | None,
    as_json: bool,
    as_table: bool,
) -> None:
    """Learn cells from run files and write the profile."""
    read: list[Run] = []
    for name in runs:
        path = Path(name)
        if path.suffix in SUFFIXES:
            read += _bench(path, study, plan)
        else:
            read += read_runs(path, None if models is None else Path(models))
    profile, changes = calibrate(read)
    write_file(Path(out), profile_text(profile))
    if as_json or not (as_table or sys.stdout.isatty()):
        click.echo(to_json(finite({"profile": out, "cells": [asdict(c) for c in changes]})), nl=False)
        return
    console = Terminal(width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (
        "engine | GPU | model | precision",
        "runs",
        "TPOT error",
        "with profile",
        "TTFT error",
        "with profile",
    ):
        table.add_column(title, justify="left" if "|" in title else "right")
    for c in changes:
        errors = (c.tpot_before, c.tpot_after, c.ttft_before, c.ttft_after)
        table.add_row(escape(c.name), str(c.runs), *(f"{e:.1%}" for e in errors))
    console.print(table)
    console.print(f'Errors are of the runs given. Written to {escape(out)}; in a study: calibration = "{escape(out)}"')


def _bench(path: Path, study: str | None, plan: str | None) -> tuple[Run, ...]:
    measured = measured_on(path, study, plan)
    results = read_results(path, measured.study, measured.plan, measured.knobs, fallback=measured.fallback)
    return tuple(result.run for result in results)
