"""`autotune compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from autotune.cli.options import form_of, wants_json
from autotune.comparison import compare
from autotune.files import write_file
from autotune.report.comparison import comparison_document
from autotune.report.comparison_text import comparison_markdown, print_comparison
from autotune.report.console import Terminal
from autotune.report.files import to_json
from autotune.study import load_study
from autotune.traffic import WorkloadProfile, read_traffic
from costmodel.errors import InputError

WIDTH = 156


def run_compare(
    *,
    study: str,
    overrides: tuple[str, ...],
    current: str | None,
    candidate: str,
    traffic: str | None,
    form: str | None,
    out: str | None,
    as_json: bool,
    as_table: bool,
) -> None:
    """Compare, and show it in the form that was asked for."""
    if form is not None and (as_json or as_table):
        raise InputError.single("--format", "must not be given with --json or --table")
    form = form_of(form, out, asked=as_json or as_table)
    question = load_study(Path(study), overrides)
    profile = None if traffic is None else _profile(traffic)
    document = comparison_document(compare(question, current, candidate, traffic=profile, source=traffic))
    if form is None and not wants_json(as_json, as_table) and out is None:
        print_comparison(Terminal(width=None if sys.stdout.isatty() else WIDTH), document)
        return
    text = _rendered(document, form)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_file(Path(out), text)


def _profile(source: str) -> WorkloadProfile:
    log = read_traffic(source)
    if log.refusal is not None:
        raise InputError.single(source, f"cannot be compared on: {log.refusal}")
    return log.profile()


def _rendered(document: dict[str, Any], form: str | None) -> str:
    if form == "markdown":
        return comparison_markdown(document)
    if form == "html":
        from autotune.report.html.comparison import comparison_page  # the template engine is for those who want a page

        return comparison_page(document)
    return to_json(document)
