"""The plan in production against a candidate: `autotune compare`."""

from __future__ import annotations

from typing import Any

import click

from autotune.cli.options import JSON, SET, STUDY, TABLE


@click.command()
@STUDY
@SET
@click.option("--current", metavar="PLAN", help="The plan that runs today. Default: the study's baseline.")
@click.option(
    "--candidate",
    metavar="PLAN|best",
    default="best",
    show_default=True,
    help="The plan to compare with; best: the first of the ranking.",
)
@click.option("--traffic", metavar="FILE", help="A request log; its traffic replaces the study's workload.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "html"]),
    help="A document for others to read, on stdout or into --out. Default: what the name of --out ends in.",
)
@click.option("--out", type=click.Path(dir_okay=False), help="File to write instead of stdout.")
@JSON
@TABLE
def compare(**options: Any) -> None:
    """Compare the plan in production with another: what differs, why, how sure that is, and what switching takes.

    The verdict is switch, keep or undecided, with its reason. The exit code is 0 whatever the verdict; 2: the input is
    wrong.

    \b
    autotune compare studies/deepseek-v3-128xh200.toml
    autotune compare studies/qwen3-235b-64xh100.toml --candidate TP4/DP2/EP8 --format markdown
    autotune compare STUDY --current TP8 --traffic requests.csv --json
    """
    from autotune.cli.compare import run_compare

    run_compare(**options)
