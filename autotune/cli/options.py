"""Options and arguments that the commands share, and the exit codes. Imports click alone: `--help` is immediate."""

from __future__ import annotations

import sys

import click

EXIT_INPUT = 2
EXIT_INFEASIBLE = 3
EXIT_INTERRUPTED = 130

STUDY = click.argument("study", type=click.Path(dir_okay=False, path_type=str))
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a field of the study, as constraints.ttft_ms=800 or model=qwen3-235b. Repeatable.",
)
JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON document on stdout and nothing else (the default in a pipe).",
)
TABLE = click.option("--table", "as_table", is_flag=True, help="The table, also in a pipe.")


def wants_json(as_json: bool, as_table: bool) -> bool:
    """JSON where it is asked for, and in a pipe unless the table is."""
    return as_json or not (as_table or sys.stdout.isatty())
