"""`autotune verify`."""

from __future__ import annotations

from pathlib import Path

import click

from autotune.cli.measured import measured_on
from autotune.cli.options import wants_json
from autotune.cli.tune import progress_bar
from autotune.report.files import to_json
from autotune.report.verification import print_verification, verification_document
from autotune.validation.bench import SUFFIXES, read_results
from autotune.validation.verify import verify
from costmodel.errors import InputError


def run_verify(
    *, result: str, study: str | None, overrides: tuple[str, ...], plan: str | None, as_json: bool, as_table: bool
) -> None:
    """Hold a result against its prediction and show both."""
    path = Path(result)
    if path.suffix not in SUFFIXES:
        raise InputError.single(result, f"must be a benchmark's result ({' or '.join(SUFFIXES)})")
    measured = measured_on(path, study, plan, overrides)
    results = read_results(path, measured.study, measured.plan, measured.knobs, fallback=measured.fallback)
    json_wanted = wants_json(as_json, as_table)
    with progress_bar(quiet=json_wanted) as report:
        found = verify(measured.study, results, progress=report)
    document = verification_document(found, source=result, said=measured.assumptions)
    if json_wanted:
        click.echo(to_json(document), nl=False)
    else:
        print_verification(document)
