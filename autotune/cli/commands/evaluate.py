"""The report on one plan: `autotune evaluate`."""

from __future__ import annotations

import sys
from typing import Any

import click

from autotune.cli.options import JSON, SET, STUDY, TABLE


@click.command()
@STUDY
@SET
@click.option("--plan", help="Plan to evaluate, as a short or a full plan string. Default: the study's baseline.")
@click.option(
    "--claims",
    type=click.Path(dir_okay=False),
    help="TOML file of claims about the plan, each of which is confirmed, refuted or undecidable.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "markdown", "html", "json"]),
    help="Default: what the name of --out ends in, else terminal, JSON in a pipe.",
)
@click.option("--out", type=click.Path(dir_okay=False), help="File to write instead of standard output.")
@JSON
@TABLE
def evaluate(**options: Any) -> None:
    """Say what a plan of STUDY does and why, with evidence: PASSED or FAILED, and a verdict on each parallel axis.

    Every figure comes with its limit, the room to it, and what it rests on. Each axis is judged by the best plan
    with that axis at each other value, all else free. Claims of a report are held against our figures.

    \b
    autotune evaluate studies/deepseek-v3-128xh200.toml --table
    autotune evaluate studies/deepseek-v3-128xh200.toml --plan TP2/DP8/EP16 --format html --out report.html
    autotune evaluate studies/reference-128.toml --claims studies/reference-128.claims.toml --table

    Exit code 0: PASSED; 3: FAILED; 2: the input is wrong.
    """
    from autotune.cli.evaluate import run_evaluate

    sys.exit(run_evaluate(**options))
