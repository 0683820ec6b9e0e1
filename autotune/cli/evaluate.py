"""`autotune evaluate`."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path
from typing import Any

import click

import autotune
from autotune.cli.options import EXIT_INFEASIBLE, form_of, wants_json
from autotune.cli.tune import progress_bar
from autotune.evaluation import read_claims
from autotune.files import write_file
from autotune.report.console import Terminal
from autotune.report.evaluation import evaluation_document
from autotune.report.evaluation_text import evaluation_markdown, print_evaluation
from autotune.report.files import to_json
from costmodel.errors import InputError

WIDTH = 156


def run_evaluate(
    *,
    study: str,
    overrides: tuple[str, ...],
    plan: str | None,
    claims: str | None,
    form: str | None,
    out: str | None,
    as_json: bool,
    as_table: bool,
) -> int:
    """Evaluate a plan and write the report; the exit code."""
    if form is not None and (as_json or as_table):
        raise InputError.single("--format", "must not be given with --json or --table")
    form = form_of(form, out, asked=as_json or as_table)
    loaded = autotune.load_study(Path(study), overrides)
    known = None if claims is None else read_claims(Path(claims))
    with progress_bar(quiet=as_json) as report:
        document = evaluation_document(autotune.evaluate(loaded, plan, known, progress=report))
    shape = form or ("json" if wants_json(as_json, as_table) else "terminal")
    if shape == "terminal" and out is None:
        print_evaluation(Terminal(width=None if sys.stdout.isatty() else WIDTH), document)
    elif out is None:
        click.echo(_rendered(document, shape), nl=False)
    else:
        write_file(Path(out), _rendered(document, shape))
    return 0 if document["verdict"] == "PASSED" else EXIT_INFEASIBLE


def _rendered(document: dict[str, Any], shape: str) -> str:
    if shape == "markdown":
        return evaluation_markdown(document)
    if shape == "html":
        from autotune.report.html.evaluation import evaluation_page  # the template engine is for those who want a page

        return evaluation_page(document)
    if shape == "terminal":
        buffer = StringIO()
        print_evaluation(Terminal(width=WIDTH, file=buffer), document)
        return buffer.getvalue()
    return to_json(document)
