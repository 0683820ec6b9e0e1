"""Score and rank: `autotune tune`."""

from __future__ import annotations

import sys
from typing import Any

import click

from autotune.cli.options import BACKEND, JOBS, JSON, SCHEDULER, SET, STORAGE, STUDY, TABLE


@click.command()
@STUDY
@SET
@JSON
@TABLE
@click.option("--top", default=15, show_default=True, type=click.IntRange(0), help="Plans to show; 0 for all.")
@click.option("--out", type=click.Path(file_okay=False), help="Folder for result.json, plans.csv and the storage.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False),
    help="Report for people: one self-contained page with charts, and up to where the choice holds.",
)
@click.option(
    "--pareto",
    is_flag=True,
    help="The Pareto front of throughput, TTFT, TPOT and (where prices are given) cost, instead of a ranking.",
)
@STORAGE
@click.option("--no-storage", is_flag=True, help="Keep nothing; score everything again.")
@JOBS
@BACKEND
@SCHEDULER
def tune(**options: Any) -> None:
    """Score every valid plan of STUDY and rank them against its baseline.

    Exit code 0: at least one plan keeps every constraint; 3: none does (the nearest ones are shown); 2: the
    input is wrong. Running the same study again answers from its storage; running it in several places at once, with
    one storage, shares the work (see also `autotune worker`).
    """
    from autotune.cli.tune import run_tune

    sys.exit(run_tune(**options))
