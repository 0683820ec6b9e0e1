"""What re-tuning would have done on recorded traffic: `autotune retune replay`."""

from __future__ import annotations

from typing import Any

import click

from autotune.cli.options import JSON, SET, STUDY, TABLE


@click.command()
@STUDY
@SET
@click.option(
    "--traffic", required=True, multiple=True, metavar="FILE", help="Request log; several follow each other in order."
)
@click.option("--step", default="10m", show_default=True, metavar="TIME", help="How often is decided.")
@click.option("--window", default="30m", show_default=True, metavar="TIME", help="How far back each decision looks.")
@click.option(
    "--load",
    default="0.9",
    show_default=True,
    metavar="SHARE|as-is",
    help="Mean load of each log, as a share of what the best plan takes of it within the limits; as-is: as it came.",
)
@click.option(
    "--begin",
    default="baseline",
    show_default=True,
    type=click.Choice(["best", "baseline"]),
    help="What runs at first: the study's baseline, or the best plan for the first step.",
)
@click.option("--plot", type=click.Path(dir_okay=False), help="SVG file to write.")
@click.option("--markdown", type=click.Path(dir_okay=False), help="Markdown file to write the tables to.")
@JSON
@TABLE
def replay(**options: Any) -> None:
    """Walk recorded traffic and report what retune decides, beside never and always switching, and an oracle.

    All begin with the same plan, the baseline unless --begin best. The oracle knows each step and switches for nothing.

    \b
    autotune retune replay studies/qwen3-235b-64xh100.toml --traffic conversation.csv --traffic code.csv --step 10m
    """
    from autotune.cli.replay import run_replay

    run_replay(**options)
