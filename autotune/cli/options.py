"""Options and arguments that the commands share, and the exit codes. Imports click alone: `--help` is immediate."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import click

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_INPUT = 2
EXIT_INFEASIBLE = 3
EXIT_INTERRUPTED = 130

STUDY = click.argument("study", type=click.Path(dir_okay=False, path_type=str))
_SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a field of the study, as constraints.ttft_ms=800 or model=qwen3-235b. Repeatable.",
)
APPROXIMATE = click.option(
    "--approximate",
    is_flag=True,
    help="Take the nearest model where the file has fields that are not modelled; every result says so.",
)
JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON document on stdout and nothing else (the default in a pipe).",
)
TABLE = click.option("--table", "as_table", is_flag=True, help="The table, also in a pipe.")
STORAGE = click.option(
    "--storage",
    help="Optuna storage: a journal file or .db file, which serve one machine, or postgresql://USER@HOST/DATABASE for "
    "any number (password: in the URL, PGPASSWORD or ~/.pgpass). Default: your data folder.",
)
JOBS = click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 1024), help="Processes that score.")
BACKEND = click.option(
    "--backend",
    type=click.Choice(["joblib", "dask", "ray"]),
    default="joblib",
    show_default=True,
    help="What runs them: processes here, or a Dask or Ray cluster.",
)
SCHEDULER = click.option(
    "--scheduler", metavar="ADDRESS", help="The cluster: tcp://HOST:8786 (Dask), HOST:6379 or ray://HOST:10001 (Ray)."
)


SUFFIXES = {".html": "html", ".htm": "html", ".md": "markdown", ".json": "json"}
"""Ending of a file -> the form that it is taken to be in where none is asked for."""


def form_of(form: str | None, out: str | None, *, asked: bool) -> str | None:
    """The form asked for, else the one that the file's name says; `asked`: JSON or a table is asked for already."""
    if form is not None or out is None or asked:
        return form
    return next((known for suffix, known in SUFFIXES.items() if out.lower().endswith(suffix)), None)


def wants_json(as_json: bool, as_table: bool) -> bool:
    """JSON where it is asked for, and in a pipe unless the table is."""
    return as_json or not (as_table or sys.stdout.isatty())


def SET(command: Command) -> Command:  # noqa: N802  # an option like the others
    """Changes to a study: `--set PATH=VALUE`, and `--approximate` for `--set approximate=true`."""

    @wraps(command)
    def changed(*args: Any, overrides: tuple[str, ...], approximate: bool, **options: Any) -> Any:
        return command(*args, overrides=(*overrides, *(("approximate=true",) if approximate else ())), **options)

    return _SET(APPROXIMATE(cast("Command", changed)))
