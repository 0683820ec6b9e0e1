"""The report on one plan: `autotune evaluate`."""

from __future__ import annotations

import sys
from typing import Any

import click

from autotune.cli.options import EXIT_INFEASIBLE, FORMS, QUESTION, Question


@click.command()
@QUESTION
@click.option("--plan", help="Plan to evaluate: a plan string, its rank, `best` or `baseline` (the default).")
@click.option(
    "--claims",
    type=click.Path(dir_okay=False),
    help="TOML file of claims about the plan, each of which is confirmed, refuted or undecidable.",
)
@FORMS
def evaluate(
    question: Question,
    plan: str | None,
    claims: str | None,
    form: str | None,
    out: str | None,
    verbose: bool,
    as_json: bool,
    as_table: bool,
) -> None:
    """Say what a plan of STUDY does and why, with evidence: PASSED or FAILED, and a verdict on each parallel axis.

    Every figure comes with its limit, the room to it, and what it rests on. Each axis is judged by the best plan
    with that axis at each other value, all else free. Claims of a report are held against our figures.

    \b
    autotune evaluate studies/deepseek-v3-128xh200.toml --table
    autotune evaluate studies/deepseek-v3-128xh200.toml --plan TP2/DP8/EP16 --format html --out report.html
    autotune evaluate studies/reference-128.toml --claims studies/reference-128.claims.toml --table

    Exit code 0: PASSED; 3: FAILED; 2: the input is wrong.
    """
    from pathlib import Path

    from autotune.cli.output import chosen_form, progress_bar, publish
    from autotune.evaluation import evaluate as evaluated
    from autotune.evaluation import read_claims
    from autotune.report.evaluation import evaluation_document
    from autotune.report.evaluation_text import BRIEF, evaluation_report

    form = chosen_form(form, out, as_json=as_json, as_table=as_table)
    loaded = question.load()
    known = None if claims is None else read_claims(Path(claims))
    with progress_bar(quiet=as_json) as report:
        found = evaluated(loaded, plan, known, progress=report)
    short = None if verbose or out is not None else BRIEF
    document = evaluation_document(found)
    publish(document, evaluation_report, _page, form=form, out=out, short=short)
    sys.exit(0 if document["verdict"] == "PASSED" else EXIT_INFEASIBLE)


def _page(document: dict[str, Any]) -> str:
    from autotune.report.html.evaluation import evaluation_page  # the template engine is for those who want a page

    return evaluation_page(document)
