"""Tuning again as traffic drifts: `autotune retune`, and accept and history below it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

import click

from autotune.cli.lazy_group import LazyGroup
from autotune.cli.options import (
    EXIT_REFUSED,
    FLAGS,
    QUESTION,
    READING,
    SHOWN,
    VARIABLES,
    NewFile,
    Question,
    given_variables,
    wants_json,
)

if TYPE_CHECKING:
    from autotune.retuning.lock import BusyError
    from autotune.retuning.retune_once import Outcome
    from autotune.traffic.options import ReadOptions

TIMEOUT = "30s"
EXIT_SWITCH = 10
EXIT_BUSY = 75

STATE = click.option(
    "--state",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Folder of the ledger, current.json and the lock; made where it does not exist.",
)
NOW = click.option("--now", metavar="TIME", help="ISO 8601 or Unix seconds. Default: the log's last request, or now.")


@click.group(cls=LazyGroup, homes={"replay": "replay"}, default="run")
def retune() -> None:
    """Decide whether today's traffic is worth another plan. One shot, for cron, systemd timers and CronJobs.

    The window's traffic is compared with what the current plan was chosen for. Without drift nothing is tuned. Else
    the current plan and the best one are put on the same traffic, and a switch is recommended when its gain over a
    horizon, less what it costs, is large and sure enough (table `retune` of the study; `switch` says what it costs).
    Every decision is a line of the ledger; the same window decides once, and a switch that was made is `keep` after.

    \b
    autotune retune studies/deepseek-v3-128xh200.toml --traffic requests.csv --state state
    autotune retune history --state state
    autotune retune accept --state state

    Exit code 0 (with --detailed-exitcode 0: keep, 10: switch); 4: the window cannot be judged; 75: another run is at
    work on the state; 2: the input is wrong.
    """


@retune.command(name="run", hidden=True)
@QUESTION
@click.option("--traffic", required=True, metavar="FILE|URL", help="Request log, or metrics of a running server.")
@READING
@click.option(
    "--current",
    metavar="PLAN|FILE|COMMAND",
    help="What runs today, for the first decision; later the ledger says it. Default: the study's baseline.",
)
@VARIABLES
@STATE
@click.option("--window", default="24h", show_default=True, metavar="TIME", help="How far back: 90m, 24h, 7d.")
@click.option(
    "--min-cover",
    type=float,
    default=0.001,
    show_default=True,
    help="Share of the window that a log has to cover; below, nothing is decided (exit code 4).",
)
@NOW
@click.option(
    "--timeout",
    default=TIMEOUT,
    show_default=True,
    metavar="TIME",
    help="Of an address: for each answer, 20 times it in all.",
)
@click.option("--apply", is_flag=True, help="Make a recommended switch the current plan at once.")
@click.option("--detailed-exitcode", is_flag=True, help="0: keep, 10: a switch is recommended, or made now.")
@click.option("--metrics", type=NewFile(), help="Prometheus text file to replace.")
@FLAGS
def run(
    question: Question,
    traffic: str,
    reading: ReadOptions,
    current: str | None,
    variables: tuple[str, ...],
    state: str,
    window: str,
    min_cover: float,
    now: str | None,
    timeout: str,
    apply: bool,
    detailed_exitcode: bool,
    metrics: str | None,
    as_json: bool,
    as_table: bool,
) -> None:
    """Decide on the window that ends now."""
    import time
    from dataclasses import replace
    from pathlib import Path

    from autotune.cli.current import with_current
    from autotune.cli.output import progress_bar
    from autotune.cli.times import duration_s, time_s
    from autotune.retuning.lock import BusyError
    from autotune.retuning.metrics import write_metrics
    from autotune.retuning.retune_once import retune as decide
    from autotune.study import Baseline

    started = time.perf_counter()
    window_s, now_s = duration_s(window, "--window"), None if now is None else time_s(now, "--now")
    timeout_s = duration_s(timeout, "--timeout")
    asked = question.load()
    runs = with_current(asked, current, given_variables(variables))
    told = Baseline(plan=runs.plan) if runs.plan is not None else runs.study.baseline if current is not None else None
    quiet = wants_json(as_json, as_table)
    try:
        with progress_bar(quiet=quiet) as report:
            outcome = decide(
                replace(runs.study, baseline=asked.baseline),
                traffic,
                Path(state),
                window_s=window_s,
                now_s=now_s,
                timeout_s=timeout_s,
                options=replace(reading, least_cover_frac=min_cover),
                apply=apply,
                current=told,
                progress=report,
            )
    except BusyError as error:
        _busy(error)
    if metrics is not None:
        write_metrics(Path(metrics), outcome, duration_s=time.perf_counter() - started)
    _show(outcome, as_json=as_json, one_line=quiet)  # cron mails what is printed: a document is for who asks for it
    decision = outcome.entry["decision"]
    if decision == "refuse":
        sys.exit(EXIT_REFUSED)
    sys.exit(EXIT_SWITCH if detailed_exitcode and decision == "switch" else 0)


@retune.command()
@STATE
@click.option("--id", "decision", metavar="ID", help="Beginning of a decision's id. Default: the latest decision.")
@NOW
@SHOWN
def accept(state: str, decision: str | None, now: str | None, as_json: bool) -> None:
    """Make a recommended switch the current plan: a line in the ledger, and current.json."""
    import time
    from pathlib import Path

    from autotune.cli.times import time_s
    from autotune.retuning.lock import BusyError
    from autotune.retuning.retune_once import accept as accepted

    now_s = time.time() if now is None else time_s(now, "--now")
    try:
        outcome = accepted(Path(state), decision, now_s=now_s)
    except BusyError as error:
        _busy(error)
    _show(outcome, as_json=as_json)


@retune.command()
@STATE
@click.option("--last", default=0, type=click.IntRange(0), help="Entries to show, the newest; 0 for all.")
@SHOWN
def history(state: str, last: int, as_json: bool) -> None:
    """Show the ledger: what was decided, why, and what was put into production."""
    from pathlib import Path

    from autotune.report.files import to_json
    from autotune.report.retuning import history_document, history_table
    from autotune.report.terminal import print_line, print_table, stdout_console
    from autotune.retuning.ledger import read_ledger
    from costmodel.errors import InputError

    folder = Path(state)
    if not folder.is_dir():
        raise InputError.single("--state", f"must be a folder that `autotune retune` made, got {state}")
    document = history_document(read_ledger(folder), last=last)
    if as_json:
        click.echo(to_json(document), nl=False)
        return
    table = history_table(document)
    if table is None:
        print_line(stdout_console(), f"nothing was decided yet in {document['ledger']}")
    else:
        print_table(stdout_console(), table)


def _show(outcome: Outcome, *, as_json: bool, one_line: bool = False) -> None:
    from autotune.report.files import to_json
    from autotune.report.retuning import retune_document, retune_line, retune_lines
    from autotune.report.terminal import print_line, stdout_console

    document = retune_document(outcome)
    if as_json:
        click.echo(to_json(document), nl=False)
        return
    for line in [retune_line(document)] if one_line else retune_lines(document):
        print_line(stdout_console(), line)


def _busy(error: BusyError) -> NoReturn:
    click.echo(f"busy: {error}", err=True)
    sys.exit(EXIT_BUSY)
