"""Definitions of `autotune study list | show | export | delete`."""

from __future__ import annotations

from typing import Any

import click

from autotune.cli.options import JSON, TABLE

STORAGE = click.option(
    "--storage",
    help="Journal file, folder or database URL, as for `autotune tune`. Default: your data folder.",
)
NAME = click.argument("name")


@click.group()
def study() -> None:
    """List, show, export and delete the studies of a storage.

    They are plain Optuna studies: optuna-dashboard and optuna.visualization read them as well.

    \b
    autotune study list
    autotune study show reference-128-1a2b3c4d5e6f --storage out/journal.log
    autotune study export NAME --format csv --out trials.csv
    """


@study.command("list")
@STORAGE
@JSON
@TABLE
def list_studies(**options: Any) -> None:
    """List the studies: trials, feasible ones, and the best plan of each."""
    from autotune.cli.study import run_list

    run_list(**options)


@study.command()
@NAME
@STORAGE
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="Trials to show, best first.")
@JSON
@TABLE
def show(**options: Any) -> None:
    """Show one study: its best feasible trials, and how many plans break each constraint."""
    from autotune.cli.study import run_show

    run_show(**options)


@study.command()
@NAME
@STORAGE
@click.option("--format", "as_format", default="csv", show_default=True, type=click.Choice(["csv", "json"]))
@click.option("--out", type=click.Path(dir_okay=False), help="File to write; default: stdout.")
def export(**options: Any) -> None:
    """Write every trial of a study: parameters, values, excess of each constraint, attributes."""
    from autotune.cli.study import run_export

    run_export(**options)


@study.command()
@NAME
@STORAGE
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(**options: Any) -> None:
    """Delete one study with all its trials. Asks first."""
    from autotune.cli.study import run_delete

    run_delete(**options)
