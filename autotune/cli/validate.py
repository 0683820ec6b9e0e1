"""`autotune validate`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from autotune.files import write_file
from autotune.report.console import Terminal
from autotune.report.document import finite
from autotune.report.files import to_json
from autotune.report.validation import print_published, print_validation
from autotune.validation.published import published_points, published_pools
from autotune.validation.report import predictions_csv, validation_document
from costmodel.calibration.profile import read_profile
from costmodel.errors import InputError
from costmodel.measured.runs import prepare_runs
from costmodel.measured.runs_csv import read_runs

WIDTH = 156


def run_validate(
    *,
    runs: str | None,
    models: str | None,
    predictions: str | None,
    calibration: str | None,
    published: bool,
    as_json: bool,
    as_table: bool,
) -> None:
    """Predict a file of runs and say how well, or compare with published deployments, or both."""
    if runs is None and not published:
        raise InputError.single("RUNS.csv", "is required, or --published")
    document: dict[str, Any] = {}
    if runs is not None:
        read = read_runs(Path(runs), None if models is None else Path(models))
        batch = prepare_runs(read, None if calibration is None else read_profile(Path(calibration)))
        estimate = batch.evaluate()
        if predictions is not None:
            write_file(Path(predictions), predictions_csv(read, estimate))
        document = validation_document(batch, estimate)
    points = published_points() if published else ()
    if as_json or not (as_table or sys.stdout.isatty()):
        if published:
            document["published"] = [{**asdict(p), "ratio": p.ratio} for p in points]
            document["published_pools"] = [{**asdict(p), "ratio": p.ratio} for p in published_pools()]
        click.echo(to_json(finite(document)), nl=False)
        return
    console = Terminal(width=None if sys.stdout.isatty() else WIDTH)
    if runs is not None:
        print_validation(console, document)
    if published:
        print_published(console, points)
        print_published(console, published_pools(), title="The same as pools of a disaggregated plan")
