"""Help another process score: `autotune worker`."""

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
@STORAGE
@JOBS
@BACKEND
@SCHEDULER
def worker(**options: Any) -> None:
    """Score plans of STUDY into a shared storage until all are scored; rank nothing.

    Start any number, on any number of machines, beside `autotune tune STUDY --storage URL` or before it: each plan is
    scored by one of them, and what a killed worker had taken is done by another. Same study, same --set, same
    version everywhere, or it is another question with trials of its own.

    \b
    autotune worker studies/deepseek-v3-128xh200.toml --storage postgresql://tuner@db/plans
    """
    from autotune.cli.worker import run_worker

    sys.exit(run_worker(**options))
